"""The convolution stack as matrix products over rows (B, T, C), for training on accelerators.

Libraries lay channels before time, or convert between both layouts around every convolution; for
few taps and many channels the products themselves are a small part of the cost. Here time stays
before channels: a convolution with K taps and stride S is one product for each S taps, over views
of the same memory whose rows are S frames apart, so nothing is copied.

The first layer's group norm (one group per channel) needs mean and variance of its output over
time; both follow from the first and second moments of the K-sample windows, so that the norm is
folded into the layer's weights, per utterance, and is differentiated through them. Its output is
written once instead of three times.

Shape suffixes: B batch, S samples, T frames, C inputs, O outputs, K taps, X taps times inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the type of products: autocast's where it is on, else the tensor's own."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def conv_rows(x_BTC: Tensor, weight_OCK: Tensor, bias_O: Tensor | None, stride: int) -> Tensor:
    """Return ``conv1d`` of rows without padding, (B, T', O); differentiable once.

    Args:
        x_BTC: rows.
        weight_OCK: as ``nn.Conv1d`` has it.
        bias_O: or None.
        stride: in frames.
    """
    dtype = compute_dtype(x_BTC)
    with torch.autocast(x_BTC.device.type, enabled=False):
        weight_KCO = weight_OCK.to(dtype).permute(2, 1, 0).contiguous()
        y_BTO: Tensor = _ConvRows.apply(x_BTC.to(dtype).contiguous(), weight_KCO, stride)
        return y_BTO if bias_O is None else y_BTO + bias_O.to(dtype)


class _ConvRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BTC: Tensor, weight_KCO: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x_BTC, weight_KCO)
        ctx.stride = stride
        frames = (x_BTC.shape[1] - len(weight_KCO)) // stride + 1
        y_BTO: Tensor | None = None
        for taps in _groups(len(weight_KCO), stride):
            rows_BTX = _rows(x_BTC, taps, stride, frames)
            weight_BXO = weight_KCO[taps].flatten(0, 1).expand(len(x_BTC), -1, -1)
            if y_BTO is None:
                y_BTO = torch.bmm(rows_BTX, weight_BXO)
            else:
                y_BTO.baddbmm_(rows_BTX, weight_BXO)
        assert y_BTO is not None
        return y_BTO

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad_BTO = grads[0].contiguous()
        x_BTC, weight_KCO = ctx.saved_tensors
        frames = grad_BTO.shape[1]
        grad_x: Tensor | None = None
        grad_w = torch.empty_like(weight_KCO)
        groups = _groups(len(weight_KCO), ctx.stride)
        # the rows of the first run of taps lie end to end: they are written, not added to zeros
        tiled = groups[0].stop == ctx.stride
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x_BTC) if tiled else torch.zeros_like(x_BTC)
            grad_x[:, frames * ctx.stride :] = 0
        for taps in groups:
            rows_BTX = _rows(x_BTC, taps, ctx.stride, frames)
            each_BXO = torch.bmm(rows_BTX.mT, grad_BTO)
            total_XO = each_BXO.sum(dim=0, dtype=torch.float32)
            grad_w[taps] = total_XO.view_as(grad_w[taps]).to(grad_w.dtype)
            if grad_x is not None:
                weight_BOX = weight_KCO[taps].flatten(0, 1).mT.expand(len(x_BTC), -1, -1)
                beta = 0 if tiled and taps.start == 0 else 1
                _rows(grad_x, taps, ctx.stride, frames).baddbmm_(grad_BTO, weight_BOX, beta=beta)
        return grad_x, grad_w, None


def _groups(taps: int, stride: int) -> list[slice]:
    """Return the taps in runs of ``stride``, whose inputs lie side by side in a row."""
    return [slice(first, min(first + stride, taps)) for first in range(0, taps, stride)]


def _rows(x_BTC: Tensor, taps: slice, stride: int, frames: int) -> Tensor:
    """Return what a run of taps sees of each output frame, (B, T', X), a view."""
    batch, samples, channels = x_BTC.shape
    return x_BTC.as_strided(
        (batch, frames, (taps.stop - taps.start) * channels),
        (samples * channels, stride * channels, 1),
        x_BTC.storage_offset() + taps.start * channels,
    )


def normed_first(
    wav_BS: Tensor,
    weight_OK: Tensor,
    gain_O: Tensor,
    shift_O: Tensor,
    stride: int,
    eps: float,
) -> Tensor:
    """Return GELU(GroupNorm(conv(x))) (B, T, O) of waveforms, one group per channel.

    A bias of the convolution would cancel against the mean, so there is none.

    Args:
        wav_BS: waveforms of one true length; no gradient flows to them.
        weight_OK: filters.
        gain_O: the norm's weight.
        shift_O: the norm's bias.
        stride: in samples.
        eps: of the norm.
    """
    dtype = compute_dtype(wav_BS)
    with torch.autocast(wav_BS.device.type, enabled=False):
        windows_BTK = wav_BS.detach().unfold(1, weight_OK.shape[1], stride)
        mean_BK, moments_BKK = window_moments(windows_BTK)
        weight_OK = weight_OK.float()
        variance_BO = ((weight_OK @ moments_BKK) * weight_OK).sum(dim=2)
        scale_BO = gain_O.float() / (variance_BO.clamp_min(0.0) + eps).sqrt()
        offset_BO = shift_O.float() - scale_BO * (mean_BK @ weight_OK.T)
        weight_BKO = (scale_BO[:, :, None] * weight_OK).mT
        y_BTO = torch.baddbmm(
            offset_BO[:, None].to(dtype), windows_BTK.to(dtype).contiguous(), weight_BKO.to(dtype)
        )
        return F.gelu(y_BTO)


@torch.no_grad()
def window_moments(windows_BTK: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (B, K) and covariance (B, K, K) of windows, computed in float64."""
    batch, count, taps = windows_BTK.shape
    x_BTK = windows_BTK.double()
    mean_BK = x_BTK.mean(dim=1)
    x_BTK = x_BTK - mean_BK[:, None]
    moments_BKK = (x_BTK.mT @ x_BTK) / count
    return mean_BK.float(), moments_BKK.view(batch, taps, taps).float()
