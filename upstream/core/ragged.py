"""Arithmetic of ragged batches: utterances' frames laid end to end, nothing padded.

Shape suffixes: N frames of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive whole utterances of a ragged batch.

    Attributes:
        start: first row.
        stop: one past the last row.
        lengths: rows of each utterance.
    """

    start: int
    stop: int
    lengths: tuple[int, ...]


def blocks(lengths: Sequence[int], *, rows: int) -> list[Block]:
    """Cut a ragged batch into blocks of whole utterances with at least ``rows`` rows each.

    A block is as small as that allows, so that its activations stay in cache and no allocation
    grows with the batch; only the last block may have fewer rows.
    """
    found: list[Block] = []
    start = stop = 0
    held: list[int] = []
    for length in lengths:
        held.append(length)
        stop += length
        if stop - start >= rows:
            found.append(Block(start=start, stop=stop, lengths=tuple(held)))
            start, held = stop, []
    if held:
        found.append(Block(start=start, stop=stop, lengths=tuple(held)))
    return found


def runs(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (first row, how many, length) of each run of neighbours of equal length."""
    row = 0
    first = 0
    for index in range(1, len(lengths) + 1):
        if index == len(lengths) or lengths[index] != lengths[first]:
            count = index - first
            yield row, count, lengths[first]
            row += count * lengths[first]
            first = index


def starting_next(
    counts: Sequence[int], sizes: Sequence[int], *, stride: int, other: int
) -> list[Tensor]:
    """Return, for each frame, the frame of another rate that starts next to it, int64.

    Args:
        counts: frames of each utterance.
        sizes: frames of the same utterances at the other rate; their last one serves what comes
            after it.
        stride: samples between frames.
        other: samples between those of the other rate.
    """
    places = []
    for count, size in zip(counts, sizes, strict=True):
        time_T = torch.arange(count, dtype=torch.float64) * (stride / other)
        places.append(time_T.round().long().clamp_max(size - 1))
    return places


def pieces(total: int, *, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the pieces of at most ``size`` that ``total`` rows are cut into."""
    for start in range(0, total, size):
        yield start, min(total, start + size)
