"""``knn``: every frame becomes the mean of the target's frames that are most like it.

kNN-VC (Baas, van Niekerk and Kamper 2023, arXiv:2305.18975): likeness is the cosine of frozen features,
in which the same sound of two speakers should be closer than two sounds of one. Nothing is trained, so
it shows what the features keep: with a phonetic upstream words survive, with spectra they do not.
Features are matched, spectrograms are averaged: the paper's vocoder takes features, ours spectrograms.

Shape suffixes: T frames, N frames of the pool, D width, M mel bins, K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mynah.downstream.conversion.core.contract import Converter, Heard
from mynah.downstream.conversion.core.statistics import Gaussian, active, active_frames

_CHUNK = 1 << 24  # similarities at once


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        neighbours: K frames that are averaged; fewer are crisper and jump more.
        normalise: subtract each speaker's mean feature and divide by the deviation before matching.
        context: frames on each side that are matched too.
        pool_seconds: speech of the target that is searched, at most; of more, frames that are evenly
            spread. The paper's authors hear no gain beyond five minutes.
    """

    neighbours: int = 4
    normalise: bool = True
    context: int = 0
    pool_seconds: float = 300.0

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.context < 0 or not self.pool_seconds >= 1:
            raise ValueError(
                "neighbours must be 1 or more, context 0 or more and pool_seconds 1 or more, got "
                f"{self.neighbours}, {self.context} and {self.pool_seconds}"
            )


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The frames by which a speaker is known.

    Attributes:
        keys_ND: features, of length 1.
        mel_NM: the spectrogram frames at the same times.
        gaussian: of the features, for probes.
    """

    keys_ND: Tensor
    mel_NM: Tensor
    gaussian: Gaussian


class KNN(Converter):
    """Frames replaced by the target's nearest ones."""

    trained: ClassVar[bool] = False
    config: Config

    @property
    def code_dim(self) -> int:
        """Width of the features, with their context."""
        return self.sizes.dim * (2 * self.config.context + 1)

    def encode_content(self, source: Heard) -> Tensor:
        """Return the features (T, C) that are matched, of length 1."""
        return self._keys(source, self._own([source]))

    def encode_speaker(self, references: Sequence[Heard]) -> Pool:
        """Return the speech frames of some recordings, without their silence.

        Raises:
            ValueError: no recording.
        """
        own = self._own(references)
        kept = [active(one.mel_TM) for one in references]
        keys = [self._keys(one, own)[keep] for one, keep in zip(references, kept, strict=True)]
        mels = [one.mel_TM[keep] for one, keep in zip(references, kept, strict=True)]
        keys_ND, mel_NM = torch.cat(keys), torch.cat(mels)
        spec = self.sizes.spec
        most = int(self.config.pool_seconds * spec.sample_rate / spec.hop)
        if len(keys_ND) > most:
            spread = torch.arange(most, device=keys_ND.device) * len(keys_ND) // most
            keys_ND, mel_NM = keys_ND[spread], mel_NM[spread]
        return Pool(keys_ND=keys_ND, mel_NM=mel_NM, gaussian=own)

    def speaker_vector(self, voice: Pool) -> Tensor:
        """Return mean and deviation of the pool's features (2D,)."""
        return voice.gaussian.vector()

    def neighbours(self, code_TC: Tensor, voice: Pool) -> Tensor:
        """Return the pool's frames (T, K) that are nearest to each frame, the nearest first."""
        count = min(self.config.neighbours, len(voice.keys_ND))
        rows = max(1, _CHUNK // len(voice.keys_ND))
        found = [
            (part @ voice.keys_ND.T).topk(count, dim=1).indices for part in code_TC.split(rows)
        ]
        return torch.cat(found)

    def decode(self, code_TC: Tensor, voice: Pool) -> Tensor:
        """Return the mean spectrogram frame (T, M) of the nearest."""
        return voice.mel_NM[self.neighbours(code_TC, voice)].mean(1)

    @torch.no_grad()
    def convert(
        self, source: Heard, references: Sequence[Heard], *, more: Sequence[Heard] = ()
    ) -> Tensor:
        """Return the spectrogram (T, M) put together from the target's frames; see the contract."""
        code_TC = self._keys(source, self._own([source, *more]))
        return self.decode(code_TC, self.encode_speaker(references))

    def _own(self, heard: Sequence[Heard]) -> Gaussian:
        return Gaussian.of(active_frames(heard)[0])

    def _keys(self, heard: Heard, own: Gaussian) -> Tensor:
        x_TD = heard.x_TD.float()
        if self.config.normalise:
            x_TD = (x_TD - own.mean_D.float()) / own.deviation_D.float()
        width = self.config.context
        if width:
            padded = F.pad(x_TD.T[None], (width, width), mode="replicate")[0].T
            x_TD = padded.unfold(0, 2 * width + 1, 1).flatten(1)
        return F.normalize(x_TD, dim=1)


CONVERTER = KNN
CONFIGS = {"knn": Config()}
