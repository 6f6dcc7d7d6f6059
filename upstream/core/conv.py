"""The strided convolution stack that turns a waveform into frames (wav2vec 2.0 and its kin).

Seven convolutions without padding, hop 320 and receptive field 400 samples at the published
strides; each is followed by a norm (or not) and GELU. ``group``: GroupNorm with one group per
channel after the first convolution only; ``layer``: LayerNorm over channels after each.
Source: Baevski et al. 2020 (arXiv 2006.11477) section 2, fairseq's ``ConvFeatureExtractionModel``.

:class:`ConvExtractor` is the trainable module (on accelerators over channels-last rows, see
``conv_rows``); :class:`PackedConv` runs the same weights on one true-length utterance over
channels-last rows, in cache-sized chunks.

Shape suffixes: B batch, S samples, T frames, C channels, K kernel taps, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from mynah.upstream.core.conv_rows import conv_rows, normed_first
from mynah.upstream.core.packed_linear import PackedConv1d, PackedLinear
from mynah.upstream.core.ragged import pieces

Norm = Literal["group", "layer"]

# final frames computed at once: two seconds, whose widest activation is 13 MB; fewer would read
# the weights more often
_CHUNK = {"cpu": 100}
_CHUNK_ACCELERATOR = 4096
_MOMENTS = 1 << 16  # windows whose products are summed at once


def conv_frames(n_samples: int, kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Return how many frames a stack without padding makes of ``n_samples`` (0 if too few)."""
    n = n_samples
    for kernel, stride in zip(kernels, strides, strict=True):
        if n < kernel:
            return 0
        n = (n - kernel) // stride + 1
    return n


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """Return (samples that one frame sees, samples between frames)."""
    width, hop = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        width += (kernel - 1) * hop
        hop *= stride
    return width, hop


class ConvBlock(nn.Module):
    """Convolution, norm, GELU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, *, bias: bool, norm: Norm | None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=bias)
        nn.init.kaiming_normal_(self.conv.weight)
        self.norm: nn.Module | None = None
        if norm == "group":
            self.norm = nn.GroupNorm(outputs, outputs)
        elif norm == "layer":
            self.norm = nn.LayerNorm(outputs)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Return (B, O, T')."""
        if isinstance(self.norm, nn.GroupNorm):
            return normed_conv(
                x_BCT,
                self.conv.weight,
                self.conv.bias,
                self.norm.weight,
                self.norm.bias,
                self.conv.stride[0],
                self.norm.eps,
            )
        x_BCT = self.conv(x_BCT)
        if self.norm is not None:
            x_BCT = self.norm(x_BCT.transpose(1, 2)).transpose(1, 2)
        return F.gelu(x_BCT)

    def rows(self, x_BTC: Tensor) -> Tensor:
        """Return the same of rows (B, T, C) as rows (B, T', O), as matrix products."""
        stride = self.conv.stride[0]
        if isinstance(self.norm, nn.GroupNorm):
            weight_OK = self.conv.weight[:, 0]
            norm = self.norm
            return normed_first(x_BTC[..., 0], weight_OK, norm.weight, norm.bias, stride, norm.eps)
        y_BTO = conv_rows(x_BTC, self.conv.weight, self.conv.bias, stride)
        return F.gelu(y_BTO if self.norm is None else self.norm(y_BTO))


def normed_conv(
    x_BCT: Tensor,
    weight_OCK: Tensor,
    bias_O: Tensor | None,
    gain_O: Tensor,
    shift_O: Tensor,
    stride: int,
    eps: float,
) -> Tensor:
    """Return GELU(GroupNorm(conv(x))) (B, O, T') with one group per channel.

    Torch function modes may replace it as one, for the norm follows from the input's moments.
    """
    if has_torch_function_unary(x_BCT):
        given = (x_BCT, weight_OCK, bias_O, gain_O, shift_O, stride, eps)
        y_BOT: Tensor = handle_torch_function(normed_conv, (x_BCT,), *given)
        return y_BOT
    y_BOT = F.conv1d(x_BCT, weight_OCK, bias_O, stride)
    return F.gelu(F.group_norm(y_BOT, len(gain_O), gain_O, shift_O, eps))


class ConvExtractor(nn.Sequential):
    """Waveform to frames.

    Args:
        channels: width C of every layer.
        kernels: taps of each layer.
        strides: stride of each layer.
        bias: whether the convolutions have a bias.
        norm: ``group`` or ``layer``.
    """

    def __init__(
        self,
        channels: int,
        kernels: Sequence[int],
        strides: Sequence[int],
        *,
        bias: bool = False,
        norm: Norm = "group",
    ) -> None:
        if norm not in ("group", "layer"):
            raise ValueError(f"norm must be 'group' or 'layer', got {norm!r}")
        if not kernels or len(kernels) != len(strides):
            raise ValueError(
                f"kernels and strides must be as many, got {len(kernels)} and {len(strides)}"
            )
        super().__init__(
            *(
                ConvBlock(
                    channels if index else 1,
                    channels,
                    kernel,
                    stride,
                    bias=bias,
                    norm=norm if norm == "layer" or index == 0 else None,
                )
                for index, (kernel, stride) in enumerate(zip(kernels, strides, strict=True))
            )
        )
        self.channels = channels
        self.kernels, self.strides = tuple(kernels), tuple(strides)
        self.width, self.hop = receptive_field(kernels, strides)

    def num_frames(self, n_samples: int) -> int:
        """Return the exact number of frames of ``n_samples`` >= 1; too few count as one frame."""
        return conv_frames(max(n_samples, self.width), self.kernels, self.strides)

    def forward(self, wav_BS: Tensor) -> Tensor:
        """Return (B, T, C) for waveforms of one true length; differentiable."""
        if wav_BS.shape[1] < self.width:
            wav_BS = F.pad(wav_BS, (0, self.width - wav_BS.shape[1]))
        if wav_BS.device.type == "cuda":
            x_BTC = wav_BS[:, :, None]
            for block in self:
                x_BTC = block.rows(x_BTC)  # type: ignore[operator]
            return x_BTC
        x_BCT = wav_BS[:, None]
        for block in self:
            x_BCT = block(x_BCT)
        return x_BCT.transpose(1, 2)


class PackedConv:
    """The same function of one utterance with fixed weights; no gradients, no padding.

    GroupNorm after the first convolution needs the mean and variance of its output over
    the whole utterance; both follow exactly from the first and second moments of the K-sample
    windows, so the norm is folded into the first convolution's weights before any output exists,
    and the whole stack can run in chunks.
    """

    def __init__(self, extractor: ConvExtractor, *, dtype: torch.dtype) -> None:
        self.width, self.hop = extractor.width, extractor.hop
        self.kernels, self.strides = extractor.kernels, extractor.strides
        self.channels = extractor.channels
        self.dtype = dtype
        blocks = [block for block in extractor if isinstance(block, ConvBlock)]
        self.norms = [b.norm if isinstance(b.norm, nn.LayerNorm) else None for b in blocks]
        self.layers = [
            PackedConv1d(
                block.conv.weight,
                block.conv.bias,
                stride=stride,
                dtype=dtype,
                gelu=block.norm is None,
            )
            for block, stride in zip(blocks[1:], self.strides[1:], strict=True)
        ]
        # The first one, with a single input channel, stays in float32: samples need the digits.
        first = blocks[0]
        self.first_OK = first.conv.weight.detach()[:, 0].double()
        self.first = PackedLinear(first.conv.weight[:, 0], first.conv.bias, gelu=False)
        self.group_norm = first.norm if isinstance(first.norm, nn.GroupNorm) else None

    def __call__(self, wav_S: Tensor) -> Tensor:
        """Return (T, C) in the packed dtype for one waveform of any length >= 1."""
        if len(wav_S) < self.width:
            wav_S = F.pad(wav_S, (0, self.width - len(wav_S)))
        wav_S = wav_S.contiguous()
        first = self.first if self.group_norm is None else self._folded(wav_S, self.group_norm)
        total = (len(wav_S) - self.width) // self.hop + 1
        size = _CHUNK.get(wav_S.device.type, _CHUNK_ACCELERATOR)
        parts = []
        for start, stop in pieces(total, size=size):
            begin = start * self.hop
            parts.append(self._chunk(first, wav_S[begin : begin + self.samples(stop - start)]))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def samples(self, frames: int) -> int:
        """Return how many samples ``frames`` frames see."""
        return (frames - 1) * self.hop + self.width

    def _chunk(self, first: PackedLinear, wav_S: Tensor) -> Tensor:
        x_TC = self._activate(first(self._windows(wav_S)), 0).to(self.dtype)
        for index, layer in enumerate(self.layers, start=1):
            x_TC = self._activate(layer(x_TC), index)
        return x_TC

    def _activate(self, x_TC: Tensor, index: int) -> Tensor:
        """Apply the layer norm and GELU where they are not part of the product already."""
        norm = self.norms[index]
        return x_TC if norm is None else F.gelu(_layer_norm(x_TC, norm))

    def _windows(self, wav_S: Tensor) -> Tensor:
        """Return the first layer's windows (T, K), overlapping in memory."""
        kernel, stride = self.kernels[0], self.strides[0]
        return wav_S.as_strided(((len(wav_S) - kernel) // stride + 1, kernel), (stride, 1))

    def _folded(self, wav_S: Tensor, norm: nn.GroupNorm) -> PackedLinear:
        """Return the first convolution with its GroupNorm over this utterance folded in."""
        wav_S = wav_S.double()
        centre = wav_S.mean()
        windows_TK = self._windows(wav_S - centre)
        sum_K = windows_TK.sum(dim=0)
        sum_KK = torch.zeros(len(sum_K), len(sum_K), dtype=torch.float64, device=wav_S.device)
        for start, stop in pieces(len(windows_TK), size=_MOMENTS):
            part_TK = windows_TK[start:stop]
            sum_KK += part_TK.T @ part_TK
        mean_K = sum_K / len(windows_TK)
        moment_KK = sum_KK / len(windows_TK) - mean_K[:, None] * mean_K
        variance_O = ((self.first_OK @ moment_KK) * self.first_OK).sum(dim=1)
        scale_O = norm.weight.double() / (variance_O.clamp_min(0.0) + norm.eps).sqrt()
        # The convolution's own bias cancels against the mean that contains it.
        shift_O = norm.bias.double() - scale_O * (self.first_OK @ (mean_K + centre))
        weight_OK = (self.first_OK * scale_O[:, None]).float()
        return PackedLinear(weight_OK, shift_O.float(), gelu=True)


def _layer_norm(x_TC: Tensor, norm: nn.LayerNorm) -> Tensor:
    weight, bias = norm.weight.to(x_TC.dtype), norm.bias.to(x_TC.dtype)
    return F.layer_norm(x_TC, norm.normalized_shape, weight, bias, norm.eps)
