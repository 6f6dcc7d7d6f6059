"""Means over the valid frames of padded batches.

Shape suffixes: B batch, T frames, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def valid_frames(lengths_B: Tensor, frames: int) -> Tensor:
    """Return a boolean (B, T) mask that is true at frames before each row's length."""
    return torch.arange(frames, device=lengths_B.device)[None, :] < lengths_B[:, None]


def mean_over_time(x_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
    """Return the mean over valid frames, (B, D); what padding holds does not matter.

    Args:
        x_BTD: padded frames.
        lengths_B: valid frames of each row, all at least 1; None where all are valid.
    """
    if lengths_B is None:
        return x_BTD.mean(dim=1)
    mask_BT1 = valid_frames(lengths_B, x_BTD.shape[1])[:, :, None]
    kept_BTD = torch.where(mask_BT1, x_BTD, torch.zeros((), dtype=x_BTD.dtype, device=x_BTD.device))
    return kept_BTD.sum(dim=1) / lengths_B[:, None].to(x_BTD.dtype)
