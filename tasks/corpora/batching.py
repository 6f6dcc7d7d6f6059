"""Batches by duration: a pure function, so that resuming is an integer and ranks need not talk.

Every rank computes the same list and takes its share of it. Utterances of like length share a batch
(little padding), who meets whom changes every epoch, and the ranks' batches of one step are of like
length too, so that no rank waits long for another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_JITTER = 0.03  # relative; lengths are blurred by this before sorting, so that neighbours change


def duration_batches(
    durations: Sequence[float],
    max_seconds: float,
    *,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    least: int = 1,
) -> list[list[int]]:
    """Return this rank's batches of one epoch, as indices into ``durations``.

    The batches of all ranks together hold every utterance exactly once, and every rank has the same
    number of batches. There is no tail: where the number of batches does not divide by
    ``world_size``, the batches of most utterances are halved until it does; where every batch is a
    single utterance already, the shortest are joined instead (the one case, besides an utterance
    longer than the budget, that exceeds it). So the same partition serves training (nothing
    dropped, no rank left waiting) and evaluation (nothing counted twice).

    Args:
        durations: seconds of each utterance.
        max_seconds: a batch's budget, longest utterance times count. An utterance that is longer
            by itself is a batch of its own; crop before batching where memory does not allow that.
        seed: of the order.
        epoch: counted from 0; each has another order.
        rank: of this process.
        world_size: number of processes.
        least: fewest utterances of a batch, for one process. What is left over at the end borrows
            from its neighbour; where that is too small to lend, the two are one batch, which may
            exceed the budget.

    Raises:
        ValueError: a duration is not positive and finite, the budget is not positive, ``rank`` is
            not below ``world_size``, there are fewer utterances than ranks, or fewer than
            ``least``, or the budget does not hold ``least`` of the longest.
    """
    if not max_seconds > 0:
        raise ValueError(f"max_seconds must be positive, got {max_seconds}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in 0..{world_size - 1}, got {rank}")
    seconds = np.asarray(durations, dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(seconds) & (seconds > 0)))
    if bad.size:
        raise ValueError(
            f"{bad.size} durations are not positive: number {bad[0]} is {seconds[bad[0]]}"
        )
    if len(seconds) < world_size and (len(seconds) or world_size > 1):
        raise ValueError(
            f"{len(seconds)} utterances cannot be shared by {world_size} processes: use fewer"
        )
    if least > 1:
        if world_size > 1:
            raise ValueError("batches of a least size are for one process")
        longest = max(durations, default=0.0)
        if len(seconds) < least or least * longest > max_seconds:
            raise ValueError(
                f"batches of {least} or more utterances cannot be made of {len(seconds)}, of up to "
                f"{longest:g} s, in {max_seconds:g} s"
            )
    stream = np.random.RandomState([seed % 2**32, epoch % 2**32])  # frozen by NEP 19
    blur = np.exp(_JITTER * (2 * stream.random_sample(len(seconds)) - 1))
    order = np.argsort(seconds * blur, kind="stable")
    batches = _lend(_fill(order.tolist(), seconds.tolist(), max_seconds), least)
    batches = _split(batches, world_size)
    steps = [batches[i : i + world_size] for i in range(0, len(batches), world_size)]
    return [
        steps[int(step)][(rank + int(turn)) % world_size]
        for step, turn in zip(
            stream.permutation(len(steps)), stream.randint(world_size, size=len(steps)), strict=True
        )
    ]


def _fill(order: list[int], seconds: list[float], max_seconds: float) -> list[list[int]]:
    """Cut a sorted order into batches within the budget."""
    batches: list[list[int]] = []
    longest = 0.0
    for index in order:
        longest = max(longest, seconds[index])
        if batches and longest * (len(batches[-1]) + 1) <= max_seconds:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = seconds[index]
    return batches


def _lend(batches: list[list[int]], least: int) -> list[list[int]]:
    """Fill up the last batch, the only one that can be smaller than ``least``."""
    if len(batches) > 1 and len(batches[-1]) < least:
        joined = batches[-2] + batches[-1]
        first = len(joined) - least
        batches[-2:] = [joined[:first], joined[first:]] if first >= least else [joined]
    return batches


def _split(batches: list[list[int]], world_size: int) -> list[list[int]]:
    """Halve the batches of most utterances, else join the shortest, until ``world_size`` divides."""
    while len(batches) % world_size:
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        whole = batches[largest]
        if len(whole) == 1:
            break
        half = math.ceil(len(whole) / 2)
        batches[largest : largest + 1] = [whole[:half], whole[half:]]
    for surplus in range(len(batches) % world_size):
        batches[surplus : surplus + 2] = [batches[surplus] + batches[surplus + 1]]
    return batches
