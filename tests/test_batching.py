"""Batches by duration: complete, without duplicates, reproducible, little padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.tasks.corpora.batching import duration_batches


def padding_share(durations: list[float], batches: list[list[int]]) -> float:
    """Return which share of padded batches would be padding."""
    true = sum(durations[i] for batch in batches for i in batch)
    return 1 - true / sum(max(durations[i] for i in batch) * len(batch) for batch in batches)


lengths = st.lists(st.floats(0.01, 40.0), min_size=8, max_size=150)


@settings(max_examples=150, deadline=None)
@given(
    durations=lengths,
    budget=st.floats(0.5, 200.0),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
    world=st.integers(1, 8),
)
def test_ranks_share_an_epoch_exactly(
    durations: list[float], budget: float, seed: int, epoch: int, world: int
) -> None:
    ranks = [
        duration_batches(durations, budget, seed=seed, epoch=epoch, rank=r, world_size=world)
        for r in range(world)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(batch for batches in ranks for batch in batches)
    drawn = [i for batches in ranks for batch in batches for i in batch]
    assert sorted(drawn) == list(range(len(durations)))
    if world == 1:
        for batch in ranks[0]:
            cost = max(durations[i] for i in batch) * len(batch)
            assert len(batch) == 1 or cost <= budget * (1 + 1e-12)


def realistic(count: int = 5000) -> list[float]:
    """Lengths like read speech: most near 14 s, a long tail of short ones, 1 to 24 s."""
    stream = np.random.default_rng(0)
    long = stream.normal(14.5, 1.2, int(count * 0.65))
    short = stream.uniform(1.2, 14, count - len(long))
    return [float(x) for x in np.clip(np.concatenate([long, short]), 1, 24)]


@pytest.mark.parametrize("budget", [80.0, 160.0, 400.0])
def test_padding_is_small(budget: float) -> None:
    durations = realistic()
    batches = duration_batches(durations, budget, seed=0, epoch=0, world_size=4)
    assert padding_share(durations, batches) <= 0.05
    filled = [sum(durations[i] for i in batch) / budget for batch in batches]
    assert np.mean(filled) > 0.85  # the budget is used


def test_short_words_too() -> None:
    durations = [float(x) for x in np.random.default_rng(1).uniform(0.15, 1.0, 5000)]
    assert padding_share(durations, duration_batches(durations, 60, seed=0, epoch=0)) <= 0.05


def test_the_same_arguments_give_the_same_batches() -> None:
    durations = realistic(300)
    first = duration_batches(durations, 100, seed=3, epoch=5)
    assert duration_batches(durations, 100, seed=3, epoch=5) == first
    assert duration_batches(durations, 100, seed=3, epoch=6) != first
    assert duration_batches(durations, 100, seed=4, epoch=5) != first


def test_neighbours_change_between_epochs() -> None:
    durations = realistic(1000)

    def pairs(epoch: int) -> set[tuple[int, int]]:
        batches = duration_batches(durations, 100, seed=0, epoch=epoch)
        return {(a, b) for batch in batches for a in batch for b in batch if a < b}

    one, two = pairs(0), pairs(1)
    assert len(one & two) / len(one) < 0.5


def test_ranks_of_one_step_have_like_lengths() -> None:
    durations = realistic(2000)
    ranks = [
        duration_batches(durations, 100, seed=0, epoch=0, rank=r, world_size=4) for r in range(4)
    ]
    loads = np.array(
        [[max(durations[i] for i in b) * len(b) for b in batches] for batches in ranks]
    )
    waiting = 1 - loads.sum() / (loads.max(axis=0).sum() * 4)
    assert waiting < 0.1
    lightest = np.argmin(loads, axis=0)
    assert all((lightest == r).mean() < 0.5 for r in range(4))  # no rank always has the short ones


def test_longer_than_the_budget_is_alone() -> None:
    assert duration_batches([30.0, 1.0, 1.0], 10, seed=0, epoch=0) in (
        [[0], [1, 2]], [[0], [2, 1]], [[1, 2], [0]], [[2, 1], [0]],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("durations", "budget", "rank", "world", "message"),
    [
        ([1.0, 0.0], 10, 0, 1, "number 1 is 0"),
        ([math.nan], 10, 0, 1, "number 0 is nan"),
        ([1.0], 0, 0, 1, "max_seconds must be positive"),
        ([1.0], math.nan, 0, 1, "max_seconds must be positive"),
        ([1.0, 1.0], 10, 2, 2, "rank must be in 0..1"),
        ([1.0], 10, 0, 2, "1 utterances cannot be shared by 2"),
    ],
)
def test_refusals(
    durations: list[float], budget: float, rank: int, world: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        duration_batches(durations, budget, seed=0, epoch=0, rank=rank, world_size=world)
