"""Picking frames by a mask without waiting for a GPU.

Indexing with a mask that lies on a GPU makes the CPU wait until it is known how many frames there
are. Masks are drawn on the CPU, where that is known at once.

Shape suffixes: B batch, T frames, D width, M picked frames.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sent(x: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor on a device; to a GPU it is copied while the CPU goes on."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def picked(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the frames (M, D) where a mask is true, in order; differentiable.

    Args:
        x_BTD: frames, on any device.
        mask_BT: on the CPU, so that nothing waits (or with the frames, where that does not matter).
    """
    rows_M = mask_BT.flatten().nonzero().squeeze(1)
    return x_BTD.flatten(0, 1).index_select(0, sent(rows_M, x_BTD.device))
