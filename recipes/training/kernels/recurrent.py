"""A GRU layer whose backward pass is a few products over all time steps.

torch's own backward pass on CPUs adds a weight gradient per time step to the sum, which takes nearly
all of the time. Here a step only multiplies what flows back by the recurrent weights; factors of
the gates are computed for all steps at once before, the weight gradient in one product after.

r = sigmoid(i_r + h_r), z = sigmoid(i_z + h_z), n = tanh(i_n + r h_n), h' = (1 - z) n + z h, where
i is the input's share (with its bias) and h_. the state's. Cho et al. 2014 (arXiv 1406.1078) as
torch computes it.

Shape suffixes: T time steps, B batch, I inputs, H units, X = 3 H gates in the order r, z, n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mynah.recipes.training.kernels.linear import linear, product


class _Recurrent:
    """One step's product with a weight that is laid out for the library once."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, dtype: torch.dtype, rows: int):
        self.dtype = dtype
        self.bias_O = None if bias_O is None else bias_O.to(dtype)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(
            weight_OI.to(dtype).contiguous(), rows
        )

    def __call__(self, x_BI: Tensor) -> Tensor:
        """Return float32 (B, O)."""
        y_BO: Tensor = torch.ops.mkldnn._linear_pointwise(
            x_BI.to(self.dtype), self.packed, self.bias_O, "none", [], ""
        )
        return y_BO.float()


class Gru(torch.autograd.Function):
    """The recurrent part of a layer in one direction."""

    @staticmethod
    def forward(
        ctx: Any, input_TBX: Tensor, h_BH: Tensor, weight_XH: Tensor, bias_X: Tensor, dtype: Any
    ) -> Tensor:
        """Return the states (T, B, H), float32."""
        steps, batch, gates = input_TBX.shape
        units = gates // 3
        recur = _Recurrent(weight_XH, bias_X, dtype, batch)
        y_TBH = input_TBX.new_empty(steps, batch, units)
        rz_TBX = input_TBX.new_empty(steps, batch, 2 * units)
        n_TBH, hidden_TBH = torch.empty_like(y_TBH), torch.empty_like(y_TBH)
        state_BH = h_BH
        for input_BX, y_BH, rz_BX, n_BH, hidden_BH in zip(
            input_TBX, y_TBH, rz_TBX, n_TBH, hidden_TBH, strict=True
        ):
            share_BX = recur(state_BH)
            hidden_BH.copy_(share_BX[:, 2 * units :])
            torch.add(input_BX[:, : 2 * units], share_BX[:, : 2 * units], out=rz_BX).sigmoid_()
            torch.addcmul(input_BX[:, 2 * units :], rz_BX[:, :units], hidden_BH, out=n_BH).tanh_()
            state_BH = torch.lerp(n_BH, state_BH, rz_BX[:, units:], out=y_BH)
        ctx.save_for_backward(h_BH, weight_XH, y_TBH, rz_TBX, n_TBH, hidden_TBH)
        ctx.dtype = dtype
        return y_TBH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of input share, first state, weight and bias."""
        h_BH, weight_XH, y_TBH, rz_TBX, n_TBH, hidden_TBH = ctx.saved_tensors
        grad_TBH = grads[0]
        steps, batch, units = y_TBH.shape
        r_TBH, z_TBH = rz_TBX.split(units, dim=2)
        before_TBH = torch.cat([h_BH[None], y_TBH[:-1]])
        # d h' / d (before the nonlinearity), for n, z, and r; then n's by way of the state
        new_TBH = (1 - z_TBH) * (1 - n_TBH.square())
        factor_TB3H = torch.stack(
            [
                new_TBH * hidden_TBH * r_TBH * (1 - r_TBH),
                (before_TBH - n_TBH) * z_TBH * (1 - z_TBH),
                new_TBH * r_TBH,
            ],
            dim=2,
        )
        recur = _Recurrent(weight_XH.t(), None, ctx.dtype, batch)
        back_TB3H = torch.empty_like(factor_TB3H)
        total_TBH = torch.empty_like(y_TBH)
        flow_BH = torch.zeros_like(h_BH)
        for t in reversed(range(steps)):
            total_BH = torch.add(grad_TBH[t], flow_BH, out=total_TBH[t])
            back_B3H = torch.mul(total_BH[:, None], factor_TB3H[t], out=back_TB3H[t])
            flow_BH = recur(back_B3H.view(batch, -1)).addcmul_(total_BH, z_TBH[t])
        back_NX = back_TB3H.view(steps * batch, -1)
        dweight_XH = product(back_NX.t(), before_TBH.view(steps * batch, units).t())
        dbias_X = back_NX.sum(0)
        back_TB3H[:, :, 2] = total_TBH * new_TBH  # the input's share of n is not gated by r
        return back_TB3H.view(steps, batch, -1), flow_BH, dweight_XH, dbias_X, None


def gru(*args: Any) -> Any:
    """Replace ``torch.gru`` for padded float input on CPUs: any layers, one direction.

    Args:
        args: input, first states, weights, whether they have biases, layers, dropout between
            layers, training, bidirectional, batch first; as ``nn.GRU`` gives them.
    """
    if len(args) != 9 or not isinstance(args[2], Sequence):
        return NotImplemented  # packed sequences
    x, h_LBH, weights, biases, layers, dropout, training, both_ways, batch_first = args
    between = training and dropout > 0 and layers > 1
    if not biases or both_ways or between or x.device.type != "cpu" or len(weights) != 4 * layers:
        return NotImplemented
    if x.ndim != 3 or weights[0].dtype != torch.float32:
        return NotImplemented
    mixed = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if mixed else torch.float32
    x_TBI = x.transpose(0, 1) if batch_first else x
    last = []
    for layer in range(layers):
        w_input, w_state, b_input, b_state = weights[4 * layer : 4 * layer + 4]
        share = linear(x_TBI, w_input, b_input)
        if share is NotImplemented:
            share = F.linear(x_TBI, w_input, b_input)
        x_TBI = Gru.apply(share.float().contiguous(), h_LBH[layer].float(), w_state, b_state, dtype)
        last.append(x_TBI[-1])
    y = x_TBI.transpose(0, 1) if batch_first else x_TBI
    return y, torch.stack(last)
