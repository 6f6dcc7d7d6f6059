"""Pseudo-labels for masked prediction: features, clusters, one label per frame."""
