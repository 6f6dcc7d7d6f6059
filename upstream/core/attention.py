"""Multi-head self-attention: trainable on padded batches, packed on ragged ones.

Source: Vaswani et al. 2017 (arXiv 1706.03762) section 3.2, every projection with a bias.

Shape suffixes: B batch, T frames, N frames of a ragged batch, D width, H heads, E width of a head,
R utterances of a run, Q a block of queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.packed_linear import PackedLinear
from mynah.upstream.core.ragged import pieces, runs

_QUERIES = 512  # rows of the score matrix held at once where attention is not fused


class Attention(nn.Module):
    """Self-attention with separate query, key, value and output projections.

    Args:
        dim: width D.
        heads: heads H, a divisor of ``dim``.
        dropout: of the attention weights, in training.
    """

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads must divide the width {dim}, got {heads}")
        self.heads = heads
        self.dropout = dropout
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        """Return (B, T, D); keys where ``valid_BT`` is false are ignored."""
        q_BHTE, k_BHTE, v_BHTE = (
            layer(x_BTD).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        y_BHTE = F.scaled_dot_product_attention(
            q_BHTE,
            k_BHTE,
            v_BHTE,
            attn_mask=None if valid_BT is None else valid_BT[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        y_BTD: Tensor = self.o(y_BHTE.transpose(1, 2).flatten(2))
        return y_BTD


class PackedAttention:
    """The same on utterances laid end to end, with fixed weights; no gradients.

    Queries, keys and values are one product over all frames; the scale is in the query weights.
    """

    def __init__(self, attention: Attention, *, dtype: torch.dtype) -> None:
        self.heads = attention.heads
        scale = (attention.q.out_features // attention.heads) ** -0.5
        weights = [attention.q.weight * scale, attention.k.weight, attention.v.weight]
        biases = [attention.q.bias * scale, attention.k.bias, attention.v.bias]
        self.qkv = PackedLinear(torch.cat(weights), torch.cat(biases), dtype=dtype)
        self.o = PackedLinear(attention.o.weight, attention.o.bias, dtype=dtype)

    def __call__(self, x_ND: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return (N, D); an utterance's frames attend to each other only."""
        qkv_NX = self.qkv(x_ND)
        y_ND = torch.empty_like(x_ND)
        for row, count, length in runs(lengths):
            rows = slice(row, row + count * length)
            shape = (count, length, self.heads, -1)
            q_RHTE, k_RHTE, v_RHTE = (
                part.view(shape).transpose(1, 2) for part in qkv_NX[rows].chunk(3, dim=1)
            )
            y_RHTE = y_ND[rows].view(shape).transpose(1, 2)
            attend(q_RHTE, k_RHTE, v_RHTE, out=y_RHTE)
        return self.o(y_ND)


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
