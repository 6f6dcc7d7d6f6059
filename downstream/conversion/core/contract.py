"""What every voice converter promises: the same words in another voice, without parallel data.

A converter hears an utterance as :class:`Heard`: the frames that content is read from, which are a
log-mel spectrogram or the features of any frozen upstream, and the log-mel spectrogram, both at the
spectrogram's frames. It splits it into a *content code*, one vector per frame, and a *voice*, whatever
the method knows a speaker by; ``decode`` puts the two together again as a log-mel spectrogram, from
which a vocoder makes audio.

Converters that are trained return their objective from ``loss``; the training loop knows nothing of
the method, as with upstreams.

Shape suffixes: B batch, T frames, D width of the input, M mel bins, C width of the content code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mynah.downstream.core.melspec import MelSpec


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One utterance.

    Attributes:
        x_TD: what content is read from.
        mel_TM: its log-mel spectrogram, as the converter's spec says.
    """

    x_TD: Tensor
    mel_TM: Tensor


@dataclass(frozen=True, kw_only=True)
class ConversionBatch:
    """Utterances of a training step, padded on the right with anything.

    Attributes:
        x_BTD: what content is read from (of corrupted audio, where the converter learns to denoise).
        mel_BTM: log-mel spectrograms of the clean audio.
        lengths_B: int64 number of valid frames.
        speakers_B: int64 index of each utterance's speaker.
        generator: the CPU generator from which whatever is random is drawn.
    """

    x_BTD: Tensor
    mel_BTM: Tensor
    lengths_B: Tensor
    speakers_B: Tensor
    generator: torch.Generator


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A differentiable total and named scalars to log, a mean over ``weight`` items."""

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a converter must know of its surroundings.

    Attributes:
        dim: width D of the input frames.
        spec: of the spectrograms.
        speakers: number of training speakers (0 for methods without training).
    """

    dim: int
    spec: MelSpec
    speakers: int = 0


class Converter(nn.Module, ABC):
    """Base class of every method.

    Attributes:
        trained: whether the method has weights to learn.
        moves_pitch: whether the excitation is to be moved to the target's range too, where a
            vocoder takes it apart from the spectrogram.
        any_to_one: whether every conversion is in the one voice of the training data.
        floors: part of the objective -> the smallest value of a healthy run (collapse is said).

    Args:
        config: the method's own frozen dataclass.
        sizes: of its surroundings.
    """

    trained: ClassVar[bool]
    moves_pitch: ClassVar[bool] = True
    any_to_one: ClassVar[bool] = False
    floors: Mapping[str, float] = MappingProxyType({})

    def __init__(self, config: Any, sizes: Sizes) -> None:
        super().__init__()
        self.config = config
        self.sizes = sizes

    @property
    def code_dim(self) -> int:
        """Width C of the content code."""
        raise NotImplementedError

    @abstractmethod
    def encode_content(self, source: Heard) -> Tensor:
        """Return the content code (T, C) of an utterance."""

    @abstractmethod
    def encode_speaker(self, references: Sequence[Heard]) -> Any:
        """Return the voice of a speaker, of whom there are one or more recordings.

        Raises:
            ValueError: no recording, or too little of it.
        """

    @abstractmethod
    def speaker_vector(self, voice: Any) -> Tensor:
        """Return a voice as one vector, for probes and files."""

    @abstractmethod
    def decode(self, code_TC: Tensor, voice: Any) -> Tensor:
        """Return the log-mel spectrogram (T, M) of a content code in a voice."""

    @torch.no_grad()
    def convert(
        self, source: Heard, references: Sequence[Heard], *, more: Sequence[Heard] = ()
    ) -> Tensor:
        """Return the log-mel spectrogram (T, M) of an utterance in the voice of others.

        Args:
            source: what is converted.
            references: recordings of the target speaker.
            more: further recordings of the source speaker, for methods that measure that speaker.
        """
        return self.decode(self.encode_content(source), self.encode_speaker(references))

    def loss(self, batch: ConversionBatch) -> Objective:
        """Return the training objective of a batch.

        Raises:
            TypeError: this method is not trained.
        """
        raise TypeError(f"{type(self).__name__} has nothing to train: convert with it as it is")

    def after_step(self, step: int, total_steps: int) -> None:
        """Update what the method keeps beside the gradient (turns, ramps); default: nothing.

        Args:
            step: number of optimiser steps done, from 1.
            total_steps: planned number of optimiser steps.
        """
