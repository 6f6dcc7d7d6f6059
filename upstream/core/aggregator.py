"""The two convolution stacks of wav2vec and vq-wav2vec: frames, and causal context over them.

Every layer is a convolution, a group norm with *one* group and ReLU or GELU. One group means that
an utterance's mean and variance over all channels and all frames enter each of its features, so
these statistics must be of its own frames: padding that counted would change everything. The
extractor reads the waveform, or log-mel frames where that is to be cheap, and may end with
log(1 + |x|). The aggregator looks only backwards: k - 1 copies of the first frame come before it.

Source: Schneider et al. 2019 (arXiv 1904.05862) section 2; fairseq's
``ConvFeatureExtractionModel`` and ``ConvAggegator``.

:class:`Extractor` and :class:`Aggregator` are trainable and take batches; frozen inference is in
:mod:`mynah.upstream.core.packed_aggregator`.

Shape suffixes: B batch, T frames, N frames of a ragged batch, C channels, I inputs, O outputs,
K frames before the first, M mel features, G groups, X channels of a group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core import mel
from mynah.upstream.core.conv import conv_frames, receptive_field
from mynah.upstream.core.framenorm import valid_frames

Activation = Literal["relu", "gelu"]
Front = Literal["wave", "mel"]


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
            inputs = mel.stacked(self.fbank.num_frames(n_samples), self.stack)
        return conv_frames(max(inputs, self.width), self.kernels, self.strides)

    @property
    def convs(self) -> list[NormedConv]:
        """Return the layers in order."""
        return [layer for layer in self.layers if isinstance(layer, NormedConv)]

    def inputs(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Return what the first layer reads of each utterance, (T, I), as long as one frame sees."""
        if self.fbank is None:
            weight = self.convs[0].conv.weight
            rows = [wav.to(device=weight.device, dtype=weight.dtype)[:, None] for wav in wavs]
        else:
            x_NM, counts = self.fbank(wavs)
            x_NM, counts = mel.normalised(x_NM, counts, factor=self.stack)
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
        for layer, kernel, stride in zip(self.convs, self.kernels, self.strides, strict=True):
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

    @property
    def convs(self) -> list[NormedConv]:
        """Return the layers in order."""
        return [layer for layer in self.layers if isinstance(layer, NormedConv)]

    def forward(self, x_BTC: Tensor, valid_BT: Tensor | None) -> Tensor:
        """Return the context (B, T, C) of the last layer.

        Args:
            x_BTC: padded frames.
            valid_BT: which are an utterance's own; None if all are.
        """
        x_BCT = x_BTC.transpose(1, 2)
        for layer in self.convs:
            # not a replication pad: its gradient on GPUs is not deterministic
            before_BCK = x_BCT[:, :, :1].expand(-1, -1, layer.conv.kernel_size[0] - 1)
            if self.zero_pad:
                before_BCK = torch.zeros_like(before_BCK)
            y_BCT = layer(torch.cat([before_BCK, x_BCT], dim=2), valid_BT)
            x_BCT = (y_BCT + x_BCT) * self.scale if self.skip else y_BCT
        return x_BCT.transpose(1, 2)
