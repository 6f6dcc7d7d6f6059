"""K linear layers at once, with gradients in the layout that their parameters have.

``vmap`` over ``nn.Linear`` gives the same numbers, but its weight gradients come out transposed and
are copied at every step, which costs as much as the products.

Shape suffixes: K heads, N rows, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _BatchedLinear(torch.autograd.Function):
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
    out_KNO: Tensor = _BatchedLinear.apply(x_KNI, weight_KOI, bias_KO)
    return out_KNO
