"""The parts of a probe: features in batches, training of all heads at once, scoring."""
