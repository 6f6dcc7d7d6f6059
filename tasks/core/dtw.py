"""Subsequence DTW of spoken queries against documents, all documents at once.

SUPERB's query by example has no training: a document is scored by how cheaply the query can be
aligned to *some part* of it (s3prl ``downstream/quesst14_dtw/expert.py``, dtw-python):

1. distances between all frames of query and document, by default exp(1 - cosine) - 1;
2. each row (one frame of the query) is scaled to [0, 1] over the frames of the document. A row
   whose distances are all equal becomes zeros, so that frame costs nothing anywhere (s3prl divides
   by at least 1e-9, which is the same for equal values);
3. dtw-python's step pattern ``asymmetric`` with open begin and open end: one frame of the query at
   a time, and 0, 1 or 2 of the document,
   ``cost[i, j] = d[i, j] + min(cost[i-1, j], cost[i-1, j-1], cost[i-1, j-2])``, from any frame,
   to any frame;
4. score = -(least cost in the last row) / (frames of the query). A query of fewer than 5 frames
   scores 0 everywhere.

The pattern never moves along the document only, so a row depends on the row before it alone: one
pass over the rows of the queries aligns a block of queries with a block of documents, in five
operations a row, whose operands a core's own cache holds; only the products of a block and the
extremes of its rows are computed for the whole block (:mod:`mynah.tasks.core.frame_distances`).
Documents of a block are padded *by repeating their last frame*, which changes no score (but for
rounding): the extremes of a row stay the same, and a path through copies costs what the path that
stays on the last frame costs. Rows of a block of queries are ordered by (frame, query), longest
query first, so that the queries that still run are always the first ones.

Shape suffixes: L layers, Q queries, N documents, B documents of a block, R rows (frames of the
queries of a block), T frames of a document, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import get_args

import torch
from torch import Tensor

from mynah.tasks.core.frame_distances import (
    Distance,
    compared,
    distances,
    prepare,
    scaling,
    unscaled,
)

SHORTEST = 5  # frames; shorter queries are not compared
PADDING = 1.05  # a block's frames with padding over those without, at most
# rows and columns of the distances that are held at once: what a processor core is fastest with,
# and what keeps a large GPU busy (half a gigabyte)
SIZES = {"cpu": (2048, 1700), "cuda": (8192, 16384)}
HELD = 65536  # frames of documents, all layers counted, that are read before they are compared


@dataclass(frozen=True, kw_only=True)
class _Queries:
    """A block of queries, longest first.

    Attributes:
        places: their numbers among all queries.
        lengths: frames of each, falling.
        active: how many are at least i + 1 frames long, for each frame i.
        x_LRD: their frames, ordered by (frame, query).
    """

    places: list[int]
    lengths: list[int]
    active: list[int]
    x_LRD: Tensor


@torch.no_grad()
def match(
    queries: Sequence[Tensor],
    docs: Iterable[Tensor],
    *,
    distance: Distance = "cosine_exp",
    minmax: bool = True,
    sizes: tuple[int, int] | None = None,
    held: int = HELD,
) -> Tensor:
    """Return the score of every query in every document; see the top of this module.

    Everything is computed where the queries are, in their type, float32 at least. In float32 the
    distances carry rounding errors of about 1e-7, so a row whose range is below 1e-6 of its scale is
    taken to be constant; scores of normalised features of 5 dimensions or more are within 1e-6 of
    dtw-python's. float64 follows the protocol's arithmetic to the last digits.

    Args:
        queries: (Tq, D) each, or (L, Tq, D) for all layers at once; kept in memory.
        docs: (T, D) or (L, T, D) each, read once, a block at a time; documents of similar length
            side by side waste least.
        distance: between frames. ``cosine_neg_log`` is for posteriors: it needs positive products.
        minmax: whether rows are scaled to [0, 1].
        sizes: rows and columns of the distances held at once; None takes the device's.
        held: frames of documents, all layers counted, that are held at once; a longer document is
            held alone.

    Returns:
        (Q, N), or (L, Q, N) where the features have layers; 0 is best where ``minmax`` is set.

    Raises:
        ValueError: no queries or documents, a document without frames, shapes that differ, an
            unknown distance, values that are not finite, or a distance that is not defined for
            these frames (cosine of a frame of zeros; logarithm of a product that is not positive).
    """
    if distance not in get_args(Distance):
        raise ValueError(f"unknown distance {distance!r}: one of {', '.join(get_args(Distance))}")
    if not queries:
        raise ValueError("no queries to look for")
    first = queries[0]
    kind = torch.promote_types(first.dtype, torch.float32)
    rows, columns = sizes or SIZES.get(first.device.type, SIZES["cpu"])
    if min(rows, columns, held) < 1:
        raise ValueError(f"sizes and held must be at least 1, got {sizes} and {held}")
    layered = first.ndim == 3
    x_queries = [
        _checked(query, first, f"query {place}").to(first.device, kind)
        for place, query in enumerate(queries)
    ]
    blocks = list(_query_blocks(x_queries, rows, distance))
    most_rows = max((block.x_LRD.shape[1] for block in blocks), default=0)
    parts: list[Tensor] = []
    # kept: fresh memory costs a tenth of the time
    space = docs_space = torch.empty(0, dtype=kind, device=first.device)
    for held_docs in _held(docs, first, held):
        scores_LQN = torch.zeros(
            len(x_queries[0]), len(queries), len(held_docs), dtype=kind, device=first.device
        )
        most = max(columns, *(doc.shape[1] for doc in held_docs))
        docs_space = _enough(docs_space, most * first[..., :1, :].numel())
        for places, docs_LBTD in _doc_blocks(held_docs, columns, docs_space, distance):
            space = _enough(space, most_rows * docs_LBTD.shape[1] * docs_LBTD.shape[2])
            columns_B = torch.tensor(places)
            for block in blocks:
                rows_Q1 = torch.tensor(block.places)[:, None]
                scores_LQN[:, rows_Q1, columns_B] = _scores(
                    block, docs_LBTD, space, distance=distance, minmax=minmax
                )
        parts.append(scores_LQN)
    if not parts:
        raise ValueError("no documents to look in")
    scores_LQN = torch.cat(parts, dim=-1)
    return scores_LQN if layered else scores_LQN[0]


def _enough(space: Tensor, size: int) -> Tensor:
    """Return memory of at least that many numbers, the one given where it will do."""
    return space if len(space) >= size else space.new_empty(size)


def _checked(x: Tensor, first: Tensor, name: str) -> Tensor:
    """Return features as (L, T, D), if they fit the first query's."""
    if x.ndim not in (2, 3) or not x.is_floating_point():
        raise ValueError(
            f"{name} must be floats (T, D) or (L, T, D), got {x.dtype} {tuple(x.shape)}"
        )
    if x.shape[:-2] + x.shape[-1:] != first.shape[:-2] + first.shape[-1:]:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)} but query 0 {tuple(first.shape)}: "
            "layers and width must be those of one upstream"
        )
    return x if x.ndim == 3 else x.unsqueeze(0)


def _query_blocks(x_LTD: Sequence[Tensor], rows: int, distance: Distance) -> Iterator[_Queries]:
    """Cut the queries that are long enough into blocks of about ``rows`` frames, longest first."""
    order = sorted(range(len(x_LTD)), key=lambda place: -x_LTD[place].shape[1])
    order = [place for place in order if x_LTD[place].shape[1] >= SHORTEST]
    while order:
        count, total = 0, 0
        while count < len(order) and (not count or total + x_LTD[order[count]].shape[1] <= rows):
            total += x_LTD[order[count]].shape[1]
            count += 1
        places, order = order[:count], order[count:]
        lengths = [x_LTD[place].shape[1] for place in places]
        active = [sum(length > row for length in lengths) for row in range(lengths[0])]
        begins = [0, *accumulate(active)]
        first = x_LTD[places[0]]
        x_LRD = first.new_empty(first.shape[0], begins[-1], first.shape[2])
        for query, place in enumerate(places):
            index = first.new_tensor(begins[: lengths[query]], dtype=torch.int64) + query
            x_LRD.index_copy_(1, index, x_LTD[place])
        x_LRD = prepare(x_LRD, distance, "a query")
        yield _Queries(places=places, lengths=lengths, active=active, x_LRD=x_LRD)


def _held(docs: Iterable[Tensor], first: Tensor, held: int) -> Iterator[list[Tensor]]:
    """Read documents until ``held`` frames, all layers counted, are there."""
    batch: list[Tensor] = []
    frames = 0
    for place, doc in enumerate(docs):
        x_LTD = _checked(doc, first, f"document {place}")
        if x_LTD.shape[1] == 0:
            raise ValueError(f"document {place} has no frames: leave it out")
        size = x_LTD.shape[0] * x_LTD.shape[1]
        if batch and frames + size > held:
            yield batch
            batch, frames = [], 0
        batch.append(x_LTD)
        frames += size
    if batch:
        yield batch


def _doc_blocks(
    docs: list[Tensor], columns: int, space: Tensor, distance: Distance
) -> Iterator[tuple[list[int], Tensor]]:
    """Pad documents of similar length, by their last frame, to (L, B, T, D) of ``columns``.

    All blocks lie in the same memory.
    """
    order = sorted(range(len(docs)), key=lambda place: -docs[place].shape[1])
    while order:
        longest = docs[order[0]].shape[1]
        count, frames = 0, 0
        for place in order:
            padded = longest * (count + 1)
            frames += docs[place].shape[1]
            if count and (padded > columns or padded > PADDING * frames):
                break
            count += 1
        places, order = order[:count], order[count:]
        layers, _, width = docs[0].shape
        shape = (layers, count, longest, width)
        padded_LBTD = space[: math.prod(shape)].view(shape)
        for row, place in enumerate(places):
            length = docs[place].shape[1]
            padded_LBTD[:, row, :length] = docs[place]
            padded_LBTD[:, row, length:] = docs[place][:, -1:]
        yield places, prepare(padded_LBTD, distance, "a document")


def _scores(
    block: _Queries, docs_LBTD: Tensor, space: Tensor, *, distance: Distance, minmax: bool
) -> Tensor:
    """Return the scores of a block of queries in a block of documents, (L, Q, B)."""
    docs, frames = docs_LBTD.shape[1:3]
    costs = []
    for x_RD, y_BTD in zip(block.x_LRD, docs_LBTD, strict=True):
        found_RN = compared(x_RD, y_BTD.flatten(0, 1), distance, space)
        found_RBT = found_RN.view(-1, docs, frames)
        costs.append(_align(found_RBT, block.active, distance=distance, minmax=minmax))
    cost_LQB = torch.stack(costs)
    return -cost_LQB / cost_LQB.new_tensor(block.lengths)[:, None]


def _align(found_RBT: Tensor, active: list[int], *, distance: Distance, minmax: bool) -> Tensor:
    """Return the least cost of aligning each query of a block with part of each document, (Q, B).

    Args:
        found_RBT: as :func:`~mynah.tasks.core.frame_distances.compared` gives them, rows ordered by (frame, query); overwritten.
        active: queries that have a frame i, for each i; falling.
        distance: which.
        minmax: whether rows are scaled.
    """
    queries, (_, docs, frames) = active[0], found_RBT.shape
    rows = found_RBT.split(active)  # each (running queries, B, T)
    lows: Sequence[Tensor] = ()
    factors: Sequence[Tensor] = ()
    if minmax:
        low_RB1, factor_RB1 = scaling(found_RBT, distance)
        lows, factors = low_RB1.split(active), factor_RB1.split(active)
    best_QB = found_RBT.new_empty(queries, docs)
    # two columns of infinity before the first frame stand for steps from outside the document
    buffer_QBT = found_RBT.new_full((queries, docs, frames + 2), torch.inf)
    old, new = _steps(buffer_QBT), _steps(buffer_QBT.clone())
    old[0].zero_()
    for frame, row_QBT in enumerate(rows):
        running = len(row_QBT)
        if running < len(old[0]):  # the others ended at the row before
            best_QB[running : len(old[0])] = old[0][running:].amin(dim=-1)
            old, new = _first(old, running), _first(new, running)
        torch.minimum(old[0], old[1], out=new[0])
        torch.minimum(new[0], old[2], out=new[0])
        if minmax:
            unscaled(row_QBT, distance).sub_(lows[frame])
            new[0].addcmul_(row_QBT, factors[frame])
        else:
            new[0].add_(distances(row_QBT, distance))
        old, new = new, old
    best_QB[: len(old[0])] = old[0].amin(dim=-1)
    return best_QB


def _steps(buffer_QBT: Tensor) -> list[Tensor]:
    """Return views of the costs at 0, 1 and 2 frames of the document before each frame."""
    return [buffer_QBT[..., 2:], buffer_QBT[..., 1:-1], buffer_QBT[..., :-2]]


def _first(views: list[Tensor], count: int) -> list[Tensor]:
    return [view[:count] for view in views]
