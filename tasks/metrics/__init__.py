"""Metrics: pure functions with a signature string and a bootstrap interval."""
