"""Shared parts of the voice converters."""
