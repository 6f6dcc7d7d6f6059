"""K heads of two linear layers at once.

Linear, Linear with nothing between them is one linear map, ``W2 W1``. Training keeps the two
factors (their product has other gradients), but computing through the product is the same function
with the same gradients, and for few outputs a fraction of the work: ``rows x outputs x width``
instead of ``rows x 256 x (width + outputs)``.

Shape suffixes: K heads, N rows, I inputs, P projection, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class _BatchedLinear(torch.autograd.Function):
    """``x W^T + b`` per head; weight gradients come in the layout that the weights have.

    (``vmap`` over ``nn.Linear`` gives the same numbers, but its weight gradients are transposed
    and are copied at every step, which costs as much as the products.)
    """

    @staticmethod
    def forward(ctx: Any, x_KNI: Tensor, weight_KOI: Tensor, bias_KO: Tensor) -> Tensor:
        ctx.save_for_backward(x_KNI, weight_KOI)
        return torch.baddbmm(bias_KO[:, None], x_KNI, weight_KOI.mT)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad_KNO,) = grads
        x_KNI, weight_KOI = ctx.saved_tensors
        grad_x = torch.bmm(grad_KNO, weight_KOI) if ctx.needs_input_grad[0] else None
        return grad_x, torch.bmm(grad_KNO.mT, x_KNI), grad_KNO.sum(dim=1)


def batched_linear(x_KNI: Tensor, weight_KOI: Tensor, bias_KO: Tensor) -> Tensor:
    """Return (K, N, O): head k's ``x W^T + b`` for every k."""
    heads, rows, _ = x_KNI.shape
    if x_KNI.stride(0) == 0 and heads > 1:  # the same rows for every head: one product
        flat = torch.addmm(bias_KO.flatten(), x_KNI[0], weight_KOI.flatten(0, 1).T)
        return flat.view(rows, heads, -1).transpose(0, 1)
    out_KNO: Tensor = _BatchedLinear.apply(x_KNI, weight_KOI, bias_KO)
    return out_KNO


def linear_pair(params: Mapping[str, Tensor], x_KNI: Tensor) -> Tensor:
    """Return (K, N, O): projector and classifier of every head, by the cheaper of the two ways.

    Args:
        params: ``projector.weight`` (K, P, I), ``projector.bias`` (K, P), ``classifier.weight``
            (K, O, P), ``classifier.bias`` (K, O).
        x_KNI: rows of features; a first dimension that is expanded is one set of rows for all.
    """
    first_KPI, first_KP = params["projector.weight"], params["projector.bias"]
    second_KOP, second_KO = params["classifier.weight"], params["classifier.bias"]
    rows, (_, width, inputs), outputs = x_KNI.shape[1], first_KPI.shape, second_KOP.shape[1]
    merged = outputs * inputs * (rows + width)
    if merged >= rows * width * (inputs + outputs):
        return batched_linear(batched_linear(x_KNI, first_KPI, first_KP), second_KOP, second_KO)
    weight_KOI = torch.bmm(second_KOP, first_KPI)
    bias_KO = torch.bmm(second_KOP, first_KP[:, :, None])[:, :, 0] + second_KO
    return batched_linear(x_KNI, weight_KOI, bias_KO)
