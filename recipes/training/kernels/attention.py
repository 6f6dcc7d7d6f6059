"""Attention with dropout, masks and biases on CPUs, one head and a block of queries at a time.

A block's scores stay in cache through softmax, dropout and both products. For the backward pass the
weights are kept before and after dropout, which is less than torch keeps and spares the mask: with
p the one, p' the other and g the gradient of p', that of the scores is g p' - p sum(g p').

Shape suffixes: B batch, H heads, T queries, S keys, E width of a head, Q a block of queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mynah.recipes.training.kernels.dropout import Drops
from mynah.recipes.training.kernels.linear import product

_SCORES = 1 << 17  # of a block: half a megabyte


def _blocks(shape: torch.Size, keys: int) -> Iterator[tuple[int, int, slice]]:
    batch, heads, queries, _ = shape
    size = max(16, _SCORES // keys)
    for b in range(batch):
        for h in range(heads):
            for start in range(0, queries, size):
                yield b, h, slice(start, min(queries, start + size))


def _part(mask_BHTS: Tensor, b: int, h: int, rows: slice) -> Tensor:
    """Return the part (Q or 1, S or 1) of a mask that belongs to a block; sizes of 1 broadcast."""
    part_HTS = mask_BHTS[b if mask_BHTS.shape[0] > 1 else 0]
    part_TS = part_HTS[h if part_HTS.shape[0] > 1 else 0]
    return part_TS[rows] if part_TS.shape[0] > 1 else part_TS


class Attention(torch.autograd.Function):
    """``dropout(softmax(scale q k^T + mask)) v``."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BHTE: Tensor,
        k_BHSE: Tensor,
        v_BHSE: Tensor,
        mask_BHTS: Tensor | None,
        p: float,
        scale: float,
    ) -> Tensor:
        """Return (B, H, T, E), laid out as (B, T, H, E)."""
        batch, heads, queries, width = q_BHTE.shape
        drops = Drops(p) if p else None
        q_BHTE = (q_BHTE * scale).contiguous()
        k_BHSE = k_BHSE.contiguous()
        v_BHSE = (v_BHSE * (drops.scale if drops else 1.0)).contiguous()
        y_BTHE = q_BHTE.new_empty(batch, queries, heads, width)
        p_BHTS = q_BHTE.new_empty(batch, heads, queries, k_BHSE.shape[2])
        left_BHTS = torch.empty_like(p_BHTS) if drops else p_BHTS  # by dropout
        for b, h, rows in _blocks(q_BHTE.shape, k_BHSE.shape[2]):
            scores_QS = product(q_BHTE[b, h, rows], k_BHSE[b, h])
            if mask_BHTS is not None:
                scores_QS += _part(mask_BHTS, b, h, rows)
            torch.softmax(scores_QS, dim=-1, out=p_BHTS[b, h, rows])
            if drops:
                keep_QS = drops.keep(scores_QS.shape)
                torch.mul(p_BHTS[b, h, rows], keep_QS, out=left_BHTS[b, h, rows])
            y_BTHE[b, rows, h] = product(left_BHTS[b, h, rows], v_BHSE[b, h].t())
        ctx.save_for_backward(q_BHTE, k_BHSE, v_BHSE, p_BHTS, left_BHTS, mask_BHTS)
        ctx.scale, ctx.gain = scale, drops.scale if drops else 1.0
        return y_BTHE.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of queries, keys, values and mask."""
        q_BHTE, k_BHSE, v_BHSE, p_BHTS, left_BHTS, mask_BHTS = ctx.saved_tensors
        grad_BHTE = grads[0].contiguous()
        dq_BHTE = torch.empty_like(q_BHTE)
        # transposed: so the library is faster
        dk_BHES = torch.zeros_like(k_BHSE.transpose(2, 3), memory_format=torch.contiguous_format)
        dv_BHES = torch.zeros_like(dk_BHES)
        dmask_BHTS = torch.zeros_like(mask_BHTS) if ctx.needs_input_grad[3] else None
        for b, h, rows in _blocks(q_BHTE.shape, k_BHSE.shape[2]):
            q_QE, grad_QE, left_QS = (
                q_BHTE[b, h, rows],
                grad_BHTE[b, h, rows],
                left_BHTS[b, h, rows],
            )
            ds_QS = product(grad_QE, v_BHSE[b, h]).mul_(left_QS)
            ds_QS.addcmul_(p_BHTS[b, h, rows], ds_QS.sum(-1, keepdim=True), value=-1.0)
            dv_BHES[b, h] += product(grad_QE.t(), left_QS.t())
            dq_BHTE[b, h, rows] = product(ds_QS, k_BHSE[b, h].t())
            dk_BHES[b, h] += product(q_QE.t(), ds_QS.t())
            if dmask_BHTS is not None:
                # a view: what is written into it is written into the gradient
                _part(dmask_BHTS, b, h, rows).add_(ds_QS)
        dq_BHTE *= ctx.scale
        dv_BHES *= ctx.gain
        return dq_BHTE, dk_BHES.transpose(2, 3), dv_BHES.transpose(2, 3), dmask_BHTS, None, None


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Replace ``F.scaled_dot_product_attention`` for four-dimensional tensors on CPUs."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    if (
        is_causal
        or enable_gqa
        or query.ndim != 4
        or query.device.type != "cpu"
        or dtype not in (torch.float32, torch.bfloat16)
        or not 0.0 <= dropout_p < 1.0
        or not query.shape[:2] == key.shape[:2] == value.shape[:2]
        or query.shape[3] != value.shape[3]
    ):
        return NotImplemented
    mask = attn_mask
    if mask is not None:
        if mask.dtype == torch.bool:
            # not -inf: a row of padding without any key would become NaN
            bias = torch.zeros(mask.shape, dtype=dtype)
            mask = bias.masked_fill_(~mask, torch.finfo(dtype).min / 2)
        mask = mask.to(dtype)
        mask = mask.view(*[1] * (4 - mask.ndim), *mask.shape)
        if mask.requires_grad and mask.shape[2:] != (query.shape[2], key.shape[2]):
            return NotImplemented
    q, k, v = (x.to(dtype) for x in (query, key, value))
    with torch.autocast("cpu", enabled=False):
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        return Attention.apply(q, k, v, mask, dropout_p, scale)
