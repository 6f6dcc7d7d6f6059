"""Waveforms with nasty lengths, and how to compare what an upstream makes of them.

Shape suffixes: B batch, S samples, T frames, D width, L layers, X anything flattened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mynah.upstream.core.contract import Features, Upstream


class Signals:
    """Waveforms with nasty lengths, and what the upstream makes of each alone.

    Attributes:
        one_frame: the most samples that yield a single frame, plus one: from here on there are
            two.
        lengths: samples of each waveform.
        wavs: noise with a slow envelope and a tone, one per length.
    """

    def __init__(self, upstream: Upstream, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.device = upstream.device
        rate = upstream.sample_rate
        self.two_frames = next(
            (n for n in range(1, 4 * rate) if upstream.num_frames(n) >= 2), upstream.stride
        )
        one, stride = self.two_frames - upstream.stride, upstream.stride
        edges = [1, 2, one - 1, one, one + 1, stride - 1, stride, stride + 1]
        edges += [self.two_frames - 1, self.two_frames, self.two_frames + 1]
        seconds = [rate - 1, rate, rate + 1, rate // 10, int(2.37 * rate), int(7.1 * rate)]
        self.lengths = sorted({n for n in [*edges, *seconds, 20 * rate] if n >= 1})
        self.wavs = [self.wav(n, rate) for n in self.lengths]
        self._alone: list[Features] = []

    def wav(self, n: int, rate: int) -> Tensor:
        """Return n samples of noise and a tone under a 3 Hz envelope, peak below 1."""
        time = torch.arange(n) / rate
        envelope = 0.55 - 0.45 * torch.cos(2 * torch.pi * 3 * time + 1)
        noise = torch.randn(n, generator=self.generator).clamp(-3, 3)
        return (envelope * (0.05 * noise + 0.2 * torch.sin(2 * torch.pi * 220 * time))).to(
            self.device
        )

    def alone(self, upstream: Upstream) -> list[Features]:
        """Return the features of every waveform, each run alone (computed once)."""
        if not self._alone:
            self._alone = [together(upstream, [wav]) for wav in self.wavs]
        return self._alone


def together(upstream: Upstream, wavs: Sequence[Tensor], *, padding: float = 0.0) -> Features:
    """Return the features of waveforms batched with the given value as padding."""
    wav_BS = torch.full((len(wavs), max(map(len, wavs))), padding, device=wavs[0].device)
    for row, wav in zip(wav_BS, wavs, strict=True):
        row[: len(wav)] = wav
    features: Features = upstream(wav_BS, torch.tensor([len(wav) for wav in wavs]))
    return features


def rows(features: Features) -> Iterator[Tensor]:
    """Yield the states (L, T, D) of each utterance of a batch without its padding."""
    for row, n in enumerate(features.lengths_B.tolist()):
        yield features.layers_LBTD[:, row, :n]


def relative(x_LTD: Tensor, reference_LTD: Tensor) -> float:
    """Return the largest of the layers' ||x - reference|| / ||reference||.

    A NaN in both at the same place is no difference (whether there may be one is another
    question), in one of them it makes the result NaN.
    """
    if torch.equal(x_LTD.isnan(), reference_LTD.isnan()):
        x_LTD, reference_LTD = x_LTD.nan_to_num(), reference_LTD.nan_to_num()
    x_LX = x_LTD.double().flatten(1)
    reference_LX = reference_LTD.double().flatten(1)
    error_L = (x_LX - reference_LX).norm(dim=1)
    size_L = reference_LX.norm(dim=1)
    return float((error_L / size_L.clamp_min(1e-6)).max())


def same(x: Tensor, y: Tensor) -> bool:
    """Return whether two tensors are equal, a NaN being equal to a NaN."""
    return torch.equal(x.isnan(), y.isnan()) and torch.equal(x.nan_to_num(), y.nan_to_num())
