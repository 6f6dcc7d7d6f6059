"""Where the features that are clustered come from: MFCC, or a hidden state of an upstream.

A source yields one feature vector per frame of the model that is to be trained, whatever its own
frame rate: frame t of the model takes the source's frame that starts next to it.

Shape suffixes: S samples, T frames of the model, N frames of several utterances, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.mel import STRIDE
from mynah.upstream.core.mfcc import DIM, Mfcc
from mynah.upstream.core.ragged import starting_next


class Source(ABC):
    """Frames to cluster.

    Attributes:
        dim: width D.
        stride: samples between its own frames.
        sample_rate: Hz of the audio that it takes.
        name: what people call it.
    """

    name: str
    dim: int
    stride: int
    sample_rate: int

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what the features depend on, ready for JSON."""

    @abstractmethod
    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Return each utterance's own frames (T', D), float32 on the CPU."""

    def aligned(self, wavs: Sequence[Tensor], model: Upstream) -> list[Tensor]:
        """Return one vector per frame of ``model``, (T, D) for each utterance.

        Args:
            wavs: 1-D waveforms.
            model: whose frames are counted.
        """
        found = self.features(wavs)
        counts = [model.num_frames(len(wav)) for wav in wavs]
        places = starting_next(
            counts, [len(x_TD) for x_TD in found], stride=model.stride, other=self.stride
        )
        return [x_TD[place_T] for x_TD, place_T in zip(found, places, strict=True)]


class MfccSource(Source):
    """39 MFCC per 10 ms: the targets of a first iteration."""

    name = "mfcc"
    dim = DIM
    stride = STRIDE
    sample_rate = 16000

    def __init__(self) -> None:
        self.mfcc = Mfcc()

    def identity(self) -> dict[str, Any]:
        """Return the name of the features."""
        return {"features": "mfcc"}

    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Return MFCC with deltas."""
        x_ND, counts = self.mfcc(wavs)
        return list(x_ND.split(counts))


class StateSource(Source):
    """One hidden state of a frozen upstream.

    Args:
        upstream: frozen.
        layer: which state; negative ones from the last.
        of: what people call the upstream; by default what it was loaded from.

    Raises:
        ValueError: the upstream has no such state.
    """

    def __init__(self, upstream: Upstream, layer: int, *, of: str | None = None) -> None:
        states = upstream.num_layers
        self.layer = layer + states if layer < 0 else layer
        if not 0 <= self.layer < states:
            raise ValueError(
                f"labels.layer must be between {-states} and {states - 1} for {upstream.name}, "
                f"which has {states} hidden states, got {layer}"
            )
        self.upstream = upstream
        self.name = f"{of or upstream.source or upstream.name}, layer {self.layer}"
        self.dim, self.stride = upstream.dim, upstream.stride
        self.sample_rate = upstream.sample_rate

    def identity(self) -> dict[str, Any]:
        """Return the upstream's fingerprint and the state."""
        return {"features": self.upstream.fingerprint(), "layer": self.layer}

    @torch.no_grad()
    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Return the hidden state of each utterance; later layers are not computed."""
        device = self.upstream.device
        placed = [wav.to(device) for wav in wavs]
        states = self.upstream.hidden_states(placed)
        x_ND = next(islice(states, self.layer, None)).float().cpu()
        return list(x_ND.split([self.upstream.num_frames(len(wav)) for wav in wavs]))
