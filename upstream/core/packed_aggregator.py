"""Frozen wav2vec extractors and aggregators: one utterance at a time, frames as rows.

The same weights as :mod:`mynah.upstream.core.aggregator`, laid out once for the matrix-product
library. Nothing is padded, and what an utterance yields does not depend on its neighbours to the bit:
a quantiser may stand in between, and rounding must not tip its decisions.

Shape suffixes: S samples, T frames, N frames of a ragged batch, C channels, I inputs, O outputs,
K kernel taps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mynah.upstream.core.aggregator import Aggregator, Extractor, NormedConv
from mynah.upstream.core.packed_linear import PackedConv1d, PackedLinear
from mynah.upstream.core.ragged import pieces

_ROWS = {"cpu": 512}  # rows of the second convolution's output computed at once
_ROWS_ACCELERATOR = 1 << 16
_MOMENTS = 1 << 16  # windows whose products are summed at once


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
        self.layers = [_PackedLayer(layer, dtype=dtype) for layer in extractor.convs]
        self.dtype = dtype
        # Samples need the digits: the first convolution over them stays in float32.
        self.first_OK = extractor.convs[0].conv.weight.detach()[:, 0].double()

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
        self.layers = [_PackedLayer(layer, dtype=dtype) for layer in aggregator.convs]

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
