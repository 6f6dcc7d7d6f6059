"""Statistics of frames: which of them are speech, their mean, spread and covariance.

Shape suffixes: T frames, M mel bins, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mynah.downstream.conversion.core.contract import Heard

RANGE = 4.6
"""Frames whose mean log energy is so far below the loudest are silence (natural log, 40 dB)."""


EMPTY = 0.3
"""Bins whose log energy has a smaller robust deviation over speech, and lies ``BELOW`` under the
loudest bin's, hold no signal (natural log; speech varies by 1 to 2)."""

BELOW = 6.0
"""Natural log, 52 dB."""


def active(mel_TM: Tensor) -> Tensor:
    """Return which frames (T,) are not silence: within 40 dB of the loudest, at least one is."""
    loudness_T = mel_TM.mean(1)
    return loudness_T >= loudness_T.max() - RANGE


def active_frames(heard: Sequence[Heard]) -> tuple[Tensor, Tensor]:
    """Return input frames (T, D) and spectrogram frames (T, M) of the speech in some recordings.

    Raises:
        ValueError: no recording.
    """
    if not heard:
        raise ValueError("a speaker is known by recordings: give at least one")
    kept = [active(one.mel_TM) for one in heard]
    xs = torch.cat([one.x_TD[keep] for one, keep in zip(heard, kept, strict=True)])
    mels = torch.cat([one.mel_TM[keep] for one, keep in zip(heard, kept, strict=True)])
    return xs, mels


def empty_bins(mel_TM: Tensor, *, nepers: float) -> Tensor:
    """Return which bins (M,) hold no signal: those above the band of a telephone's recording.

    Args:
        mel_TM: spectrogram.
        nepers: by which its values become natural logs.
    """
    speech_TM = (mel_TM[active(mel_TM)] * nepers).double()
    low_M, middle_M, high_M = torch.quantile(
        speech_TM, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), dim=0
    )
    still_M = (high_M - low_M) / 1.349 < EMPTY
    return torch.logical_and(still_M, middle_M < middle_M.max() - BELOW)


def filled(mel_TM: Tensor, empty_M: Tensor) -> Tensor:
    """Return a spectrogram (T, M) whose empty bins follow the loudness of the others.

    A map that gives every bin the target's deviation would blow what is left in empty ones up to
    its loudest sound; nor would they be silent where nothing is said.
    """
    if not empty_M.any() or empty_M.all():
        return mel_TM
    speech_TM = mel_TM[active(mel_TM)]
    mean_M, deviation_M = speech_TM.mean(0), speech_TM.std(0).clamp(min=1e-3)
    loudness_T = ((mel_TM - mean_M) / deviation_M)[:, ~empty_M].mean(1)
    out_TM = mel_TM.clone()
    out_TM[:, empty_M] = mean_M[empty_M] + loudness_T[:, None]
    return out_TM


def audible(source: Heard, more: Sequence[Heard], *, nepers: float) -> tuple[Heard, list[Heard]]:
    """Return recordings of one speaker, bins that are empty in the first one filled in all."""
    empty_M = empty_bins(source.mel_TM, nepers=nepers)
    first, *rest = (replace(one, mel_TM=filled(one.mel_TM, empty_M)) for one in (source, *more))
    return first, rest


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Mean, deviation and covariance of frames.

    Attributes:
        mean_D: float64.
        deviation_D: at least 1e-3.
        loudest_D: the greatest value of each.
        covariance_DD: regularised: ``shrink`` of it is its diagonal, so that few frames will do.
    """

    mean_D: Tensor
    deviation_D: Tensor
    loudest_D: Tensor
    covariance_DD: Tensor

    @classmethod
    def of(cls, frames_TD: Tensor, *, shrink: float = 0.1) -> Gaussian:
        """Measure frames.

        Raises:
            ValueError: no frame.
        """
        if not len(frames_TD):
            raise ValueError("there are no frames to measure")
        frames_TD = frames_TD.double()
        mean_D = frames_TD.mean(0)
        centred_TD = frames_TD - mean_D
        covariance_DD = centred_TD.T @ centred_TD / len(frames_TD)
        variance_D = covariance_DD.diagonal().clamp(min=1e-6)
        covariance_DD = (1 - shrink) * covariance_DD + shrink * torch.diag(variance_D)
        return cls(
            mean_D=mean_D,
            deviation_D=variance_D.sqrt().clamp(min=1e-3),
            loudest_D=frames_TD.amax(0),
            covariance_DD=covariance_DD,
        )

    def within(self, frames_TD: Tensor, *, least: float) -> Tensor:
        """Return frames (T, D), float32, not below ``least`` and hardly above the loudest measured."""
        return torch.minimum(frames_TD, self.loudest_D + self.deviation_D).float().clamp(min=least)

    def vector(self) -> Tensor:
        """Return mean and deviation (2D,), float32."""
        return torch.cat([self.mean_D, self.deviation_D]).float()
