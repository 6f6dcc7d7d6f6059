"""Leaderboard submissions: what the zip holds, how it is made, read, checked and scored."""
