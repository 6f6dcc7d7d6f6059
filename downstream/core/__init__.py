"""Shared parts of the heads: the weighted sum of layers and the sweep over learning rates."""
