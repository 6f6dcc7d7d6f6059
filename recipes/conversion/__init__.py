"""Voice conversion: training, converting files, proving what was disentangled."""
