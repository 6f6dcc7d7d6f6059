"""Statistics of frames: which of them are speech, their mean, spread and covariance.

Shape suffixes: T frames, M mel bins, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mynah.downstream.conversion.core.contract import Heard

RANGE = 4.6
"""Frames whose mean log energy is so far below the loudest are silence (natural log, 40 dB)."""


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


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Mean, deviation and covariance of frames.

    Attributes:
        mean_D: float64.
        deviation_D: at least 1e-3.
        covariance_DD: regularised: ``shrink`` of it is its diagonal, so that few frames will do.
    """

    mean_D: Tensor
    deviation_D: Tensor
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
            covariance_DD=covariance_DD,
        )

    def vector(self) -> Tensor:
        """Return mean and deviation (2D,), float32."""
        return torch.cat([self.mean_D, self.deviation_D]).float()
