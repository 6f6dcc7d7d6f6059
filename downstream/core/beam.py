"""Beam search over any decoder that can be asked for the next symbol.

The search of fairseq's ``SequenceGenerator``, which scored SUPERB-SG's translation: at every step
the best 2 K continuations of K hypotheses are looked at; those of the first K that end are done, the
best K that do not end go on; an item is finished once K hypotheses are done or the longest length is
reached, where the end is forced. A hypothesis' score is its log-probability divided by its length,
the end symbol included.

Shape suffixes: B batch (items still searched), K hypotheses of each item, V symbols, U symbols so
far.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Hypothesis(NamedTuple):
    """Symbols without the end symbol, and log-probability per symbol."""

    tokens: list[int]
    score: float


class Decoder(Protocol):
    """What the search asks; it keeps the state of B x K hypotheses."""

    def step(self, tokens_BK: Tensor) -> Tensor:
        """Append a symbol to each hypothesis; return the next one's log-probabilities (B, K, V)."""

    def select(self, items_b: Tensor, parents_bK: Tensor) -> None:
        """Keep some items, and of each the hypotheses that go on (a parent may go on twice)."""


def beam_search(
    decoder: Decoder,
    *,
    batch: int,
    beam: int,
    max_len: int,
    eos: int,
    pad: int,
    min_len: int = 1,
    device: torch.device | str = "cpu",
) -> list[list[Hypothesis]]:
    """Return each item's finished hypotheses, best first; 1 to ``beam`` of them.

    Args:
        decoder: gives log-probabilities.
        batch: number of items B.
        beam: number of hypotheses K.
        max_len: most symbols of a hypothesis, the end symbol not counted.
        eos: the end symbol, with which every hypothesis starts too.
        pad: a symbol that is never chosen.
        min_len: fewest symbols, the end symbol not counted.
        device: where the decoder is.

    Raises:
        ValueError: a beam below 1, lengths out of order, a decoder that gives NaN, or one for which
            every hypothesis is impossible.
    """
    if beam < 1 or not 0 <= min_len <= max_len:
        raise ValueError(
            f"a search needs beam >= 1 and 0 <= min_len <= max_len, "
            f"got beam {beam}, min_len {min_len}, max_len {max_len}"
        )
    done: list[list[Hypothesis]] = [[] for _ in range(batch)]
    items = list(range(batch))  # of the original batch, still searched
    prefix_BKU = torch.full((batch, beam, 1), eos, device=device)
    scores_BK = torch.full((batch, beam), -math.inf, device=device)
    scores_BK[:, 0] = 0.0  # all start alike: one of them is enough
    for length in range(max_len + 1):
        logs_BKV = decoder.step(prefix_BKU[:, :, -1]).float()
        if bool(logs_BKV.isnan().any()):
            raise ValueError("the decoder's log-probabilities are NaN: its weights have diverged")
        allowed_V = torch.ones(logs_BKV.shape[2], dtype=torch.bool, device=device)
        if length == max_len:
            allowed_V[:] = False
        allowed_V[eos] = length >= min_len
        allowed_V[pad] = False
        totals_BKV = scores_BK[:, :, None] + logs_BKV.masked_fill(~allowed_V, -math.inf)
        symbols = totals_BKV.shape[2]
        best_BJ, places_BJ = totals_BKV.flatten(1).topk(beam * min(2, symbols))
        ends_BJ = places_BJ % symbols == eos
        _collect(done, items, prefix_BKU, best_BJ, places_BJ // symbols, ends_BJ)
        alive_BJ = best_BJ.masked_fill(ends_BJ, -math.inf)
        going = (alive_BJ.amax(dim=1) > -math.inf).tolist()
        kept = [row for row, item in enumerate(items) if going[row] and len(done[item]) < beam]
        if length == max_len or not kept:
            break
        items_b = torch.tensor(kept, device=device)
        items = [items[row] for row in kept]
        scores_BK, chosen_bK = alive_BJ[items_b].topk(beam)
        places_bK = places_BJ[items_b].gather(1, chosen_bK)
        parents_bK = places_bK // symbols
        decoder.select(items_b, parents_bK)
        before_bKU = prefix_BKU[items_b[:, None], parents_bK]
        prefix_BKU = torch.cat([before_bKU, (places_bK % symbols)[:, :, None]], dim=2)
    if not all(done):
        raise ValueError("no hypothesis has a probability above 0: nothing but eos and pad is left")
    return [sorted(found, key=lambda h: h.score, reverse=True) for found in done]


def _collect(
    done: list[list[Hypothesis]],
    items: list[int],
    prefix_BKU: Tensor,
    best_BJ: Tensor,
    parents_BJ: Tensor,
    ends_BJ: Tensor,
) -> None:
    """Put aside the continuations that end among each item's best K, as long as there is room."""
    beam, length = prefix_BKU.shape[1], prefix_BKU.shape[2]  # the length counts the end symbol
    ended_BK = (ends_BJ & best_BJ.isfinite())[:, :beam]
    for row, rank in ended_BK.nonzero().tolist():
        found = done[items[row]]
        if len(found) < beam:
            tokens = prefix_BKU[row, int(parents_BJ[row, rank]), 1:].tolist()
            found.append(Hypothesis(tokens, float(best_BJ[row, rank]) / length))
