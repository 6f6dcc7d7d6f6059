"""Shared parts of the vocoders."""
