"""What every plain form of an upstream is, and the front-end that most of them share.

Shape suffixes: S samples, T frames, L layers, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mynah.recipes.exporting import signal
from mynah.upstream.core import mel


class Plain(nn.Module, ABC):
    """The hidden states (L, T, D) of one waveform (1, S).

    Attributes:
        shortest: fewest samples that it takes.
        two: fewest samples of which every state has two frames.
        longest: most samples that a symbolic recording takes, None for any number; a traced one
            takes any number.
    """

    shortest: int
    two: int
    longest: int | None = None

    @abstractmethod
    def forward(self, wav_1S: Tensor) -> Tensor:
        """Return the states (L, T, D), float32."""


class MelFrames(nn.Module):
    """Normalised log-mel filterbanks, joined in stacks: what most small models hear."""

    shortest = mel.WIDTH

    def __init__(self, fbank: mel.KaldiFbank, factor: int) -> None:
        super().__init__()
        self.fbank = signal.Fbank(fbank)
        self.factor = factor

    def forward(self, wav_S: Tensor) -> Tensor:
        """Return the frames (T, D)."""
        return signal.stack(signal.cmvn(self.fbank(wav_S)), self.factor)
