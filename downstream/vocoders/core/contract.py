"""What every vocoder promises: audio from a log-mel spectrogram.

Shape suffixes: T frames, M mel bins, S samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mynah.downstream.core.melspec import MelSpec


@dataclass(frozen=True, kw_only=True)
class Prosody:
    """The excitation of an utterance, at the frames of its spectrogram.

    Attributes:
        f0_T: Hz, 0 where nothing is voiced.
        aperiodicity_TF: share of noise in each frequency bin from 0 Hz to half the sampling rate, in
            [0, 1]; None where it is not known.
    """

    f0_T: Tensor
    aperiodicity_TF: Tensor | None = None


class Vocoder(ABC):
    """Base class of every vocoder; calls are deterministic.

    Attributes:
        needs_prosody: whether it cannot do without the excitation, which others read from the
            spectrogram.
        trained: whether it has weights: such a one is made of a checkpoint, others of a spec.
        spec: of the spectrograms that it takes.
    """

    needs_prosody: ClassVar[bool] = False
    trained: ClassVar[bool] = False
    spec: MelSpec

    @abstractmethod
    def __call__(self, mel_TM: Tensor, prosody: Prosody | None = None) -> Tensor:
        """Return audio (S,), float32 in [-1, 1] where the spectrogram's own was, T * hop samples.

        Raises:
            ValueError: another number of mel bins, or no prosody where it is needed.
        """

    @property
    @abstractmethod
    def identity(self) -> str:
        """Name, and the hash of the weights where there are any, for records."""
