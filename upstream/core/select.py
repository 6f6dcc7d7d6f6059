"""Picking frames by a mask, and sending what the CPU knows, without waiting for a GPU.

A tensor made of numbers on a GPU makes the CPU wait until all that was queued before is done. Indexing with a mask that lies on a GPU makes the CPU wait until it is known how many frames there
are. Masks are drawn on the CPU, where that is known at once.

Shape suffixes: B batch, T frames, D width, M picked frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sent(x: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor on a device; to a GPU it is copied while the CPU goes on."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def counted(counts: Sequence[int], device: torch.device) -> Tensor:
    """Return numbers of frames, int64, on a device."""
    return sent(torch.tensor(list(counts)), device)


def picked(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the frames (M, D) where a mask is true, in order; differentiable.

    Args:
        x_BTD: frames, on any device.
        mask_BT: on the CPU, so that nothing waits (or with the frames, where that does not matter).
    """
    rows_M = mask_BT.flatten().nonzero().squeeze(1)
    return x_BTD.flatten(0, 1).index_select(0, sent(rows_M, x_BTD.device))
