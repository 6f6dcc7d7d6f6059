"""Frames for discrete bottlenecks, a vector quantiser that has begun, and a seeded call."""

import torch
from torch import Tensor

from mynah.upstream.core.codebooks import (
    Bottleneck,
    Coded,
    VectorQuantizer,
)

FRAMES, WIDTH, CODES = 61, 6, 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frames(seed: int = 1, count: int = FRAMES) -> Tensor:
    return torch.randn(count, WIDTH, generator=generator(seed))


def vq(**settings: float) -> VectorQuantizer:
    torch.manual_seed(3)
    model = VectorQuantizer(WIDTH, codes=CODES, **settings)  # type: ignore[arg-type]
    model.codebook_VD.copy_(torch.randn(CODES, WIDTH))
    model.sum_VD.copy_(model.codebook_VD)
    model.idle_V.zero_()
    return model


def run(model: Bottleneck, x_MD: Tensor, seed: int = 0) -> Coded:
    coded: Coded = model(x_MD, generator=generator(seed))
    return coded
