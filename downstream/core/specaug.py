"""SpecAug on features: a time warp, frequency masks and time masks, for training only.

What ASR, OOD-ASR and SF of SUPERB do to the weighted sum of an upstream's layers (protocol, section
1.2; sizes as in s3prl's configs): the warp moves one frame of an utterance by up to 5 and stretches
the two sides by cubic interpolation; 4 bands of U{0..49} features and 2 spans of U{0..39} frames
become zero. SF makes the time masks *adaptive* (Park et al. 2020): their number and their widest
size are 4 % of the frames. After Park et al. 2019, arXiv 1904.08779.

Two things differ from s3prl, which lets the rest of a batch decide: masks lie inside an utterance's
own frames (there: anywhere in the padded length), and may start wherever they themselves fit
(there: where the batch's widest mask fits).

Draws are torch's global generator's on the CPU, wherever the features are.

Shape suffixes: B batch, T frames, D width, M masks, N = B * T.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CUBIC = -0.75  # the cubic convolution kernel of torch's (and OpenCV's) bicubic interpolation


@dataclass(frozen=True, kw_only=True)
class SpecAug:
    """How features are disturbed; call it as ``specaug(features_BTD, lengths_B)``.

    Args:
        window: farthest that the time warp moves a frame; utterances of up to twice as many frames
            are not warped, 0 warps none.
        frequency_masks: number of frequency masks.
        frequency_width: widest frequency mask, in features.
        time_masks: number of time masks.
        time_width: widest time mask, in frames.
        adaptive: with a share above 0, an utterance of n frames has ``int(share * n)`` time masks
            (at most ``adaptive_masks``) of fewer than ``int(share * n)`` frames each.
        adaptive_masks: most time masks of an adaptive kind.

    Raises:
        ValueError: a size below 0, or a share outside [0, 1].
    """

    window: int = 5
    frequency_masks: int = 4
    frequency_width: int = 49
    time_masks: int = 2
    time_width: int = 39
    adaptive: float = 0.0
    adaptive_masks: int = 20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"{name} of SpecAug must not be below 0, got {value}")
        if self.adaptive > 1:
            raise ValueError(f"adaptive is a share of the frames, at most 1, got {self.adaptive}")

    def __call__(self, features_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return disturbed copies of the features.

        Args:
            features_BTD: padded frames; what padding becomes means nothing.
            lengths_B: valid frames of each item, at least 1.
        """
        lengths_B = lengths_B.cpu()
        out_BTD = self.warp(features_BTD, lengths_B) if self.window else features_BTD
        bands_BD = self.frequency_mask(len(lengths_B), features_BTD.shape[2])
        spans_BT = self.time_mask(lengths_B, features_BTD.shape[1])
        device = features_BTD.device
        out_BTD = out_BTD.masked_fill(bands_BD.to(device)[:, None, :], 0.0)
        return out_BTD.masked_fill(spans_BT.to(device)[:, :, None], 0.0)

    # -- time warp --------------------------------------------------------------------------

    def warp(self, features_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return the features with each utterance's frame ``center`` moved to ``moved``.

        ``center`` is uniform over the frames farther than the window from both ends (the end
        itself excluded), ``moved`` over (center - window, center + window].
        """
        window, room_B = self.window, (lengths_B - 2 * self.window).clamp_min(0)
        center_B = window + _below(room_B)
        moved_B = center_B - window + 1 + _below(torch.full_like(room_B, 2 * window))
        center_B = torch.where(room_B > 0, center_B, lengths_B)  # no warp: one side, not stretched
        moved_B = torch.where(room_B > 0, moved_B, lengths_B)
        return warped(features_BTD, lengths_B, center_B, moved_B)

    # -- masks ------------------------------------------------------------------------------

    def frequency_mask(self, batch: int, dim: int) -> Tensor:
        """Return where each item's features become zero, (B, D)."""
        limits_B = torch.full((batch,), dim)
        widest_BM = torch.full((batch, self.frequency_masks), self.frequency_width)
        return _spans(widest_BM, limits_B, dim)

    def time_mask(self, lengths_B: Tensor, frames: int) -> Tensor:
        """Return where each item's frames become zero, (B, T); never after its length."""
        if not self.adaptive:
            widest_BM = torch.full((len(lengths_B), self.time_masks), self.time_width)
            return _spans(widest_BM, lengths_B, frames)
        share_B = (lengths_B.double() * self.adaptive).long()
        masks_1M = torch.arange(self.adaptive_masks)[None]
        widest_B1 = (share_B - 1).clamp(0, self.time_width)[:, None]
        widest_BM = torch.where(masks_1M < share_B[:, None], widest_B1, 0)
        return _spans(widest_BM, lengths_B, frames)


def _below(limits: Tensor) -> Tensor:
    """Draw integers, each uniform over {0..limit - 1} (0 for a limit of 0)."""
    draws = (torch.rand(limits.shape, dtype=torch.float64) * limits).long()
    return draws.minimum((limits - 1).clamp_min(0))


def _spans(widest_BM: Tensor, limits_B: Tensor, size: int) -> Tensor:
    """Return the union of M random spans of each row, (B, size).

    A width is uniform over {0..widest} and cut to the row's limit; a start is uniform over all
    places at which the span ends within the limit.
    """
    widths_BM = _below(widest_BM + 1).minimum(limits_B[:, None])
    starts_BM = _below(limits_B[:, None] - widths_BM + 1)
    at_11S = torch.arange(size)[None, None]
    inside_BMS = (at_11S >= starts_BM[:, :, None]) & (at_11S < (starts_BM + widths_BM)[:, :, None])
    return inside_BMS.any(dim=1)


def warped(features_BTD: Tensor, lengths_B: Tensor, center_B: Tensor, moved_B: Tensor) -> Tensor:
    """Return each utterance with its first ``center`` frames stretched to ``moved`` frames.

    The frames after them are stretched to fill the rest of the utterance. Both sides by cubic
    convolution over time, exactly as ``F.interpolate(mode="bicubic", align_corners=False)`` does on
    each side alone.

    Args:
        features_BTD: padded frames.
        lengths_B: valid frames of each item, on the CPU, as are the next two.
        center_B: frames on the left side, 1 to length.
        moved_B: frames that they become, 1 to length, and length only where center is length.
    """
    batch, frames, dim = features_BTD.shape
    n_B1, center_B1, moved_B1 = lengths_B[:, None], center_B[:, None], moved_B[:, None]
    time_1T = torch.arange(frames)[None]
    left_BT = time_1T < moved_B1
    first_BT = torch.where(left_BT, 0, center_B1)
    last_BT = torch.where(left_BT, center_B1, n_B1) - 1
    into_BT = torch.where(left_BT, time_1T, time_1T - moved_B1).double()
    old_BT = torch.where(left_BT, center_B1, n_B1 - center_B1).double()
    new_BT = torch.where(left_BT, moved_B1, n_B1 - moved_B1).clamp_min(1).double()
    place_BT = first_BT + (into_BT + 0.5) * old_BT / new_BT - 0.5
    base_BT = place_BT.floor()
    part_BT = place_BT - base_BT
    valid_BT = time_1T < n_B1
    rows_B1 = torch.arange(batch)[:, None] * frames
    flat_ND = features_BTD.reshape(-1, dim)
    out_ND = torch.zeros_like(flat_ND)
    for tap in (-1, 0, 1, 2):
        weight_BT = torch.where(valid_BT, _cubic((part_BT - tap).abs()), float(tap == 0))
        source_BT = (base_BT.long() + tap).clamp(first_BT, last_BT)
        source_BT = rows_B1 + torch.where(valid_BT, source_BT, time_1T)
        weight_N1 = weight_BT.to(flat_ND.dtype).to(flat_ND.device).reshape(-1, 1)
        index_N = source_BT.flatten().to(flat_ND.device)
        out_ND = out_ND + weight_N1 * flat_ND.index_select(0, index_N)
    return out_ND.view(batch, frames, dim)


def _cubic(distance: Tensor) -> Tensor:
    """Return the weights of Keys' cubic convolution kernel at distances of 0 to 2."""
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
    far = CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, near, far)
