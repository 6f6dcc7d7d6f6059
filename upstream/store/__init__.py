"""The feature store: what the frozen upstream said, kept once."""
