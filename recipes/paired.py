"""Two sets of runs compared on the same test utterances: both scores, their difference, intervals.

A bootstrap draws units (speakers) and runs (seeds) with replacement, the same units for both sides,
and computes both scores and their difference from each draw. So the intervals cover the sampling of
speakers and the spread over seeds, and the interval of the difference gains from the pairing.

Shape suffixes: R runs, n utterances, U units, S statistics of a metric, D draws.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mynah.recipes.results import Result
from mynah.tasks.metrics.accuracy import accuracy
from mynah.tasks.metrics.bootstrap import MIN_UNITS
from mynah.tasks.metrics.error_rate import error_rate
from mynah.tasks.metrics.metric import Floats, Metric


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
        units: how many were drawn.
        unit: ``unit`` of the predictions, or ``utterance`` where there are fewer than 5 units.
    """

    ours: Estimate
    other: Estimate
    better: Estimate
    separated: bool
    units: int
    unit: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Statistics of several runs on the same utterances."""

    sums_RUS: Floats
    names: tuple[str, ...]
    metric: Metric
    unit: str


def metric_of(result: Result) -> Metric:
    """Return the metric that ranks, found by its signature.

    Raises:
        ValueError: one that is no sum over utterances.
    """
    known = [accuracy(), *(error_rate("phone", norm=norm) for norm in ("none", "no-stress"))]
    for metric in known:
        if result.main.signature.startswith(metric.signature):
            return metric
    raise ValueError(f"{result.main.signature} cannot be compared utterance by utterance")


def table(paths: Sequence[Path], results: Sequence[Result]) -> Table:
    """Read the predictions of runs of one task and corpus.

    Args:
        paths: files of the results.
        results: what they hold.

    Raises:
        ValueError: no runs, or runs of different tasks, corpora or test utterances.
    """
    if not results:
        raise ValueError("no runs to compare")
    first = results[0]
    same = {(r.task, r.corpus, r.corpus_version, r.main.signature) for r in results}
    if len(same) > 1:
        raise ValueError(f"runs of different tasks, corpora or metrics: {sorted(map(str, same))}")
    metric = metric_of(first)
    tables, keys, units = [], [], []
    for path, result in zip(paths, results, strict=True):
        with path.with_name(result.predictions).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        keys.append([(row["id"], row["fold"]) for row in rows])
        units = [row["unit"] for row in rows]
        tables.append(
            metric.counts(
                [row["reference"] for row in rows],
                [row["prediction"] or "" for row in rows],
                [row["fold"] for row in rows],
            )
        )
    if any(key != keys[0] for key in keys):
        raise ValueError("the runs were scored on different utterances")
    names, index_n = np.unique(np.asarray(units), return_inverse=True)
    unit = first.main.unit
    if len(names) < MIN_UNITS:
        names = np.asarray([key[0] for key in keys[0]])
        index_n, unit = np.arange(len(names)), "utterance"
    sums_RUS = np.zeros((len(tables), len(names), tables[0].shape[1]))
    for run, counts_nS in enumerate(tables):
        np.add.at(sums_RUS[run], index_n, counts_nS)
    return Table(sums_RUS=sums_RUS, names=tuple(map(str, names)), metric=metric, unit=unit)


def compare(ours: Table, other: Table, *, draws: int = 2000, seed: int = 0) -> Comparison:
    """Return both scores and by how much ours is better.

    Args:
        ours: runs of one side.
        other: runs of the other side, on the same utterances.
        draws: D.
        seed: of the draws.

    Raises:
        ValueError: the sides were scored on different units.
    """
    if ours.names != other.names or ours.metric.signature != other.metric.signature:
        raise ValueError("the two sides were scored on different utterances or by other metrics")
    sign = 1.0 if ours.metric.higher_is_better else -1.0
    generator = np.random.default_rng(seed)
    units = len(ours.names)
    weight_DU = np.stack(
        [np.bincount(generator.integers(units, size=units), minlength=units) for _ in range(draws)]
    ).astype(np.float64)
    sides = [_draws(side, weight_DU, generator) for side in (ours, other)]
    values = [float(side.metric.value(side.sums_RUS.sum(axis=1)).mean()) for side in (ours, other)]
    a, b = (_estimate(value, found) for value, found in zip(values, sides, strict=True))
    better = _estimate(sign * (values[0] - values[1]), sign * (sides[0] - sides[1]))
    apart = a.low > b.high if sign > 0 else a.high < b.low
    return Comparison(
        ours=a, other=b, better=better, separated=bool(apart), units=units, unit=ours.unit
    )


def _draws(side: Table, weight_DU: Floats, generator: np.random.Generator) -> Floats:
    """Return the mean score over drawn runs of each draw of units, (D,)."""
    draws, runs = len(weight_DU), len(side.sums_RUS)
    score_RD = np.stack([side.metric.value(weight_DU @ sums_US) for sums_US in side.sums_RUS])
    chosen_DR = generator.integers(runs, size=(draws, runs))
    means: Floats = score_RD[chosen_DR, np.arange(draws)[:, None]].mean(axis=1)
    return means


def _estimate(value: float, draws_D: Floats) -> Estimate:
    known_D = draws_D[np.isfinite(draws_D)]
    low, high = np.quantile(known_D, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high))
