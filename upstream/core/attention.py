"""Multi-head self-attention: trainable on padded batches, packed on ragged ones.

Source: Vaswani et al. 2017 (arXiv 1706.03762) section 3.2, every projection with a bias.

Two switches. A *bias* is added to the scores for the distance between two frames; WavLM multiplies
it by a gate that each head computes from its part of the layer's input. A *window* limits every
frame to the keys at most so many frames away, block by block, so that the cost is linear in the
length (truncated attention, Beltagy et al. 2020, arXiv 2004.05150).

Shape suffixes: B batch, T frames, N frames of a ragged batch, D width, H heads, E width of a head,
R utterances of a run, Q a block of queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.bias import rows as bias_rows
from mynah.upstream.core.packed_linear import PackedLinear
from mynah.upstream.core.ragged import pieces, runs

_QUERIES = 512  # rows of the score matrix held at once where attention is not fused


class Gate(nn.Module):
    """WavLM's gate of the relative bias, per head and query.

    g = a (b s - 1) + 2, where a and b are sigmoids of sums of four linear outputs each and s is
    learned per head: Chen et al. 2022 (arXiv 2110.13900) equations 4 to 7. It sees the layer's
    input before any projection.

    Args:
        dim: width D.
        heads: H.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear = nn.Linear(dim // heads, 8)
        self.scale_H = nn.Parameter(torch.ones(heads))

    def forward(self, x_XD: Tensor) -> Tensor:
        """Return (..., H) for inputs (..., D)."""
        logits = self.linear(x_XD.unflatten(-1, (self.heads, -1)))
        a, b = logits.unflatten(-1, (2, 4)).sum(dim=-1).sigmoid().unbind(dim=-1)
        gate: Tensor = a * (b * self.scale_H - 1.0) + 2.0
        return gate


class Attention(nn.Module):
    """Self-attention with separate query, key, value and output projections.

    Args:
        dim: width D.
        heads: heads H, a divisor of ``dim``.
        dropout: of the attention weights, in training.
        window: furthest key, in frames; 0 for no limit.
        gated: whether a gate multiplies the bias.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        dropout: float = 0.0,
        window: int = 0,
        gated: bool = False,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads must divide the width {dim}, got {heads}")
        self.heads = heads
        self.dropout = dropout
        self.window = window
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.gate = Gate(dim, heads) if gated else None

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """Return (B, T, D); keys where ``valid_BT`` is false are ignored.

        Args:
            x_BTD: frames.
            valid_BT: false beyond an utterance's last frame; None if none is padded.
            bias: added to the scores, (H, T, T) or (B, H, T, T); None for nothing.
        """
        layers = (self.q, self.k, self.v)
        parts = (
            at_once(x_BTD, layers) if _fuses(x_BTD, layers) else [layer(x_BTD) for layer in layers]
        )
        q_BHTE, k_BHTE, v_BHTE = (
            part_BTD.unflatten(2, (self.heads, -1)).transpose(1, 2) for part_BTD in parts
        )
        keys_B11T = None if valid_BT is None else valid_BT[:, None, None]
        mask = keys_B11T
        if bias is not None:
            if self.gate is not None:
                bias = bias * self.gate(x_BTD).transpose(1, 2)[..., None]
            mask = bias.to(q_BHTE.dtype)
            if keys_B11T is not None:
                mask = mask.masked_fill(~keys_B11T, float("-inf"))
        dropout = self.dropout if self.training else 0.0
        if self.window:
            y_BHTE = banded(q_BHTE, k_BHTE, v_BHTE, self.window, mask=mask, dropout=dropout)
        else:
            y_BHTE = F.scaled_dot_product_attention(
                q_BHTE, k_BHTE, v_BHTE, attn_mask=mask, dropout_p=dropout
            )
        y_BTD: Tensor = self.o(y_BHTE.transpose(1, 2).flatten(2))
        return y_BTD


def _fuses(x: Tensor, layers: Sequence[nn.Module]) -> bool:
    # what stands in a layer's place (an adapter, a quantised layer) has more than its weight to say
    return x.device.type == "cuda" and all(type(layer) is nn.Linear for layer in layers)


def at_once(x_BTD: Tensor, layers: Sequence[nn.Linear]) -> Sequence[Tensor]:
    """Return what several linear layers of one width make of the same input, as one product.

    For accelerators: the input is cast once, and there is one product instead of three, with two
    instead of six in the backward pass.
    """
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    return F.linear(x_BTD, weight, bias).chunk(len(layers), dim=2)


def banded(
    q_BHTE: Tensor,
    k_BHTE: Tensor,
    v_BHTE: Tensor,
    window: int,
    *,
    mask: Tensor | None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Return attention limited to keys at most ``window`` frames away, linear in T.

    A block of queries sees the keys of its own block and of a window on both sides.

    Args:
        q_BHTE: queries.
        k_BHTE: keys.
        v_BHTE: values.
        window: W, at least 1.
        mask: what else is added to the scores, or a boolean that keeps keys; its last two
            dimensions are T or 1.
        dropout: of the weights.
        scale: of the scores; None for 1 / sqrt(E).
    """
    frames = q_BHTE.shape[2]
    place_T = torch.arange(frames, device=q_BHTE.device)
    parts = []
    for start, stop in pieces(frames, size=max(window, 64)):
        low, high = max(0, start - window), min(frames, stop + window)
        near_QT = (place_T[start:stop, None] - place_T[low:high]).abs() <= window
        if mask is not None:
            part = mask[..., low:high]
            part = part if mask.shape[-2] == 1 else part[..., start:stop, :]
            if part.dtype == torch.bool:
                # a row of padding may have no valid key near it: it then sees its neighbours, for
                # a softmax over nothing is NaN, and nobody reads that row
                near_QT = (part & near_QT) | (near_QT & ~(part & near_QT).any(-1, keepdim=True))
            else:
                part = part.masked_fill(~near_QT, float("-inf"))
                none = (part == float("-inf")).all(-1, keepdim=True)
                near_QT = part.masked_fill(none, 0.0)
        parts.append(
            F.scaled_dot_product_attention(
                q_BHTE[:, :, start:stop],
                k_BHTE[:, :, low:high],
                v_BHTE[:, :, low:high],
                attn_mask=near_QT,
                dropout_p=dropout,
                scale=scale,
            )
        )
    return torch.cat(parts, dim=2)


class PackedAttention:
    """The same on utterances laid end to end, with fixed weights; no gradients.

    Queries, keys and values are one product over all frames; the scale is in the query weights.
    """

    def __init__(
        self, attention: Attention, *, dtype: torch.dtype, bias: nn.Module | None = None
    ) -> None:
        self.heads = attention.heads
        self.window = attention.window
        scale = (attention.q.out_features // attention.heads) ** -0.5
        weights = [attention.q.weight * scale, attention.k.weight, attention.v.weight]
        biases = [attention.q.bias * scale, attention.k.bias, attention.v.bias]
        self.qkv = PackedLinear(torch.cat(weights), torch.cat(biases), dtype=dtype)
        self.o = PackedLinear(attention.o.weight, attention.o.bias, dtype=dtype)
        self.bias = bias
        self.gate = attention.gate

    def __call__(self, x_ND: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return (N, D); an utterance's frames attend to each other only."""
        qkv_NX = self.qkv(x_ND)
        y_ND = torch.empty_like(x_ND)
        gate_NH = None if self.gate is None else self.gate(x_ND.float())
        for row, count, length in runs(lengths):
            rows = slice(row, row + count * length)
            shape = (count, length, self.heads, -1)
            q_RHTE, k_RHTE, v_RHTE = (
                part.view(shape).transpose(1, 2) for part in qkv_NX[rows].chunk(3, dim=1)
            )
            y_RHTE = y_ND[rows].view(shape).transpose(1, 2)
            if self.bias is not None:
                gate_RHT = None
                if gate_NH is not None:
                    gate_RHT = gate_NH[rows].view(count, length, -1).transpose(1, 2)
                table_HX = self._table(length, x_ND.device)
                attend_biased(
                    q_RHTE, k_RHTE, v_RHTE, table_HX, gate_RHT, window=self.window, out=y_RHTE
                )
            elif self.window and self.window < length - 1:
                y_RHTE.copy_(banded(q_RHTE, k_RHTE, v_RHTE, self.window, mask=None, scale=1.0))
            else:
                attend(q_RHTE, k_RHTE, v_RHTE, out=y_RHTE)
        return self.o(y_ND)

    def _table(self, frames: int, device: torch.device) -> Tensor:
        assert self.bias is not None
        table_HX: Tensor = self.bias(torch.arange(1 - frames, frames, device=device))
        return table_HX


def attend_biased(
    q_RHTE: Tensor,
    k_RHTE: Tensor,
    v_RHTE: Tensor,
    table_HX: Tensor,
    gate_RHT: Tensor | None,
    *,
    window: int,
    out: Tensor,
) -> None:
    """Write softmax(q k^T + gate * bias) v into ``out`` (R, H, T, E), a block of queries at a time.

    Args:
        q_RHTE: scaled queries.
        k_RHTE: keys.
        v_RHTE: values.
        table_HX: bias of the distances 1 - T ... T - 1.
        gate_RHT: factor of each query's biases, or None.
        window: furthest key, 0 for no limit.
        out: destination.
    """
    frames = q_RHTE.shape[2]
    for start, stop in pieces(frames, size=_QUERIES):
        bias = bias_rows(table_HX, start, stop, frames)
        if gate_RHT is not None:
            bias = bias * gate_RHT[:, :, start:stop, None]
        scores_RHQT = torch.matmul(q_RHTE[:, :, start:stop], k_RHTE.transpose(2, 3)).float() + bias
        if window:
            place_T = torch.arange(frames, device=out.device)
            far_QT = (place_T[start:stop, None] - place_T).abs() > window
            scores_RHQT = scores_RHQT.masked_fill(far_QT, float("-inf"))
        out[:, :, start:stop] = torch.matmul(scores_RHQT.softmax(dim=-1).to(v_RHTE.dtype), v_RHTE)


def attend(q_RHTE: Tensor, k_RHTE: Tensor, v_RHTE: Tensor, *, out: Tensor) -> None:
    """Write softmax(q k^T) v into ``out`` (R, H, T, E); memory is linear in T.

    The fused kernel is the faster one except for bfloat16 on CPUs, where two plain products and a
    softmax, a block of queries at a time, beat it.
    """
    if q_RHTE.dtype != torch.bfloat16 or q_RHTE.device.type != "cpu":
        out.copy_(F.scaled_dot_product_attention(q_RHTE, k_RHTE, v_RHTE, scale=1.0))
        return
    k_RHET = k_RHTE.transpose(2, 3)
    for start, stop in pieces(q_RHTE.shape[2], size=_QUERIES):
        scores_RHQT = torch.matmul(q_RHTE[:, :, start:stop], k_RHET)
        out[:, :, start:stop] = torch.matmul(scores_RHQT.softmax(dim=-1), v_RHTE)
