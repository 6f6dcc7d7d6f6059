"""One-dimensional convolutions of training as matrix products over channels-last rows.

A window of K frames with I channels each is K I consecutive numbers if a frame's channels lie side
by side, so a strided convolution without padding is a product with overlapping rows, and nothing is
copied. Its output is channels-last again (a transposed view), as the next convolution wants it.
Grouped convolutions with many taps
(position embeddings) are products of spectra.

The first convolution of a waveform is one with the GroupNorm and the GELU that follow it.

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


class WindowsGelu(torch.autograd.Function):
    """``GELU(windows W^T + shift)`` with a weight of its own for each utterance, from waveforms.

    Only the output is written; the backward pass computes what goes into the GELU again, which is
    cheaper than reading it: a window has ten samples and its output 512 channels.
    """

    @staticmethod
    def forward(
        ctx: Any, wav_BS: Tensor, weight_BOK: Tensor, shift_BO: Tensor, stride: int, dtype: Any
    ) -> Tensor:
        """Return (B, T', O)."""
        batch, outputs, kernel = weight_BOK.shape
        frames = (wav_BS.shape[1] - kernel) // stride + 1
        y_BTO = torch.empty(batch, frames, outputs, dtype=dtype)
        for wav_S, weight_OK, shift_O, y_TO in zip(
            wav_BS, weight_BOK, shift_BO, y_BTO, strict=True
        ):
            rows_TK = _windows(wav_S[:, None], kernel, stride)
            for start in range(0, frames, _ROWS):
                part = slice(start, start + _ROWS)
                y_TO[part] = torch.ops.mkldnn._linear_pointwise(
                    rows_TK[part], weight_OK, shift_O, "gelu", [], "none"
                )
        ctx.save_for_backward(wav_BS, weight_BOK, shift_BO)
        ctx.stride = stride
        return y_BTO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of weight and shift."""
        wav_BS, weight_BOK, shift_BO = ctx.saved_tensors
        kernel = weight_BOK.shape[2]
        dweight_BOK, dshift_BO = torch.zeros_like(weight_BOK), torch.zeros_like(shift_BO)
        rows = zip(wav_BS, weight_BOK, shift_BO, grads[0], dweight_BOK, dshift_BO, strict=True)
        for wav_S, weight_OK, shift_O, grad_TO, dweight_OK, dshift_O in rows:
            rows_TK = _windows(wav_S[:, None], kernel, ctx.stride)
            for start in range(0, len(rows_TK), _ROWS):
                part_TK = rows_TK[start : start + _ROWS]
                before_TO = torch.ops.mkldnn._linear_pointwise(
                    part_TK, weight_OK, shift_O, "none", [], ""
                )
                part_TO = torch.ops.aten.gelu_backward(
                    grad_TO[start : start + _ROWS].float(), before_TO
                )
                dweight_OK.add_(product(part_TO.t(), part_TK.contiguous().t()))
                dshift_O.add_(part_TO.sum(0))
        return None, dweight_BOK, dshift_BO, None, None


def normed_conv(
    x_BCT: Tensor,
    weight_OCK: Tensor,
    bias_O: Tensor | None,
    gain_O: Tensor,
    shift_O: Tensor,
    stride: int,
    eps: float,
) -> Any:
    """Replace ``upstream.core.conv.normed_conv`` on CPUs for waveforms.

    Mean and variance of a convolution's output over an utterance follow from the first and second
    moments of its windows, so the norm is folded into the weight, differentiably, and the
    convolution's own bias cancels.
    """
    if x_BCT.shape[1] != 1 or x_BCT.device.type != "cpu" or x_BCT.requires_grad:
        return NotImplemented
    mixed = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if mixed else torch.float32
    wav_BS = x_BCT[:, 0].float().contiguous()
    with torch.autocast("cpu", enabled=False):
        weight_OK = weight_OCK[:, 0].double()
        exact_BS = wav_BS.double()
        centre_B1 = exact_BS.mean(1, keepdim=True)
        windows_BTK = (exact_BS - centre_B1).unfold(1, weight_OK.shape[1], stride)
        mean_BK = windows_BTK.mean(1)
        moment_BKK = windows_BTK.transpose(1, 2) @ windows_BTK / windows_BTK.shape[1]
        moment_BKK -= mean_BK[:, :, None] * mean_BK[:, None]
        variance_BO = ((weight_OK @ moment_BKK) * weight_OK).sum(2)
        scale_BO = gain_O.double() / (variance_BO.clamp_min(0.0) + eps).sqrt()
        offset_BO = shift_O.double() - scale_BO * ((mean_BK + centre_B1) @ weight_OK.t())
        folded_BOK = weight_OK * scale_BO[:, :, None]
        if bias_O is not None:
            offset_BO = offset_BO + 0.0 * bias_O.double()  # it has a gradient, of zero
        return WindowsGelu.apply(
            wav_BS, folded_BOK.float(), offset_BO.float(), stride, dtype
        ).transpose(1, 2)


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, (tuple, list)) else value
