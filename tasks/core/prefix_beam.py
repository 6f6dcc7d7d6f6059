"""CTC prefix beam search: the most probable symbol sequences, summed over their alignments.

The best path (greedy decoding) is the most probable alignment; a sequence may have many of which
none is the best. This search keeps the most probable prefixes and, for each, the probability of
its alignments that end in a blank and of those that end in its last symbol (Graves et al. 2006,
section 3.2; Hannun et al. 2014, arXiv:1408.2873, algorithm 1 without a language model). With a beam
as wide as there are prefixes it is exact.

Shape suffixes: T frames, V symbols, W prefixes of the beam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mynah.tasks.core.ctc import BLANK

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A symbol sequence.

    Attributes:
        symbols: without blanks.
        log_prob: natural logarithm of the probability of its alignments that the beam kept: never
            above that of all of them.
    """

    symbols: tuple[int, ...]
    log_prob: float


class _Prefixes:
    """All prefixes that were ever in the beam, as a tree: each is a number."""

    def __init__(self) -> None:
        self.parent = [-1]
        self.last = [BLANK]  # the empty prefix ends in nothing that can be repeated
        self._child: dict[tuple[int, int], int] = {}

    def extended(self, prefix: int, symbol: int) -> int:
        """Return the number of a prefix and one more symbol."""
        number = self._child.setdefault((prefix, symbol), len(self.parent))
        if number == len(self.parent):
            self.parent.append(prefix)
            self.last.append(symbol)
        return number

    def symbols(self, prefix: int) -> tuple[int, ...]:
        """Return the symbols of a prefix."""
        found = []
        while prefix:
            found.append(self.last[prefix])
            prefix = self.parent[prefix]
        return tuple(reversed(found))


def prefix_beam(log_probs_TV: Floats, *, beam: int = 16, nbest: int = 1) -> list[Hypothesis]:
    """Return the most probable symbol sequences, best first.

    Args:
        log_probs_TV: log-probabilities of the symbols at each frame, the blank (0) among them: each
            frame's sum to one. A torch tensor: ``logits_TV.log_softmax(-1).double().numpy()``.
        beam: prefixes that are kept from frame to frame.
        nbest: sequences to return, fewer where there are not as many.

    Raises:
        ValueError: not frames of symbols that sum to one, NaN among them, or a beam or number of
            sequences below 1.
    """
    if beam < 1 or nbest < 1:
        raise ValueError(f"beam and nbest must be at least 1, got {beam} and {nbest}")
    log_probs_TV = np.asarray(log_probs_TV, dtype=np.float64)
    if log_probs_TV.ndim != 2 or log_probs_TV.shape[1] < 2:
        raise ValueError(f"wanted frames x symbols, the blank among them: {log_probs_TV.shape}")
    with np.errstate(invalid="ignore"):
        sums_T = np.exp(log_probs_TV).sum(axis=1)
    if not np.allclose(sums_T, 1, atol=1e-3):
        raise ValueError(
            "log-probabilities of a frame must sum to one (log_softmax first), got "
            f"{sums_T.min():.3g} to {sums_T.max():.3g}"
        )
    tree = _Prefixes()
    prefixes_W = np.zeros(1, dtype=np.int64)
    blank_W, symbol_W = np.zeros(1), np.full(1, -np.inf)  # log-probability by how alignments end
    for frame_V in log_probs_TV:
        prefixes_W, blank_W, symbol_W = _step(tree, prefixes_W, blank_W, symbol_W, frame_V, beam)
    total_W = np.logaddexp(blank_W, symbol_W)
    order = np.argsort(-total_W, kind="stable")[:nbest]
    return [
        Hypothesis(symbols=tree.symbols(int(prefixes_W[i])), log_prob=float(total_W[i]))
        for i in order
        if total_W[i] > -np.inf
    ]


def _step(
    tree: _Prefixes,
    prefixes_W: NDArray[np.int64],
    blank_W: Floats,
    symbol_W: Floats,
    frame_V: Floats,
    beam: int,
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return the best prefixes after one more frame, and their two log-probabilities."""
    rows = np.arange(len(prefixes_W))
    last_W = np.array([tree.last[p] for p in prefixes_W])
    total_W = np.logaddexp(blank_W, symbol_W)
    # a prefix stays as it is by a blank, or by its last symbol once more
    stay_blank_W = total_W + frame_V[BLANK]
    stay_symbol_W = np.where(last_W == BLANK, -np.inf, symbol_W + frame_V[last_W])
    # it grows by a symbol; by its last one only where a blank stands between the two
    grown_WV = total_W[:, None] + frame_V
    grown_WV[rows, last_W] = blank_W + frame_V[last_W]
    grown_WV[:, BLANK] = -np.inf
    at = {int(p): row for row, p in enumerate(prefixes_W)}
    for row, prefix in enumerate(prefixes_W):
        parent = at.get(tree.parent[prefix])
        if parent is not None:  # what its parent grows into is in the beam already
            grown = grown_WV[parent, last_W[row]]
            stay_symbol_W[row] = np.logaddexp(stay_symbol_W[row], grown)
            grown_WV[parent, last_W[row]] = -np.inf
    scores = np.concatenate([np.logaddexp(stay_blank_W, stay_symbol_W), grown_WV.ravel()])
    best = np.argsort(-scores, kind="stable")[:beam]
    best = best[scores[best] > -np.inf]
    stays = best[best < len(rows)]
    from_W, by_W = np.divmod(best[best >= len(rows)] - len(rows), len(frame_V))
    new = [tree.extended(int(prefixes_W[i]), int(s)) for i, s in zip(from_W, by_W, strict=True)]
    return (
        np.concatenate([prefixes_W[stays], np.array(new, dtype=np.int64)]),
        np.concatenate([stay_blank_W[stays], np.full(len(new), -np.inf)]),
        np.concatenate([stay_symbol_W[stays], grown_WV[from_W, by_W]]),
    )
