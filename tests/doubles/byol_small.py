"""A small BYOL-A, and noise from a seed."""

from typing import Any

import torch
from torch import Tensor

from mynah.upstream.byol import Byol, Config

MICRO: dict[str, Any] = {
    "num_mels": 16,
    "window": 400,
    "channels": (4, 6, 8),
    "embed_dim": 24,
    "dropout": 0.0,
    "memory": 12,
    "projector": (20, 10),
    "predictor": 14,
    "least_clips": 6,
    "clip_seconds": 0.3,
}


def make(**settings: Any) -> Byol:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Byol(Config(**{**MICRO, **settings}))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
