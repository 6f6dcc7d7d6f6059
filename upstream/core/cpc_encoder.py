"""What encodes single frames in CPC: strided convolutions of the waveform, or layers on log-mel.

The convolutions are padded with zeros on both sides, so that n samples make (n + 1) // 160 frames;
each is followed by a norm over channels (or batch norm) and a ReLU. On log-mel frames the same
happens with linear layers, frame by frame.

:class:`WaveEncoder` and :class:`MelEncoder` are trainable; :class:`PackedWaveEncoder` and
:class:`PackedMelEncoder` run their weights over utterances of true length.

Source: van den Oord et al. 2018 (arXiv 1807.03748) section 3.1; Riviere et al. 2020 (arXiv
2002.02848) and its code ``CPC_audio`` for the padding and the norms.

Shape suffixes: B batch, S samples, T frames, N frames of a ragged batch, C channels, M features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mynah.upstream.core import mel
from mynah.upstream.core.framenorm import ChannelNorm, fold, on_frames, valid_frames
from mynah.upstream.core.packed_linear import PackedConv1d, PackedLinear
from mynah.upstream.core.ragged import pieces

Norm = Literal["channel", "batch"]

KERNELS, STRIDES, PADDINGS = (10, 8, 4, 4, 4), (5, 4, 2, 2, 2), (3, 2, 1, 1, 1)
HOP = 160  # samples between frames
SHORTEST = 159  # samples that make one frame

# final frames computed at once: the widest activation of a second of audio stays in cache
_CHUNK = {"cpu": 100}
_CHUNK_ACCELERATOR = 4096


def build_norm(kind: Norm, channels: int) -> nn.Module:
    """Return the norm of a layer.

    Raises:
        ValueError: unknown kind.
    """
    if kind == "channel":
        return ChannelNorm(channels)
    if kind == "batch":
        return nn.BatchNorm1d(channels)
    raise ValueError(f"norm must be 'channel' or 'batch', got {kind!r}")


def conv_frames(frames: int, layer: int) -> int:
    """Return how many frames convolution ``layer`` makes of ``frames`` (or samples)."""
    return (frames + 2 * PADDINGS[layer] - KERNELS[layer]) // STRIDES[layer] + 1


class WaveEncoder(nn.Module):
    """Five convolutions, each with a norm and a ReLU.

    Args:
        channels: width C.
        norm: ``channel`` or ``batch``; with the latter the convolutions have no bias, which batch
            norm would cancel.
    """

    stride = HOP

    def __init__(self, channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(
                channels if layer else 1, channels, kernel, stride, padding, bias=norm == "channel"
            )
            for layer, (kernel, stride, padding) in enumerate(
                zip(KERNELS, STRIDES, PADDINGS, strict=True)
            )
        )
        self.norms = nn.ModuleList(build_norm(norm, channels) for _ in KERNELS)

    @staticmethod
    def num_frames(n_samples: int) -> int:
        """Return the exact number of frames of ``n_samples`` >= 1; too few count as one frame."""
        frames = max(n_samples, SHORTEST)
        for layer in range(len(KERNELS)):
            frames = conv_frames(frames, layer)
        return frames

    def forward(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return frames (B, T, C), zero-padded, and the number of each utterance; differentiable.

        An utterance's frames, and the statistics of batch norm, are those of the utterances as if
        each ran alone: between layers everything after an utterance's end is zero.
        """
        device = next(self.parameters()).device
        wavs = [wav.to(device, torch.float32) for wav in wavs]
        wavs = [F.pad(wav, (0, max(0, SHORTEST - len(wav)))) for wav in wavs]
        x_BTC = pad_sequence(wavs, batch_first=True)[..., None]
        counts = [len(wav) for wav in wavs]
        for layer, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x_BTC = conv(x_BTC.transpose(1, 2)).transpose(1, 2)
            counts = [conv_frames(count, layer) for count in counts]
            x_BTC = on_frames(norm, x_BTC, valid_frames(counts, x_BTC.device)).relu()
        return x_BTC, counts

    def packed(self, dtype: torch.dtype) -> PackedEncoder:
        """Return the fast form with fixed weights."""
        return PackedWaveEncoder(self, dtype=dtype)


class MelEncoder(nn.Module):
    """Linear layers on stacked Kaldi log-mel frames, each with a norm and a ReLU.

    Args:
        channels: width C.
        num_mels: filters.
        stack: consecutive 10 ms frames joined into one.
        layers: linear layers.
        norm: ``channel`` or ``batch``, as in :class:`WaveEncoder`.
    """

    def __init__(
        self, channels: int, *, num_mels: int, stack: int, layers: int, norm: Norm
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"mel_layers must be at least 1, got {layers}")
        self.fbank = mel.KaldiFbank(num_mels=num_mels, window="hamming")
        self.stack = stack
        self.stride = mel.STRIDE * stack
        widths = [num_mels * stack] + [channels] * layers
        self.linears = nn.ModuleList(
            nn.Linear(inputs, channels, bias=norm == "channel") for inputs in widths[:-1]
        )
        self.norms = nn.ModuleList(build_norm(norm, channels) for _ in self.linears)

    def num_frames(self, n_samples: int) -> int:
        """Return ceil(filterbank frames / stack)."""
        return mel.stacked(self.fbank.num_frames(n_samples), self.stack)

    def features(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return log-mel frames (N, M), normalised in each utterance, and the number of each."""
        x_NM, counts = self.fbank(wavs)
        return mel.normalised(x_NM, counts, factor=self.stack)

    def forward(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return frames (B, T, C), zero-padded, and the number of each utterance; differentiable."""
        x_NC, counts = self.features(wavs)
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x_NC = norm(linear(x_NC)).relu()
        return pad_sequence(list(x_NC.split(counts)), batch_first=True), counts

    def packed(self, dtype: torch.dtype) -> PackedEncoder:
        """Return the fast form with fixed weights."""
        return PackedMelEncoder(self, dtype=dtype)


class PackedWaveEncoder:
    """The convolutions with fixed weights, utterance by utterance in chunks; no gradients."""

    def __init__(self, encoder: WaveEncoder, *, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.norms = [norm for norm in encoder.norms if isinstance(norm, ChannelNorm)]
        weights = [
            fold(conv.weight, conv.bias, norm)
            for conv, norm in zip(encoder.convs, encoder.norms, strict=True)
            if isinstance(conv, nn.Conv1d)
        ]
        # The first one, with a single input channel, stays in float32: samples need the digits.
        first_O1K, bias_O = weights[0]
        self.device = first_O1K.device
        self.first = PackedLinear(first_O1K[:, 0], bias_O)
        self.layers = [
            PackedConv1d(weight_OIK, bias_O, stride=stride, dtype=dtype)
            for (weight_OIK, bias_O), stride in zip(weights[1:], STRIDES[1:], strict=True)
        ]

    @torch.no_grad()
    def __call__(self, wavs: Sequence[Tensor]) -> Tensor:
        """Return the frames of all utterances, float32 (N, C)."""
        parts = []
        for given in wavs:
            wav = F.pad(given.to(self.device, torch.float32), (0, max(0, SHORTEST - len(given))))
            counts = [len(wav)]
            for layer in range(len(KERNELS)):
                counts.append(conv_frames(counts[-1], layer))
            size = _CHUNK.get(wav.device.type, _CHUNK_ACCELERATOR)
            for start, stop in pieces(counts[-1], size=size):
                parts.append(self._chunk(wav, needs(start, stop, counts)).float())
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _chunk(self, wav_S: Tensor, spans: Sequence[Span]) -> Tensor:
        span = spans[0]
        window = F.pad(wav_S[span.start : span.stop], (span.before, span.after))
        x_TC = self._activate(self.first(window.unfold(0, KERNELS[0], STRIDES[0])), 0)
        x_TC = x_TC.to(self.dtype)
        for index, layer in enumerate(self.layers, start=1):
            # what a chunk's frames need of the layer below is exactly what that one was asked for
            span = spans[index]
            x_TC = self._activate(layer(F.pad(x_TC, (0, 0, span.before, span.after))), index)
        return x_TC

    def _activate(self, x_TC: Tensor, index: int) -> Tensor:
        return (self.norms[index](x_TC) if self.norms else x_TC).relu_()


class Span(NamedTuple):
    """Consecutive inputs of a convolution.

    Attributes:
        start: first one.
        stop: one past the last one.
        before: zeros before them, where they stick out of the utterance.
        after: zeros after them.
    """

    start: int
    stop: int
    before: int
    after: int


def needs(start: int, stop: int, counts: Sequence[int]) -> list[Span]:
    """Return what each convolution needs to see so that the last one yields frames start .. stop.

    Args:
        start: first frame.
        stop: one past the last frame.
        counts: samples of the utterance, then frames after each convolution.
    """
    spans = []
    for layer in reversed(range(len(KERNELS))):
        first = start * STRIDES[layer] - PADDINGS[layer]
        end = (stop - 1) * STRIDES[layer] - PADDINGS[layer] + KERNELS[layer]
        start, stop = max(first, 0), min(end, counts[layer])
        spans.append(Span(start, stop, start - first, end - stop))
    return spans[::-1]


class PackedMelEncoder:
    """The linear layers with fixed weights over a ragged batch; no gradients."""

    def __init__(self, encoder: MelEncoder, *, dtype: torch.dtype) -> None:
        self.encoder = encoder
        self.dtype = dtype
        self.norms = [norm for norm in encoder.norms if isinstance(norm, ChannelNorm)]
        self.linears = [
            PackedLinear(*fold(linear.weight, linear.bias, norm), dtype=dtype)
            for linear, norm in zip(encoder.linears, encoder.norms, strict=True)
            if isinstance(linear, nn.Linear)
        ]

    @torch.no_grad()
    def __call__(self, wavs: Sequence[Tensor]) -> Tensor:
        """Return the frames of all utterances, float32 (N, C)."""
        x_NC = self.encoder.features(wavs)[0]
        for index, linear in enumerate(self.linears):
            x_NC = linear(x_NC.to(self.dtype))
            x_NC = (self.norms[index](x_NC) if self.norms else x_NC).relu_()
        return x_NC.float()


PackedEncoder = PackedWaveEncoder | PackedMelEncoder
