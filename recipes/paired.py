"""Two sets of runs compared on the same test utterances: both scores, their difference, intervals.

A bootstrap draws units (speakers) and runs (seeds) with replacement, the same units for both sides,
and computes both scores and their difference from each draw. So the intervals cover the sampling of
speakers and the spread over seeds, and the interval of the difference gains from the pairing.

Shape suffixes: R runs, U units, D draws.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mynah.recipes import kept
from mynah.recipes.results import Result
from mynah.tasks.metrics.metric import Floats, Weigh


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def percent(self, *, signed: bool = False) -> str:
        """Return ``value [low, high]`` in per cent."""
        sign = "+" if signed else ""
        low, high = f"{100 * self.low:{sign}.1f}", f"{100 * self.high:{sign}.1f}"
        return f"{100 * self.value:{sign}.1f} [{low}, {high}]"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One side against the other.

    Attributes:
        ours: mean score of the runs of one side.
        other: of the other side.
        better: by how much ours is better, positive whatever the metric's direction.
        separated: whether ours is better and the two sides' intervals do not overlap.
        p: two-sided, of the hypothesis that there is no difference.
        units: how many were drawn.
        unit: ``unit`` of the predictions, or ``utterance`` where there are fewer than 5 units.
    """

    ours: Estimate
    other: Estimate
    better: Estimate
    separated: bool
    p: float
    units: int
    unit: str


@dataclass(frozen=True, kw_only=True)
class Side:
    """Several runs of one model, scored on the same utterances.

    Attributes:
        values: score of each run R.
        weighs: of each run, its score as a function of how often each unit is drawn.
        names: of the units.
        unit: what they are.
        signature: of the metric.
        higher_is_better: its direction.
        utterances: digest of what was scored.
    """

    values: tuple[float, ...]
    weighs: tuple[Weigh, ...]
    names: tuple[str, ...]
    unit: str
    signature: str
    higher_is_better: bool
    utterances: str = ""


def side(paths: Sequence[Path], results: Sequence[Result]) -> Side:
    """Read the predictions of runs of one task and corpus.

    Args:
        paths: files of the results.
        results: what they hold.

    Raises:
        FileNotFoundError: predictions are gone.
        ValueError: no runs, or runs of different tasks, corpora or test utterances.
    """
    if not results:
        raise ValueError("no runs to compare")
    first = results[0]
    same = {(r.task, r.corpus, r.corpus_version, r.main.signature) for r in results}
    if len(same) > 1:
        raise ValueError(f"runs of different tasks, corpora or metrics: {sorted(map(str, same))}")
    rows = [kept.read(path, result) for path, result in zip(paths, results, strict=True)]
    if any((each.ids, each.folds) != (rows[0].ids, rows[0].folds) for each in rows):
        raise ValueError("the runs were scored on different utterances")
    found = [
        kept.scored(path, result, rows=each)
        for path, result, each in zip(paths, results, rows, strict=True)
    ]
    return Side(
        values=tuple(one.value for one in found),
        weighs=tuple(one.weigh for one in found),
        names=found[0].names,
        unit=found[0].unit,
        signature=first.main.signature,
        higher_is_better=first.higher_is_better,
        utterances=rows[0].digest(),
    )


def averaged(runs: Side) -> Side:
    """Return one run whose score is the mean of several, for whatever units are drawn.

    Heads that differ in their first weights alone say one thing about the model under them: drawn as
    if they were models, they would make its interval too narrow.
    """

    def weigh(weight_DU: Floats) -> Floats:
        mean_D: Floats = np.mean([one(weight_DU) for one in runs.weighs], axis=0)
        return mean_D

    return dataclasses.replace(runs, values=(statistics.fmean(runs.values),), weighs=(weigh,))


def joined(sides: Sequence[Side]) -> Side:
    """Return the runs of several sides as one.

    Raises:
        ValueError: none, or scored on different utterances or by different metrics.
    """
    if not sides:
        raise ValueError("no runs to compare")
    if len({(side.names, side.signature, side.utterances) for side in sides}) > 1:
        raise ValueError("the runs were scored on different utterances or by other metrics")
    return dataclasses.replace(
        sides[0],
        values=tuple(value for side in sides for value in side.values),
        weighs=tuple(weigh for side in sides for weigh in side.weighs),
    )


def compare(ours: Side, other: Side, *, draws: int = 2000, seed: int = 0) -> Comparison:
    """Return both scores and by how much ours is better.

    Args:
        ours: runs of one side.
        other: runs of the other side, on the same utterances.
        draws: D.
        seed: of the draws.

    Raises:
        ValueError: the sides were scored on different units.
    """
    scored = [(side.names, side.signature, side.utterances) for side in (ours, other)]
    if scored[0] != scored[1]:
        raise ValueError("the two sides were scored on different utterances or by other metrics")
    sign = 1.0 if ours.higher_is_better else -1.0
    generator = np.random.default_rng(seed)
    units = len(ours.names)
    weight_DU = np.stack(
        [np.bincount(generator.integers(units, size=units), minlength=units) for _ in range(draws)]
    ).astype(np.float64)
    sides = [_draws(side, weight_DU, generator) for side in (ours, other)]
    values = [statistics.fmean(side.values) for side in (ours, other)]
    a, b = (_estimate(value, found) for value, found in zip(values, sides, strict=True))
    gain, gain_D = sign * (values[0] - values[1]), sign * (sides[0] - sides[1])
    better = _estimate(gain, gain_D)
    apart = a.low > b.high if sign > 0 else a.high < b.low
    return Comparison(
        ours=a,
        other=b,
        better=better,
        separated=bool(apart),
        p=_chance(gain, gain_D),
        units=units,
        unit=ours.unit,
    )


def _draws(side: Side, weight_DU: Floats, generator: np.random.Generator) -> Floats:
    """Return the mean score over drawn runs of each draw of units, (D,)."""
    draws, runs = len(weight_DU), len(side.weighs)
    score_RD = np.stack([weigh(weight_DU) for weigh in side.weighs])
    chosen_DR = generator.integers(runs, size=(draws, runs))
    means: Floats = score_RD[chosen_DR, np.arange(draws)[:, None]].mean(axis=1)
    return means


def _chance(difference: float, draws_D: Floats) -> float:
    """Return how often a difference as large comes about where there is none.

    Draws scatter around what was measured as measurements scatter around the truth, so those that
    are further from it than it is from zero are counted, itself included (Efron and Tibshirani
    1993, chapter 16; Davison and Hinkley 1997, section 4.2.1).
    """
    known_D = draws_D[np.isfinite(draws_D)]
    as_far = np.abs(known_D - difference) >= abs(difference) * (1 - 1e-12)
    return float((1 + as_far.sum()) / (1 + len(known_D)))


def _estimate(value: float, draws_D: Floats) -> Estimate:
    known_D = draws_D[np.isfinite(draws_D)]
    low, high = np.quantile(known_D, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high))
