"""Corpora: manifests, audio, validation, batching, and the embedded corpus."""
