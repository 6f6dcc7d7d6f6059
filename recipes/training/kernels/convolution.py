"""One-dimensional convolutions of training as matrix products over channels-last rows.

A window of K frames with I channels each is K I consecutive numbers if a frame's channels lie side
by side, so a strided convolution without padding is a product with overlapping rows, and nothing is
copied. Its output is channels-last again (a transposed view), as the next convolution wants it.
Grouped convolutions with many taps
(position embeddings) are products of spectra.

GroupNorm with one group per channel is here because it stands between two of them.

Shape suffixes: B batch, T frames, C channels, I inputs, O outputs, K taps, X = K I.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mynah.recipes.training.kernels.linear import Linear, product

_ROWS = 512  # output frames at once: what a product yields is still in cache when it is used
_LONG = 2048  # rows that a weight gradient adds up at once


def _windows(x_TI: Tensor, kernel: int, stride: int) -> Tensor:
    """Return (T', K I), overlapping in memory."""
    frames, width = x_TI.shape
    count = (frames - kernel) // stride + 1
    return x_TI.as_strided(
        (count, kernel * width), (stride * width, 1), storage_offset=x_TI.storage_offset()
    )


class Convolution(torch.autograd.Function):
    """A convolution over (B, T, I) without padding, in one group."""

    @staticmethod
    def forward(
        ctx: Any, x_BTI: Tensor, weight_OIK: Tensor, bias_O: Tensor | None, stride: int
    ) -> Tensor:
        """Return (B, T', O)."""
        outputs, _, kernel = weight_OIK.shape
        weight_OX = weight_OIK.transpose(1, 2).reshape(outputs, -1)
        frames = (x_BTI.shape[1] - kernel) // stride + 1
        y_BTO = x_BTI.new_empty(len(x_BTI), frames, outputs)
        for x_TI, y_TO in zip(x_BTI, y_BTO, strict=True):
            rows_TX = _windows(x_TI, kernel, stride)
            for start in range(0, frames, _ROWS):
                part = slice(start, start + _ROWS)
                y_TO[part] = torch.ops.mkldnn._linear_pointwise(
                    rows_TX[part], weight_OX, bias_O, "none", [], ""
                )
        ctx.save_for_backward(x_BTI, weight_OX)
        ctx.stride, ctx.kernel = stride, kernel
        return y_BTO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of input, weight and bias."""
        x_BTI, weight_OX = ctx.saved_tensors
        grad_BTO = grads[0].contiguous()
        kernel, stride, inputs = ctx.kernel, ctx.stride, x_BTI.shape[2]
        dx_BTI = dweight_OIK = dbias_O = None
        if ctx.needs_input_grad[0]:
            dx_BTI = torch.zeros_like(x_BTI)
            for dx_TI, grad_TO in zip(dx_BTI, grad_BTO, strict=True):
                for start in range(0, len(grad_TO), _ROWS):
                    part_TX = product(grad_TO[start : start + _ROWS], weight_OX.t())
                    for tap, part_TI in enumerate(part_TX.split(inputs, dim=1)):
                        dx_TI[start * stride + tap :: stride][: len(part_TI)] += part_TI
        if ctx.needs_input_grad[1]:
            dweight_OX = torch.zeros(weight_OX.shape, dtype=torch.float32)
            for x_TI, grad_TO in zip(x_BTI, grad_BTO, strict=True):
                rows_TX = _windows(x_TI, kernel, stride)
                for start in range(0, len(rows_TX), _LONG):
                    part = slice(start, start + _LONG)
                    dweight_OX += product(grad_TO[part].t(), rows_TX[part].contiguous().t())
            dweight_OIK = dweight_OX.unflatten(1, (kernel, inputs)).transpose(1, 2)
            dweight_OIK = dweight_OIK.to(weight_OX.dtype)
        if ctx.needs_input_grad[2]:
            dbias_O = grad_BTO.sum((0, 1))
        return dx_BTI, dweight_OIK, dbias_O, None


def conv1d(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Replace ``torch.conv1d`` on CPUs for one group or many taps."""
    x = input
    stride, padding, dilation = (_single(value) for value in (stride, padding, dilation))
    mixed = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if mixed else x.dtype
    if (
        x.ndim != 3
        or x.device.type != "cpu"
        or dtype not in (torch.float32, torch.bfloat16)
        or not isinstance(padding, int)
        or dilation != 1
        or x.shape[2] + 2 * padding < weight.shape[2]
        or (groups > 1 and (weight.shape[2] < 16 or stride != 1))
        or (groups == 1 and weight.shape[2] * weight.shape[1] < 8)
    ):
        return NotImplemented
    x_BTI = x.transpose(1, 2).to(dtype)
    if padding:
        x_BTI = torch.nn.functional.pad(x_BTI, (0, 0, padding, padding))
    weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    with torch.autocast("cpu", enabled=False):
        if groups == 1:
            return Convolution.apply(x_BTI.contiguous(), weight, bias, stride).transpose(1, 2)
        y_BTO = spectral(x_BTI.float(), weight.float(), groups).to(dtype)
        return (y_BTO if bias is None else y_BTO + bias).transpose(1, 2)


def spectral(x_BTI: Tensor, weight_OIK: Tensor, groups: int) -> Tensor:
    """Return a grouped convolution (B, T', O) of stride 1 by overlap-save, differentiable.

    Frames are cut into overlapping blocks of n = 2 K, whose spectra are multiplied by the weight's,
    group by group; of each block's output the K + 1 frames that no wrap-around touches are kept.
    With so few points a Fourier transform is cheapest as a matrix product. Real and imaginary parts
    are laid side by side, so that a complex product is one real product.
    """
    outputs, width, kernel = weight_OIK.shape
    batch, frames, _ = x_BTI.shape
    size, hop, bins = 2 * kernel, kernel + 1, kernel + 1
    wanted = frames - kernel + 1
    count = -(-wanted // hop)
    x_BTI = torch.nn.functional.pad(x_BTI, (0, 0, 0, (count - 1) * hop + size - frames))
    to_FN, back_NF = fourier(size)
    blocks_BUIN = x_BTI.unfold(1, size, hop)
    spectra = _times(blocks_BUIN.reshape(-1, size), to_FN)
    spectra_GFUIR = spectra.view(batch * count, groups, width, bins, 2).permute(1, 3, 0, 2, 4)
    real_GFUI, imaginary_GFUI = spectra_GFUIR.unbind(4)
    rows_real = torch.cat([real_GFUI, imaginary_GFUI], dim=3)
    rows_imaginary = torch.cat([imaginary_GFUI, -real_GFUI], dim=3)
    rows = torch.cat([rows_real, rows_imaginary], dim=2).flatten(0, 1)  # (G F, 2 U, 2 I)
    weight = _times(weight_OIK.reshape(-1, kernel), to_FN[:, :kernel])
    weight = weight.view(groups, outputs // groups, width, bins, 2).permute(0, 3, 4, 2, 1)
    weight = weight.reshape(groups * bins, 2 * width, outputs // groups)
    out = torch.bmm(rows, weight).view(groups, bins, 2, batch * count, outputs // groups)
    out = out.permute(3, 0, 4, 1, 2).reshape(-1, 2 * bins)
    y = _times(out, back_NF[:hop]).view(batch, count, outputs, hop)
    return y.transpose(2, 3).reshape(batch, count * hop, outputs)[:, :wanted]


def _times(x_NI: Tensor, weight_OI: Tensor) -> Tensor:
    y: Tensor = Linear.apply(x_NI, weight_OI, None)
    return y


@cache
def fourier(size: int) -> tuple[Tensor, Tensor]:
    """Return the transform of ``size`` real points and its inverse as matrices.

    Rows (columns of the inverse) are the real and imaginary parts of the size / 2 + 1 bins in turn.
    """
    eye = torch.eye(size, dtype=torch.float64)
    to_FN = torch.view_as_real(torch.fft.rfft(eye)).permute(1, 2, 0).reshape(-1, size)
    parts = torch.eye(size + 2, dtype=torch.float64).view(size + 2, -1, 2)
    back_NF = torch.fft.irfft(torch.view_as_complex(parts), n=size).t()
    return to_FN.float().contiguous(), back_NF.float().contiguous()


class ChannelsLastNorm(torch.autograd.Function):
    """GroupNorm with one group per channel over (B, T, C)."""

    @staticmethod
    def forward(ctx: Any, x_BTC: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float) -> Tensor:
        """Return (B, T, C)."""
        y_BTC = torch.empty_like(x_BTC)
        means, rates = [], []
        for x_TC, y_TC in zip(x_BTC, y_BTC, strict=True):
            mean_C = x_TC.mean(0)
            variance_C = torch.zeros_like(mean_C)
            for part_TC in x_TC.split(_ROWS):
                variance_C += (part_TC - mean_C).square_().sum(0)
            rate_C = (variance_C / len(x_TC) + eps).rsqrt_()
            scale_C = weight_C * rate_C
            torch.addcmul(bias_C - mean_C * scale_C, x_TC, scale_C, out=y_TC)
            means.append(mean_C)
            rates.append(rate_C)
        ctx.save_for_backward(x_BTC, weight_C, torch.stack(means), torch.stack(rates))
        return y_BTC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of input, weight and bias."""
        x_BTC, weight_C, mean_BC, rate_BC = ctx.saved_tensors
        dx_BTC = torch.empty_like(x_BTC)
        dweight_C, dbias_C = torch.zeros_like(weight_C), torch.zeros_like(weight_C)
        rows = zip(x_BTC, grads[0], dx_BTC, mean_BC, rate_BC, strict=True)
        for x_TC, grad_TC, dx_TC, mean_C, rate_C in rows:
            sum_C, dot_C = torch.zeros_like(weight_C), torch.zeros_like(weight_C)
            for part_TC, grad_part_TC in zip(x_TC.split(_ROWS), grad_TC.split(_ROWS), strict=True):
                sum_C += grad_part_TC.sum(0)
                dot_C += (grad_part_TC * (part_TC - mean_C)).sum(0)
            dbias_C += sum_C
            dweight_C += dot_C * rate_C
            # dx = scale (g - mean(g) - (x - mean) rate^2 mean(g (x - mean)))
            scale_C = weight_C * rate_C
            slope_C = -scale_C * rate_C.square() * dot_C / len(x_TC)
            shift_C = -scale_C * sum_C / len(x_TC) - slope_C * mean_C
            torch.addcmul(shift_C, x_TC, slope_C, out=dx_TC)
            dx_TC.addcmul_(grad_TC, scale_C)
        return dx_BTC, dweight_C, dbias_C, None


def group_norm(
    input: Tensor,  # noqa: A002
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    """Replace ``F.group_norm`` on CPUs for one group per channel over (B, C, T)."""
    x = input
    if (
        x.ndim != 3
        or x.shape[1] != num_groups
        or x.device.type != "cpu"
        or weight is None
        or bias is None
    ):
        return NotImplemented
    x_BTC = x.transpose(1, 2).float().contiguous()
    return ChannelsLastNorm.apply(x_BTC, weight, bias, eps).transpose(1, 2)


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, (tuple, list)) else value
