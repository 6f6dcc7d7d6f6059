"""``copy``: no conversion. What comes out is what the vocoder makes of the source itself.

The control of every comparison: it keeps all words and none of the target's voice.

Shape suffixes: T frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mynah.downstream.conversion.core.contract import Converter, Heard
from mynah.downstream.conversion.core.statistics import Gaussian, active_frames


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing to set."""


class Copy(Converter):
    """The identity."""

    trained: ClassVar[bool] = False
    moves_pitch: ClassVar[bool] = False

    @property
    def code_dim(self) -> int:
        """Mel bins."""
        return self.sizes.spec.num_mels

    def encode_content(self, source: Heard) -> Tensor:
        """Return the spectrogram (T, M) itself."""
        return source.mel_TM

    def encode_speaker(self, references: Sequence[Heard]) -> Gaussian:
        """Return statistics of the speaker's spectrograms, which ``decode`` does not use.

        Raises:
            ValueError: no recording.
        """
        return Gaussian.of(active_frames(references)[1])

    def speaker_vector(self, voice: Gaussian) -> Tensor:
        """Return mean and deviation of each bin (2M,)."""
        return voice.vector()

    def decode(self, code_TC: Tensor, voice: Gaussian) -> Tensor:
        """Return the code as it is."""
        return code_TC


CONVERTER = Copy
CONFIGS = {"copy": Config()}
