"""Transformer layers of an encoder-decoder: pre-norm, with keys and values that can be kept.

The layers of fairseq's ``s2t_transformer``: ``x + dropout(f(norm(x)))`` for every block f, ReLU with
dropout in the feed-forward block, dropout on attention weights, sinusoidal positions. Teacher
forcing runs a decoder layer over whole targets (:meth:`DecoderLayer.forward`); a search runs it
symbol by symbol over kept keys and values (:meth:`DecoderLayer.step`).

Shape suffixes: B batch, Q queries, T encoder frames, U target symbols, D width, H heads, E width of
one head, V symbols, K hypotheses, N = B * K.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIRST_POSITION = 2  # fairseq counts positions from its padding index + 1

KeyValues = tuple[Tensor, Tensor]  # (B, H, T, E) each


def sinusoids(start: int, count: int, width: int, like: Tensor) -> Tensor:
    """Return the encodings of ``count`` positions from ``start`` (0 is the first), (count, D).

    Sines in the first half, cosines in the second, wavelengths geometric from 2 pi to 10 000 * 2 pi
    (tensor2tensor's form, which fairseq uses).
    """
    places = torch.arange(count, dtype=torch.float32, device=like.device) + FIRST_POSITION + start
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=like.device)
    angles = places[:, None] * torch.exp(steps * (-math.log(10000) / (half - 1)))
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(like.dtype)


def teacher_forcing(
    targets: Sequence[Sequence[int]], *, eos: int = 2, pad: int = 1
) -> tuple[Tensor, Tensor]:
    """Return what the decoder is given and what it must answer, (B, U) each.

    ``[a, b]`` becomes ``[eos, a, b]`` and ``[a, b, eos]``, padded on the right.
    """
    longest = max(len(target) for target in targets) + 1
    shape = (len(targets), longest)
    previous_BU, answers_BU = torch.full(shape, pad), torch.full(shape, pad)
    for b, target in enumerate(targets):
        symbols = torch.tensor([eos, *target, eos])
        previous_BU[b, : len(symbols) - 1] = symbols[:-1]
        answers_BU[b, : len(symbols) - 1] = symbols[1:]
    return previous_BU, answers_BU


class Attention(nn.Module):
    """Multi-head attention over keys and values that :meth:`project` made.

    Args:
        width: D.
        heads: H, a divisor of D.
        dropout: on attention weights.

    Raises:
        ValueError: heads that do not divide the width.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads = heads
        self.dropout = dropout
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        for part in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(part.weight, gain=1 / math.sqrt(2))
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def project(self, x_BTD: Tensor) -> KeyValues:
        """Return keys and values (B, H, T, E)."""
        return self._split(self.key(x_BTD)), self._split(self.value(x_BTD))

    def forward(
        self,
        x_BQD: Tensor,
        kept: KeyValues,
        *,
        mask_BT: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Return (B, Q, D).

        Args:
            x_BQD: what asks.
            kept: keys and values.
            mask_BT: true at keys that may be seen; None for all.
            causal: query i sees keys 0 to i.
        """
        keys_BHTE, values_BHTE = kept
        seen_BHQE = F.scaled_dot_product_attention(
            self._split(self.query(x_BQD)),
            keys_BHTE,
            values_BHTE,
            attn_mask=None if mask_BT is None else mask_BT[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        out_BQD: Tensor = self.out(seen_BHQE.transpose(1, 2).flatten(2))
        return out_BQD

    def _split(self, x_BTD: Tensor) -> Tensor:
        batch, frames, _ = x_BTD.shape
        return x_BTD.view(batch, frames, self.heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """Linear, ReLU, Linear.

    Args:
        width: D.
        inner: width between the two.
        dropout: after the ReLU.
    """

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return (B, T, D)."""
        out_BTD: Tensor = self.second(self.dropout(F.relu(self.first(x_BTD))))
        return out_BTD


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward.

    Args:
        width: D.
        heads: H.
        inner: width inside the feed-forward block.
        dropout: everywhere.
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, inner, dropout)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Return (B, T, D); ``mask_BT`` is true at frames that exist."""
        y_BTD = self.attention_norm(x_BTD)
        y_BTD = self.attention(y_BTD, self.attention.project(y_BTD), mask_BT=mask_BT)
        x_BTD = x_BTD + self.dropout(y_BTD)
        out_BTD: Tensor = x_BTD + self.dropout(self.feed_forward(self.feed_forward_norm(x_BTD)))
        return out_BTD


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder, feed-forward.

    Args:
        width: D.
        heads: H.
        inner: width inside the feed-forward block.
        dropout: everywhere.
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.across = Attention(width, heads, dropout)
        self.across_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, inner, dropout)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BUD: Tensor, memory: KeyValues, mask_BT: Tensor) -> Tensor:
        """Return (B, U, D) of whole targets.

        Args:
            x_BUD: the targets so far.
            memory: ``across.project`` of what the encoder made.
            mask_BT: true at encoder frames that exist.
        """
        y_BUD = self.attention_norm(x_BUD)
        y_BUD = self.attention(y_BUD, self.attention.project(y_BUD), causal=True)
        return self._rest(x_BUD + self.dropout(y_BUD), memory, mask_BT)

    def step(
        self, x_BKD: Tensor, past: KeyValues | None, memory: KeyValues, mask_BT: Tensor
    ) -> tuple[Tensor, KeyValues]:
        """Return (B, K, D) of one more symbol of K hypotheses for each item, and the longer past.

        All hypotheses of an item look at the same encoder frames, which are kept once.

        Args:
            x_BKD: the newest symbol of each hypothesis.
            past: keys and values (N, H, U, E) of the symbols before it; None for none.
            memory: as in :meth:`forward`.
            mask_BT: as in :meth:`forward`.
        """
        y_N1D = self.attention_norm(x_BKD).flatten(0, 1)[:, None]
        new = self.attention.project(y_N1D)
        if past is not None:
            new = (torch.cat([past[0], new[0]], dim=2), torch.cat([past[1], new[1]], dim=2))
        y_BKD = self.attention(y_N1D, new).view_as(x_BKD)
        return self._rest(x_BKD + self.dropout(y_BKD), memory, mask_BT), new

    def _rest(self, x_BUD: Tensor, memory: KeyValues, mask_BT: Tensor) -> Tensor:
        y_BUD = self.across(self.across_norm(x_BUD), memory, mask_BT=mask_BT)
        x_BUD = x_BUD + self.dropout(y_BUD)
        out_BUD: Tensor = x_BUD + self.dropout(self.feed_forward(self.feed_forward_norm(x_BUD)))
        return out_BUD
