"""The two convolution stacks of wav2vec and vq-wav2vec: frames, and causal context over them.

Every layer is a convolution, a group norm with *one* group and ReLU or GELU. One group means that
an utterance's mean and variance over all channels and all frames enter each of its features, so
these statistics must be of its own frames: padding that counted would change everything. The
extractor reads the waveform, or log-mel frames where that is to be cheap, and may end with
log(1 + |x|). The aggregator looks only backwards: k - 1 copies of the first frame come before it.

Source: Schneider et al. 2019 (arXiv 1904.05862) section 2; fairseq's
``ConvFeatureExtractionModel`` and ``ConvAggegator``.

:class:`Extractor` and :class:`Aggregator` are trainable and take batches;
:class:`PackedExtractor` and :class:`PackedAggregator` run the same weights over one utterance at a
time, frames as rows.

Shape suffixes: B batch, S samples, T frames, N frames of a ragged batch, C channels, I inputs,
O outputs, K kernel taps, M mel features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core import mel
from mynah.upstream.core.conv import conv_frames, receptive_field
from mynah.upstream.core.framenorm import valid_frames
from mynah.upstream.core.packed_linear import PackedConv1d, PackedLinear
from mynah.upstream.core.ragged import pieces

Activation = Literal["relu", "gelu"]
Front = Literal["wave", "mel"]

_ROWS = {"cpu": 512}  # rows of the second convolution's output computed at once
_ROWS_ACCELERATOR = 1 << 16
_MOMENTS = 1 << 16  # windows whose products are summed at once


def utterance_norm(x_BCT: Tensor, norm: nn.GroupNorm, valid_BT: Tensor | None) -> Tensor:
    """Return the float32 group norm whose statistics are those of each utterance's own frames.

    Args:
        x_BCT: padded frames; what lies beyond an utterance's end has no influence on it.
        norm: any number of groups.
        valid_BT: which frames are its own; None if all are.
    """
    x_BCT = x_BCT.float()
    if valid_BT is None:
        return F.group_norm(x_BCT, norm.num_groups, norm.weight, norm.bias, norm.eps)
    x_BGXT = x_BCT.unflatten(1, (norm.num_groups, -1))
    own_B11T = valid_BT[:, None, None]
    size_B111 = own_B11T.sum(dim=3, keepdim=True) * x_BGXT.shape[2]
    mean_BG11 = (x_BGXT * own_B11T).sum(dim=(2, 3), keepdim=True) / size_B111
    x_BGXT = (x_BGXT - mean_BG11) * own_B11T
    variance_BG11 = x_BGXT.square().sum(dim=(2, 3), keepdim=True) / size_B111
    x_BCT = (x_BGXT * (variance_BG11 + norm.eps).rsqrt()).flatten(1, 2)
    return x_BCT * norm.weight[:, None] + norm.bias[:, None]


def activate(x: Tensor, activation: Activation) -> Tensor:
    """Return ReLU, or GELU by the error function."""
    return F.relu(x) if activation == "relu" else F.gelu(x)


class NormedConv(nn.Module):
    """Convolution, dropout, group norm with one group, activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        bias: bool,
        activation: Activation,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if activation not in ("relu", "gelu"):
            raise ValueError(f"activation must be 'relu' or 'gelu', got {activation!r}")
        self.activation = activation
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.GroupNorm(1, outputs)

    def forward(self, x_BIT: Tensor, valid_BT: Tensor | None) -> Tensor:
        """Return (B, O, T'); ``valid_BT`` is about the output's frames."""
        x_BOT = self.dropout(self.conv(x_BIT))
        return activate(utterance_norm(x_BOT, self.norm, valid_BT), self.activation)


class Extractor(nn.Module):
    """Waveforms to frames.

    Args:
        channels: width C of every layer.
        kernels: taps of each layer, over samples or log-mel frames.
        strides: stride of each layer.
        front: ``wave``, or ``mel``: Kaldi log-mel frames, normalised per utterance and bin, take
            the place of the samples.
        num_mels: filters of ``mel``.
        stack: 10 ms frames joined into one of ``mel``.
        activation: ``relu`` or ``gelu``.
        log_compression: whether log(1 + |x|) of the last layer's output is the feature.

    Attributes:
        stride: samples between frames.
        offset: how many frames ahead the first one is that shares no sample with a frame: the
            width of a frame in strides, rounded up.

    Raises:
        ValueError: an unknown front, or not as many strides as kernels.
    """

    def __init__(
        self,
        channels: int,
        kernels: Sequence[int],
        strides: Sequence[int],
        *,
        front: Front = "wave",
        num_mels: int = 40,
        stack: int = 2,
        activation: Activation = "relu",
        log_compression: bool = True,
    ) -> None:
        super().__init__()
        if front not in ("wave", "mel"):
            raise ValueError(f"front must be 'wave' or 'mel', got {front!r}")
        if not kernels or len(kernels) != len(strides):
            raise ValueError(
                f"kernels and strides must be as many, got {len(kernels)} and {len(strides)}"
            )
        self.kernels, self.strides = tuple(kernels), tuple(strides)
        self.stack = stack
        self.log_compression = log_compression
        self.fbank: mel.KaldiFbank | None = None
        inputs, seen, hop = 1, 1, 1
        if front == "mel":
            self.fbank = mel.KaldiFbank(num_mels=num_mels, window="hamming")
            inputs, hop = num_mels * stack, mel.STRIDE * stack
            seen = mel.WIDTH + mel.STRIDE * (stack - 1)
        self.width, steps = receptive_field(kernels, strides)  # in inputs of the stack
        self.stride = hop * steps
        self.offset = math.ceil((seen + (self.width - 1) * hop) / self.stride)
        self.layers = nn.ModuleList(
            NormedConv(
                channels if index else inputs,
                channels,
                kernel,
                stride,
                bias=False,
                activation=activation,
            )
            for index, (kernel, stride) in enumerate(zip(kernels, strides, strict=True))
        )

    def num_frames(self, n_samples: int) -> int:
        """Return the exact number of frames; fewer samples than one frame sees count as one.

        Raises:
            ValueError: no samples.
        """
        if n_samples < 1:
            raise ValueError(f"a waveform needs at least one sample, got {n_samples}")
        inputs = n_samples
        if self.fbank is not None:
            inputs = -(-self.fbank.num_frames(n_samples) // self.stack)
        return conv_frames(max(inputs, self.width), self.kernels, self.strides)

    def inputs(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Return what the first layer reads of each utterance, (T, I), as long as one frame sees."""
        if self.fbank is None:
            weight = self.layers[0].conv.weight
            rows = [wav.to(device=weight.device, dtype=weight.dtype)[:, None] for wav in wavs]
        else:
            x_NM, counts = self.fbank(wavs)
            x_NM, counts = mel.stack(mel.cmvn(x_NM, counts), counts, factor=self.stack)
            rows = list(x_NM.split(counts))
        return [
            F.pad(row, (0, 0, 0, self.width - len(row))) if len(row) < self.width else row
            for row in rows
        ]

    def forward(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return frames (B, T, C), of any value beyond an utterance's end, and each one's number."""
        rows = self.inputs(wavs)
        counts = [len(row) for row in rows]
        x_BCT = nn.utils.rnn.pad_sequence(rows, batch_first=True).transpose(1, 2)
        for layer, kernel, stride in zip(self.layers, self.kernels, self.strides, strict=True):
            counts = [(count - kernel) // stride + 1 for count in counts]
            x_BCT = layer(x_BCT, valid_frames(counts, x_BCT.device))
        return self.compress(x_BCT.transpose(1, 2)), counts

    def compress(self, x: Tensor) -> Tensor:
        """Return log(1 + |x|), or x where there is no compression."""
        return x.abs().log1p() if self.log_compression else x


class Aggregator(nn.Module):
    """Causal context over frames.

    Args:
        channels: width C.
        kernels: taps of each layer.
        activation: ``relu`` or ``gelu``.
        skip: whether a layer's input is added to its output, the sum times
            sqrt(``residual_scale``).
        residual_scale: see ``skip``.
        zero_pad: whether zeros instead of the first frame's copies come before it.
        dropout: of the convolutions' outputs.
    """

    def __init__(
        self,
        channels: int,
        kernels: Sequence[int],
        *,
        activation: Activation = "relu",
        skip: bool = True,
        residual_scale: float = 0.5,
        zero_pad: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.skip = skip
        self.scale = math.sqrt(residual_scale)
        self.zero_pad = zero_pad
        self.layers = nn.ModuleList(
            NormedConv(
                channels, channels, kernel, bias=True, activation=activation, dropout=dropout
            )
            for kernel in kernels
        )

    def forward(self, x_BTC: Tensor, valid_BT: Tensor | None) -> Tensor:
        """Return the context (B, T, C) of the last layer.

        Args:
            x_BTC: padded frames.
            valid_BT: which are an utterance's own; None if all are.
        """
        x_BCT = x_BTC.transpose(1, 2)
        for layer in self.layers:
            before = (layer.conv.kernel_size[0] - 1, 0)
            padded = F.pad(x_BCT, before, mode="constant" if self.zero_pad else "replicate")
            y_BCT = layer(padded, valid_BT)
            x_BCT = (y_BCT + x_BCT) * self.scale if self.skip else y_BCT
        return x_BCT.transpose(1, 2)


class _PackedLayer:
    """One layer with fixed weights over the rows of one utterance."""

    def __init__(self, layer: NormedConv, *, dtype: torch.dtype) -> None:
        self.activation = layer.activation
        self.norm = layer.norm
        self.dtype = dtype
        self.kernel, self.stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        self.conv = PackedConv1d(
            layer.conv.weight, layer.conv.bias, stride=self.stride, dtype=dtype
        )

    def __call__(self, x_TI: Tensor) -> Tensor:
        return self.finish(self.conv(x_TI.to(self.dtype).contiguous()))

    def finish(self, x_TO: Tensor) -> Tensor:
        """Return norm and activation of all rows of an utterance, float32; the input is lost."""
        x_TO = x_TO.float()
        variance, mean = torch.var_mean(x_TO, correction=0)
        scale_O = self.norm.weight * (variance + self.norm.eps).rsqrt()
        x_TO = x_TO.sub_(mean).mul_(scale_O).add_(self.norm.bias)
        return x_TO.relu_() if self.activation == "relu" else F.gelu(x_TO)


class PackedExtractor:
    """An extractor with fixed weights over one utterance; no gradients, no padding.

    The first convolution over samples has the largest output by far (6.5 MB per second at 512
    channels). Its norm needs mean and variance of all of it; both follow exactly from the first
    two moments of the K-sample windows, so the norm is folded into the weights, and the first two
    convolutions run in chunks.
    """

    def __init__(self, extractor: Extractor, *, dtype: torch.dtype) -> None:
        self.extractor = extractor
        layers = [layer for layer in extractor.layers if isinstance(layer, NormedConv)]
        self.layers = [_PackedLayer(layer, dtype=dtype) for layer in layers]
        self.dtype = dtype
        # Samples need the digits: the first convolution over them stays in float32.
        self.first_OK = layers[0].conv.weight.detach()[:, 0].double()

    @torch.no_grad()
    def __call__(self, wav_S: Tensor) -> Tensor:
        """Return float32 frames (T, C) of a waveform of at least one sample."""
        (x_TC,) = self.extractor.inputs([wav_S])
        rest = self.layers
        if self.extractor.fbank is None:
            x_TC, rest = self._beginning(x_TC[:, 0].contiguous()), self.layers[2:]
        for layer in rest:
            x_TC = layer(x_TC)
        return self.extractor.compress(x_TC)

    def _beginning(self, wav_S: Tensor) -> Tensor:
        """Return the output of the second layer (of the only one, where there is one)."""
        first = self._folded(wav_S)
        windows_TK = self._windows(wav_S)
        if len(self.layers) == 1:
            return self._first(first, windows_TK)
        second = self.layers[1]
        total = (len(windows_TK) - second.kernel) // second.stride + 1
        parts = []
        size = _ROWS.get(wav_S.device.type, _ROWS_ACCELERATOR)
        for start, stop in pieces(total, size=size):
            begin = start * second.stride
            end = (stop - 1) * second.stride + second.kernel
            parts.append(second.conv(self._first(first, windows_TK[begin:end]).to(self.dtype)))
        return second.finish(torch.cat(parts))

    def _first(self, first: PackedLinear, windows_TK: Tensor) -> Tensor:
        x_TO = first(windows_TK)
        return x_TO if first.gelu else x_TO.relu_()

    def _windows(self, wav_S: Tensor) -> Tensor:
        """Return the first layer's windows (T, K), overlapping in memory."""
        kernel, stride = self.layers[0].kernel, self.layers[0].stride
        return wav_S.as_strided(((len(wav_S) - kernel) // stride + 1, kernel), (stride, 1))

    def _folded(self, wav_S: Tensor) -> PackedLinear:
        """Return the first convolution with its norm over this utterance folded in."""
        norm = self.layers[0].norm
        wav_S = wav_S.double()
        windows_TK = self._windows(wav_S)
        moment_KK = torch.zeros(
            windows_TK.shape[1], windows_TK.shape[1], dtype=torch.float64, device=wav_S.device
        )
        for start, stop in pieces(len(windows_TK), size=_MOMENTS):
            part_TK = windows_TK[start:stop]
            moment_KK += part_TK.T @ part_TK
        moment_KK /= len(windows_TK)
        mean = (self.first_OK @ windows_TK.mean(dim=0)).mean()
        square = ((self.first_OK @ moment_KK) * self.first_OK).sum(dim=1).mean()
        variance = (square - mean.square()).clamp_min(0.0)
        scale_O = norm.weight.double() * (variance + norm.eps).rsqrt()
        return PackedLinear(
            (self.first_OK * scale_O[:, None]).float(),
            (norm.bias.double() - mean * scale_O).float(),
            gelu=self.layers[0].activation == "gelu",
        )


class PackedAggregator:
    """An aggregator with fixed weights over a ragged batch, utterance by utterance."""

    def __init__(self, aggregator: Aggregator, *, dtype: torch.dtype) -> None:
        self.skip, self.scale = aggregator.skip, aggregator.scale
        self.zero_pad = aggregator.zero_pad
        self.layers = [
            _PackedLayer(layer, dtype=dtype)
            for layer in aggregator.layers
            if isinstance(layer, NormedConv)
        ]

    def __call__(self, x_NC: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
        """Yield the output of each layer, float32 (N, C).

        Args:
            x_NC: float32 frames laid end to end.
            counts: frames of each utterance.
        """
        for layer in self.layers:
            # no_grad wraps each step, not the generator: it would leak into the caller at a yield
            with torch.no_grad():
                parts = [self._layer(layer, x_TC) for x_TC in x_NC.split(list(counts))]
                x_NC = torch.cat(parts) if len(parts) > 1 else parts[0]
            yield x_NC

    def _layer(self, layer: _PackedLayer, x_TC: Tensor) -> Tensor:
        before_KC = x_TC[:1].expand(layer.kernel - 1, -1)
        if self.zero_pad:
            before_KC = torch.zeros_like(before_KC)
        y_TC = layer(torch.cat([before_KC, x_TC]))
        return y_TC.add_(x_TC).mul_(self.scale) if self.skip else y_TC
