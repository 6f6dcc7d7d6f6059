"""A static leaderboard: JSON in, pages out."""
