"""Padded batches of frames: what a head may be given, and how padding is kept out of it.

Shape suffixes: B batch, T frames, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mynah.downstream.core.pooling import valid_frames


class ItemError(ValueError):
    """One item's frames are not what a head can work on, whatever the other items are."""


def frame_lengths(features_BTD: Tensor, lengths_B: Tensor | None, *, minimum: int = 1) -> Tensor:
    """Return the valid frames of each item, checked, on the features' device.

    Args:
        features_BTD: padded frames.
        lengths_B: valid frames of each item, integers; None where all frames are valid.
        minimum: fewest frames that the head can work on.

    Raises:
        ItemError: an item with fewer than ``minimum`` frames.
        ValueError: features that are not frames, or lengths that do not fit them.
    """
    if features_BTD.ndim != 3 or 0 in features_BTD.shape:
        raise ValueError(f"expected frames (B, T, D), got shape {tuple(features_BTD.shape)}")
    batch, frames, _ = features_BTD.shape
    if lengths_B is None:
        lengths_B = torch.full((batch,), frames, device=features_BTD.device)
    if lengths_B.shape != (batch,) or lengths_B.is_floating_point():
        raise ValueError(
            f"expected {batch} lengths as integers, "
            f"got {lengths_B.dtype} of shape {tuple(lengths_B.shape)}"
        )
    shortest, longest = (int(n) for n in torch.stack([lengths_B.min(), lengths_B.max()]).tolist())
    if shortest < minimum:
        raise ItemError(
            f"this head needs at least {minimum} frame{'s' * (minimum > 1)} of each item, "
            f"got one with {shortest}: leave such short items out (the head's minimum_frames)"
        )
    if longest > frames:
        raise ValueError(f"an item is said to have {longest} frames, the features hold {frames}")
    return lengths_B.to(features_BTD.device)


def without_padding(x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
    """Return the frames with zeros after each item's length, whatever was there (NaN too)."""
    padding_BT = ~valid_frames(lengths_B, x_BTD.shape[1])
    return x_BTD.masked_fill(padding_BT[:, :, None], 0.0)
