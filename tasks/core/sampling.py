"""Which utterances make a batch: infinite streams that depend on their arguments only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mynah.tasks.core.contract import Sampler

SUPERB_SEED = 1337
BUCKET = 16  # batches whose utterances are sorted by length together


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What a sampler may look at, one entry per training utterance.

    Attributes:
        classes: for ``balanced``.
        seconds: for ``bucket`` and ``length-bucket``.
        target_lengths: for ``length-window``.
        halved: for ``length-window``: whether a window that starts here loses its second half.
    """

    classes: Sequence[str]
    seconds: Sequence[float]
    target_lengths: Sequence[int]
    halved: Sequence[bool]

    def __len__(self) -> int:
        """Return the number of utterances."""
        return len(self.classes)


def balanced_draw(classes: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Return as many indices as there are classes given, drawn so that classes are alike."""
    counts = Counter(classes)
    weights = np.array([1 / counts[name] for name in classes])
    drawn: list[int] = rng.choice(
        len(classes), size=len(classes), p=weights / weights.sum()
    ).tolist()
    return drawn


def epoch_batches(
    pool: Pool,
    sampler: Sampler,
    size: int,
    *,
    seed: int,
    epoch: int,
    seconds: float | None = None,
) -> list[list[int]]:
    """Return the batches of one epoch, as indices.

    Args:
        pool: the utterances.
        sampler: as :class:`~mynah.tasks.core.contract.Protocol` describes.
        size: utterances per batch.
        seed: of the order.
        epoch: counted from 0.
        seconds: most audio of a batch of ``bucket``, counting every item as long as the longest.

    Raises:
        ValueError: unknown sampler.
    """
    rng = np.random.default_rng([seed, epoch])
    count = len(pool)
    if sampler == "shuffle":
        return _cut(rng.permutation(count).tolist(), size)
    if sampler == "balanced":
        batches = _cut(balanced_draw(pool.classes, rng), size)
        whole = [batch for batch in batches if len(batch) == size]
        return whole or batches
    if sampler == "bucket":
        return _buckets(pool, size, rng, seconds)
    if sampler == "length-window":
        return _windows(pool, size, rng)
    if sampler == "length-bucket":
        made = _length_buckets(pool, size)
        return [made[i] for i in rng.permutation(len(made))]
    raise ValueError(f"unknown sampler {sampler!r}")


def batches(
    pool: Pool, sampler: Sampler, size: int, *, seed: int, seconds: float | None = None
) -> Iterator[list[int]]:
    """Yield batches without end, epoch after epoch.

    Raises:
        ValueError: an empty pool.
    """
    if not len(pool):
        raise ValueError("there is nothing to train on")
    epoch = 0
    while True:
        yield from epoch_batches(pool, sampler, size, seed=seed, epoch=epoch, seconds=seconds)
        epoch += 1


def _cut(indices: list[int], size: int) -> list[list[int]]:
    return [indices[at : at + size] for at in range(0, len(indices), size)]


def _buckets(
    pool: Pool, size: int, rng: np.random.Generator, seconds: float | None
) -> list[list[int]]:
    shuffled = rng.permutation(len(pool)).tolist()
    made: list[list[int]] = []
    for block in _cut(shuffled, size * BUCKET):
        ordered = sorted(block, key=lambda i: pool.seconds[i])
        if seconds is None:
            made += _cut(ordered, size)
            continue
        batch: list[int] = []
        for i in ordered:  # the last one is the longest
            full = len(batch) == size or (len(batch) + 1) * pool.seconds[i] > seconds
            if batch and full:
                made.append(batch)
                batch = []
            batch.append(i)
        made.append(batch)
    return [made[i] for i in rng.permutation(len(made))]


def _windows(pool: Pool, size: int, rng: np.random.Generator) -> list[list[int]]:
    # One window per utterance, so each utterance appears about `size` times in an epoch and the
    # ones at the end of the order less often.
    by_length = sorted(range(len(pool)), key=lambda i: -pool.target_lengths[i])
    made = []
    for start in rng.permutation(len(pool)).tolist():
        window = by_length[start : start + size]
        made.append(window[: size // 2] if pool.halved[window[0]] else window)
    return made


def _length_buckets(pool: Pool, size: int) -> list[list[int]]:
    """Return the batches that s3prl cuts once (``downstream/asr/dataset.py``, ``SequenceDataset``).

    Buckets of twice ``size`` over the utterances in the order of descending duration, each cut in
    two: a bucket is halved where its longest utterance has more than 2000 samples, as every one has.
    The rest, too few for a bucket, is one batch, longer than others or shorter; one left over alone
    is never trained on, unless there is no other.
    """
    by_duration = sorted(range(len(pool)), key=lambda i: -pool.seconds[i])
    made: list[list[int]] = []
    for bucket in _cut(by_duration, 2 * size):
        made += _cut(bucket, size) if len(bucket) == 2 * size else [bucket]
    return made[:-1] if len(made) > 1 and len(made[-1]) == 1 else made
