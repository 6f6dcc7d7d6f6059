"""Matrix products of training by oneDNN: forward, and both products of the backward pass.

Plain float32 products go to MKL, which takes about half of the chip on AMD processors; oneDNN takes
all of it, on any. Under bfloat16 autocast torch goes to oneDNN itself, so that is left alone.

Shape suffixes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_WORTH = 1 << 21  # multiply-adds below which a Python function costs more than it saves


def product(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return ``x W^T + b`` (N, O) by oneDNN, without a graph; any strides."""
    y_NO: Tensor = torch.ops.mkldnn._linear_pointwise(
        dense(x_NI), dense(weight_OI), bias_O, "none", [], ""
    )
    return y_NO


def dense(x_NI: Tensor) -> Tensor:
    """Return a matrix stored without gaps, by rows or by columns; others are slow in the library."""
    if x_NI.is_contiguous() or x_NI.t().is_contiguous():
        return x_NI
    return x_NI.contiguous()


class Linear(torch.autograd.Function):
    """``y = x W^T + b`` over rows."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """Return (N, O)."""
        ctx.save_for_backward(x_NI, weight_OI)
        return product(x_NI, weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of input, weight and bias."""
        x_NI, weight_OI = ctx.saved_tensors
        grad_NO = dense(grads[0])
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            product(grad_NO, weight_OI.t()) if wants_x else None,
            product(grad_NO.t(), x_NI.t()) if wants_weight else None,
            grad_NO.sum(0) if wants_bias else None,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """Replace ``F.linear`` for float32 on CPUs."""
    inputs, outputs = weight.shape[-1], weight.shape[0]
    if weight.ndim != 2 or x.numel() * outputs < _WORTH or not _fits(x, weight, bias):
        return NotImplemented
    y_NO = Linear.apply(x.reshape(-1, inputs), weight, bias)
    return y_NO.view(*x.shape[:-1], outputs)


def matmul(a: Tensor, b: Tensor) -> Any:
    """Replace ``a @ b`` of float32 on CPUs where ``b`` is a matrix."""
    if b.ndim != 2 or a.ndim < 2:
        return NotImplemented
    return linear(a, b.t())


def _fits(*tensors: Tensor | None) -> bool:
    return not torch.is_autocast_enabled("cpu") and all(
        t is None or (t.device.type == "cpu" and t.dtype == torch.float32 and type(t) in _PLAIN)
        for t in tensors
    )


_PLAIN = (Tensor, torch.nn.Parameter)
