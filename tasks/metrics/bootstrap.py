"""Percentile bootstrap intervals, resampled by the unit that makes utterances alike.

Utterances of one speaker are right or wrong together, so an interval from resampled utterances is
too narrow. Units (speakers) are drawn with replacement, and the metric is computed of the summed
counts of each draw, or, for a metric of a ranking, of all rows, each weighted by how often its unit
was drawn (Efron 1979; percentile interval). A draw that does not define the metric (no target
trial, no reference words) is left out.

Shape suffixes: n utterances, U units, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mynah.tasks.metrics.metric import Floats, Measure, Weigh, check_lengths

MIN_UNITS = 5


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A metric with its interval.

    Attributes:
        value: of all utterances.
        low: 2.5th percentile of the resamples.
        high: 97.5th percentile.
        n: utterances.
        units: units that were resampled.
        unit: what they were: the unit asked for, or ``utterance`` where there were too few.
        signature: the metric's signature and how the interval was made.
        scale: the metric's: what tables multiply the three numbers by.
    """

    value: float
    low: float
    high: float
    n: int
    units: int
    unit: str
    signature: str
    scale: float


def bootstrap(
    metric: Measure,
    references: Sequence[str],
    predictions: Sequence[str],
    units: Sequence[str],
    *,
    unit: str,
    folds: Sequence[str] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return a metric and its percentile interval.

    Args:
        metric: what to compute.
        references: one per utterance.
        predictions: likewise.
        units: unit of each utterance; with fewer than 5 different ones utterances are resampled
            instead, and ``unit`` and ``signature`` of the answer say so.
        unit: name of the unit.
        folds: fold of each utterance.
        resamples: number of draws R.
        level: of the interval.
        seed: of the draws.

    Raises:
        ValueError: nothing to score, columns of different lengths, or a metric that these
            utterances do not define.
    """
    folds = [""] * len(references) if folds is None else folds
    check_lengths(references, predictions, folds, units)
    names, unit_n = np.unique(np.asarray(units), return_inverse=True)
    total = len(names)
    if total < MIN_UNITS:
        total, unit_n, unit = len(references), np.arange(len(references)), "utterance"
    value, weigh = metric.by_unit(references, predictions, folds, unit_n, total)
    values_R = _resample(weigh, total, resamples, seed)
    known_R = values_R[np.isfinite(values_R)]
    tail = (1 - level) / 2
    low, high = np.quantile(known_R, [tail, 1 - tail]) if known_R.size else (value, value)
    return Interval(
        value=value,
        low=float(low),
        high=float(high),
        n=len(references),
        units=total,
        unit=unit,
        signature=f"{metric.signature}|ci:{unit}-bootstrap-{resamples}",
        scale=metric.scale,
    )


def _resample(weigh: Weigh, units: int, resamples: int, seed: int) -> Floats:
    """Return the metric of R draws of U units with replacement, a block of draws at a time."""
    generator = np.random.default_rng(seed)
    block = max(1, min(resamples, 4_000_000 // units))
    values = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn_RU = generator.multinomial(units, np.full(units, 1 / units), size=size)
        values.append(weigh(drawn_RU.astype(np.float64)))
    return np.concatenate(values)
