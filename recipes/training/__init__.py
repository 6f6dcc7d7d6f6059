"""What ``mynah pretrain`` is made of: config, data, schedule, optimiser, checkpoints, the loop."""
