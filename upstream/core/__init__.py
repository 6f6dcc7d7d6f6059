"""Shared parts of the upstreams: the contract, ragged execution, blocks, objectives' primitives."""
