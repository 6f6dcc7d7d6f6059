"""Dropout with sixteen random bits per element.

torch draws a float per element. Here a small fast generator (SFC64), seeded from torch's global one,
gives 64 bits at a time for four elements; the probability is thereby rounded to a multiple of
2^-16, and the scale follows the rounded one, so that the expectation is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LEVELS = 1 << 16


class Drops:
    """A stream of random masks.

    Args:
        p: probability of a drop, below 1.
        seed: of the stream; None draws one from torch's global generator.
    """

    def __init__(self, p: float, seed: int | None = None) -> None:
        self.level = round(p * _LEVELS)
        self.scale = _LEVELS / (_LEVELS - self.level)
        self.seed = int(torch.randint(2**62, ())) if seed is None else seed
        self._bits = np.random.SFC64(self.seed)

    def keep(self, shape: Sequence[int]) -> Tensor:
        """Return the next mask, uint8: 1 for an element that is kept, 0 for a dropped one."""
        size = prod(shape)
        bits = np.asarray(self._bits.random_raw(-(-size // 4))).view(np.uint16)[:size]
        kept = np.greater_equal(bits, np.uint16(self.level))
        return torch.from_numpy(kept.view(np.uint8)).view(*shape)


class Dropout(torch.autograd.Function):
    """``y = x * keep * scale``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, drops: Drops) -> Tensor:
        """Return a tensor like ``x``."""
        keep = drops.keep(x.shape)
        ctx.save_for_backward(keep)
        ctx.scale = drops.scale
        return (x * keep).mul_(drops.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of ``x``."""
        (keep,) = ctx.saved_tensors
        return (grads[0] * keep).mul_(ctx.scale), None


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:  # noqa: A002
    """Replace ``F.dropout`` for floats on CPUs."""
    if not training or p == 0.0:
        return input
    x = input
    level = round(p * _LEVELS)
    if inplace or not 0 < level < _LEVELS or x.device.type != "cpu" or not x.is_floating_point():
        return NotImplemented
    return Dropout.apply(x, Drops(p))
