"""``stats``: every mel bin gets the target's mean and variance.

The oldest conversion there is, and a strong baseline: a verification that listens to the spectrum is
easily convinced by it, ears are not. The source's own statistics are those of the utterance, and of
``more`` recordings of its speaker where there are any.

Shape suffixes: T frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mynah.downstream.conversion.core.contract import Converter, Heard
from mynah.downstream.conversion.core.statistics import Gaussian, active_frames, audible


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing to set."""


class Stats(Converter):
    """Mean and variance of each bin, moved to the target's."""

    trained: ClassVar[bool] = False

    @property
    def code_dim(self) -> int:
        """Mel bins."""
        return self.sizes.spec.num_mels

    def encode_content(self, source: Heard) -> Tensor:
        """Return the spectrogram (T, M) with mean 0 and variance 1 over its own speech."""
        source, _ = audible(source, [], nepers=self.sizes.spec.nepers)
        return self._standard(source, [source])

    def encode_speaker(self, references: Sequence[Heard]) -> Gaussian:
        """Return mean and variance of each bin over the speech of some recordings.

        Raises:
            ValueError: no recording.
        """
        return Gaussian.of(active_frames(references)[1])

    def speaker_vector(self, voice: Gaussian) -> Tensor:
        """Return mean and deviation of each bin (2M,)."""
        return voice.vector()

    def decode(self, code_TC: Tensor, voice: Gaussian) -> Tensor:
        """Return the code with the voice's mean and deviation, from silence to its loudest."""
        mel_TM = code_TC.double() * voice.deviation_D + voice.mean_D
        return voice.within(mel_TM, least=self.sizes.spec.silence)

    @torch.no_grad()
    def convert(
        self, source: Heard, references: Sequence[Heard], *, more: Sequence[Heard] = ()
    ) -> Tensor:
        """Return the spectrogram (T, M) with the target's statistics; see the contract."""
        source, more = audible(source, more, nepers=self.sizes.spec.nepers)
        return self.decode(self._standard(source, [source, *more]), self.encode_speaker(references))

    def _standard(self, source: Heard, known_by: Sequence[Heard]) -> Tensor:
        own = self.encode_speaker(known_by)
        return ((source.mel_TM.double() - own.mean_D) / own.deviation_D).float()


CONVERTER = Stats
CONFIGS = {"stats": Config()}
