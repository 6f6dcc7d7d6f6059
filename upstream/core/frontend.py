"""From waveforms to the frames of a Transformer: a convolution stack or log-mel filterbanks.

Both yield raw features, which a layer norm and a linear projection turn into the encoder's input;
objectives look at the raw features (wav2vec 2.0's penalty), the normed ones (its quantiser) or the
projected ones.

Shape suffixes: B batch, S samples, T frames, N frames of a ragged batch, C raw width, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core import mel
from mynah.upstream.core.conv import ConvExtractor, Norm, PackedConv
from mynah.upstream.core.packed_linear import PackedLinear
from mynah.upstream.core.ragged import pieces

_ROWS = 2048  # frames projected at once


class Frontend(nn.Module, ABC):
    """Raw features, a layer norm and a projection.

    Attributes:
        stride: samples between frames.
        norm: layer norm over the raw features, or nothing.
        proj: linear, raw width C to width D.
    """

    stride: int
    norm: nn.Module

    def __init__(self, channels: int, dim: int, *, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=norm_eps)
        self.proj = nn.Linear(channels, dim)

    @abstractmethod
    def num_frames(self, n_samples: int) -> int:
        """Return the exact number of frames of ``n_samples`` >= 1."""

    @abstractmethod
    def raw(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return raw features (B, T, C), zero-padded, and each utterance's frames; differentiable."""

    @abstractmethod
    def packed_raw(self, dtype: torch.dtype) -> PackedRaw:
        """Return the fast form with fixed weights of :meth:`raw` for one utterance."""


class PackedRaw(ABC):
    """Raw features of one utterance with fixed weights; no gradients."""

    @abstractmethod
    def __call__(self, wav_S: Tensor) -> Tensor:
        """Return (T, C)."""


class WaveFrontend(Frontend):
    """The convolution stack, with the waveform normalised first or not.

    Args:
        dim: width D.
        channels: width C of the stack.
        kernels: its taps.
        strides: its strides.
        bias: whether its convolutions have a bias.
        norm: ``group`` or ``layer``.
        normalize: subtract an utterance's mean and divide by sqrt(variance + eps), on its true
            samples, as fairseq's large models expect.
        normalize_eps: this eps.
        norm_eps: epsilon of the layer norm before the projection.
    """

    def __init__(
        self,
        dim: int,
        *,
        channels: int,
        kernels: Sequence[int],
        strides: Sequence[int],
        bias: bool,
        norm: Norm,
        normalize: bool,
        normalize_eps: float = 1e-5,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(channels, dim, norm_eps=norm_eps)
        self.conv = ConvExtractor(channels, kernels, strides, bias=bias, norm=norm)
        self.stride = self.conv.hop
        self.normalize = normalize
        self.normalize_eps = normalize_eps

    def num_frames(self, n_samples: int) -> int:
        """Return the stack's exact output length; fewer samples than one frame count as one."""
        return self.conv.num_frames(n_samples)

    def raw(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return raw features (B, T, C); utterances of equal length run as one batch."""
        counts = [self.num_frames(len(wav)) for wav in wavs]
        groups: dict[int, list[int]] = {}
        for index, wav in enumerate(wavs):
            groups.setdefault(len(wav), []).append(index)
        rows: list[Tensor | None] = [None] * len(wavs)
        for members in groups.values():
            x_RTC = self.conv(torch.stack([self.prepare(wavs[i]) for i in members]))
            if len(groups) == 1:
                return x_RTC, counts
            for index, x_TC in zip(members, x_RTC, strict=True):
                rows[index] = F.pad(x_TC, (0, 0, 0, max(counts) - len(x_TC)))
        return torch.stack([row for row in rows if row is not None]), counts

    def packed_raw(self, dtype: torch.dtype) -> PackedRaw:
        """Return the stack as matrix products over one utterance."""
        return _PackedWave(self, dtype)

    def prepare(self, wav_S: Tensor) -> Tensor:
        """Return the waveform as the stack expects it, as long as it was."""
        weight = self.proj.weight
        wav_S = wav_S.to(device=weight.device, dtype=weight.dtype)
        if self.normalize:
            return F.layer_norm(wav_S, wav_S.shape, eps=self.normalize_eps)
        return wav_S


class _PackedWave(PackedRaw):
    def __init__(self, front: WaveFrontend, dtype: torch.dtype) -> None:
        self.front = front
        self.conv = PackedConv(front.conv, dtype=dtype)

    def __call__(self, wav_S: Tensor) -> Tensor:
        return self.conv(self.front.prepare(wav_S))


class MelFrontend(Frontend):
    """Stacked Kaldi log-mel frames, normalised per utterance and mel bin; nothing to train.

    Args:
        dim: width D.
        num_mels: filters.
        stack: consecutive 10 ms frames joined into one.
    """

    def __init__(self, dim: int, *, num_mels: int, stack: int) -> None:
        super().__init__(num_mels * stack, dim)
        self.fbank = mel.KaldiFbank(num_mels=num_mels, window="hamming")
        self.stack = stack
        self.stride = mel.STRIDE * stack

    def num_frames(self, n_samples: int) -> int:
        """Return ceil(filterbank frames / stack)."""
        return mel.stacked(self.fbank.num_frames(n_samples), self.stack)

    def ragged(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return features (N, C) laid end to end and each utterance's frames."""
        x_NM, counts = self.fbank(wavs)
        return mel.normalised(x_NM, counts, factor=self.stack)

    def raw(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return features (B, T, C), zero-padded."""
        x_NC, counts = self.ragged(wavs)
        return nn.utils.rnn.pad_sequence(x_NC.split(counts), batch_first=True), counts

    def packed_raw(self, dtype: torch.dtype) -> PackedRaw:
        """Return the same for one utterance; there are no weights to pack."""
        return _PackedMel(self)


class _PackedMel(PackedRaw):
    def __init__(self, front: MelFrontend) -> None:
        self.front = front

    def __call__(self, wav_S: Tensor) -> Tensor:
        return self.front.ragged([wav_S])[0]


class PackedFrontend:
    """A front-end with fixed weights over a ragged batch; no gradients."""

    def __init__(self, front: Frontend, *, dtype: torch.dtype) -> None:
        self.raw = front.packed_raw(dtype)
        self.norm = front.norm
        self.dtype = dtype
        self.proj = PackedLinear(front.proj.weight, front.proj.bias, dtype=dtype)

    @torch.no_grad()
    def __call__(self, wavs: Sequence[Tensor]) -> Tensor:
        """Return projected frames, float32 (N, D)."""
        parts = []
        for wav_S in wavs:
            raw_TC = self.raw(wav_S)
            for start, stop in pieces(len(raw_TC), size=_ROWS):
                normed_TC = self.norm(raw_TC[start:stop].float())
                parts.append(self.proj(normed_TC.to(self.dtype)).float())
        return torch.cat(parts)
