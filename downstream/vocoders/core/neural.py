"""Vocoders that are networks: a generator, what may be done to its weights, and the vocoder of one.

Shape suffixes: B batch, T frames, M mel bins, S samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from mynah.downstream.core.melspec import MelSpec
from mynah.downstream.vocoders.core.contract import Prosody, Vocoder


class Generator(nn.Module, ABC):
    """Base class of networks from log-mel spectrograms to waveforms.

    Args:
        config: the network's own frozen dataclass.
        spec: of the spectrograms.
    """

    def __init__(self, config: Any, spec: MelSpec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec

    @abstractmethod
    def forward(self, mel_BMT: Tensor) -> Tensor:
        """Return waveforms (B, T * hop) of log-mel spectrograms."""


class NeuralVocoder(Vocoder):
    """A generator with weights at work, on one utterance at a time.

    Args:
        generator: with its weights; it is put in eval mode and its weight norms are folded.
        digest: sha256 of the file that the weights are of.
    """

    trained = True
    name: ClassVar[str]

    def __init__(self, generator: Generator, *, digest: str) -> None:
        self.spec = generator.spec
        self.generator = fold(generator).eval().requires_grad_(False)
        self.digest = digest

    @property
    def identity(self) -> str:
        """Name, and twelve digits of the weights' sha256."""
        return f"{self.name}|sha256:{self.digest[:12]}|v1"

    @torch.no_grad()
    def __call__(self, mel_TM: Tensor, prosody: Prosody | None = None) -> Tensor:
        """Return audio (T * hop,), as loud as it comes but within [-1, 1].

        Raises:
            ValueError: another number of mel bins, or no frame.
        """
        if mel_TM.ndim != 2 or mel_TM.shape[1] != self.spec.num_mels or not len(mel_TM):
            raise ValueError(
                f"expected (T, {self.spec.num_mels}) with T >= 1, got shape {tuple(mel_TM.shape)}"
            )
        out_S: Tensor = self.generator(mel_TM.float().T[None])[0]
        return out_S.clamp(-1.0, 1.0)


def normed(layer: nn.Module) -> nn.Module:
    """Return a layer whose weight is a direction and a length (Salimans and Kingma 2016)."""
    found: nn.Module = parametrizations.weight_norm(layer)
    return found


def fold(module: Generator) -> Generator:
    """Turn directions and lengths into plain weights, in place; the outputs stay."""
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")
    return module
