"""What a metric is: additive counts per utterance, or a ranking of all of them.

Most metrics are a function of sums: an error rate is edits over length. Written that way
(:class:`Metric`), a metric gives its value, its bootstrap interval and its comparison on any subset
from the same table of counts, and cannot mean something else in each of them. Equal error rates and
maximum term-weighted values are not: they look for a threshold among all scores. They are written
as a function of how often each row counts (:class:`RankedMetric`); a value is that of weights of
one, and a bootstrap draw that of the numbers of times that each row was drawn.

Shape suffixes: n utterances (rows), U units, S statistics, R resamples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weigh = Callable[[Floats], Floats]
"""Weights (R, n) of rows, or (R, U) of units -> (R,) values; NaN where they define none."""

BLOCK = 1_000_000  # weights of rows that are expanded at once: 8 MB each of a few arrays


@dataclass(frozen=True, kw_only=True)
class Measure(ABC):
    """What both kinds of metric are to those who use them.

    Attributes:
        name: key in results and tables.
        signature: how exactly the number is defined, ``name|option:value|...|v1``; two numbers may
            be compared only if their signatures are equal.
        higher_is_better: its direction.
        scale: what tables multiply it by: 100 for fractions, 1 for what has a unit of its own.
    """

    name: str
    signature: str
    higher_is_better: bool
    scale: float = 100.0

    def score(
        self,
        references: Sequence[str],
        predictions: Sequence[str],
        folds: Sequence[str] | None = None,
    ) -> float:
        """Return the metric over all utterances.

        Raises:
            ValueError: nothing to score, lists of different lengths, or a metric that these
                utterances do not define.
        """
        folds = [""] * len(references) if folds is None else folds
        check_lengths(references, predictions, folds)
        own_n = np.arange(len(references))
        return self.by_unit(references, predictions, folds, own_n, len(references))[0]

    @abstractmethod
    def by_unit(
        self,
        references: Sequence[str],
        predictions: Sequence[str],
        folds: Sequence[str],
        unit_n: NDArray[np.intp],
        units: int,
    ) -> tuple[float, Weigh]:
        """Return the metric over all utterances, and as a function of how often units are drawn.

        Args:
            references: one per utterance.
            predictions: likewise.
            folds: likewise.
            unit_n: number of the unit of each utterance, 0 to ``units`` - 1.
            units: U.

        Raises:
            ValueError: a metric that these utterances do not define.
        """

    def _defined(self, value: float, rows: int) -> float:
        if not np.isfinite(value):
            raise ValueError(f"{self.name} is not defined for these {rows} references")
        return value


@dataclass(frozen=True, kw_only=True)
class Metric(Measure):
    """A metric of sums.

    Attributes:
        counts: (references, predictions, folds) -> (n, S) counts of each utterance.
        value: (..., S) sums of counts -> (...) values; NaN where it is not defined.
    """

    counts: Callable[[Sequence[str], Sequence[str], Sequence[str]], Floats]
    value: Callable[[Floats], Floats]

    def by_unit(
        self,
        references: Sequence[str],
        predictions: Sequence[str],
        folds: Sequence[str],
        unit_n: NDArray[np.intp],
        units: int,
    ) -> tuple[float, Weigh]:
        """Return the metric, and as a function of draws of units: see :class:`Measure`."""
        table_nS = self.counts(references, predictions, folds)
        value = self._defined(float(self.value(table_nS.sum(axis=0))), len(references))
        if np.array_equal(unit_n, np.arange(units)):
            sums_US = table_nS  # each is its own unit: no second table
        else:
            sums_US = np.zeros((units, table_nS.shape[1]))
            np.add.at(sums_US, unit_n, table_nS)
        return value, lambda drawn_RU: self.value(drawn_RU @ sums_US)


@dataclass(frozen=True, kw_only=True)
class RankedMetric(Measure):
    """A metric of a ranking, which is not a function of sums.

    Attributes:
        ranked: (references, predictions, folds) -> the metric as a function of weights (R, n), how
            often each row counts; 2 for a row means the same as that row twice. What does not
            depend on weights (reading, sorting) is done once, before.
    """

    ranked: Callable[[Sequence[str], Sequence[str], Sequence[str]], Weigh]

    def by_unit(
        self,
        references: Sequence[str],
        predictions: Sequence[str],
        folds: Sequence[str],
        unit_n: NDArray[np.intp],
        units: int,
    ) -> tuple[float, Weigh]:
        """Return the metric, and as a function of draws of units: see :class:`Measure`."""
        rows = len(references)
        weigh = self.ranked(references, predictions, folds)
        value = self._defined(float(weigh(np.ones((1, rows)))[0]), rows)
        return value, in_blocks(lambda drawn_RU: weigh(drawn_RU[:, unit_n]), rows)


def in_blocks(weigh: Weigh, columns: int) -> Weigh:
    """Return the same function, computed for few enough draws at a time to bound its memory.

    Args:
        weigh: what to compute of each draw by itself.
        columns: how many numbers it makes of one draw.
    """
    size = max(1, BLOCK // max(1, columns))

    def weigh_blocks(weights: Floats) -> Floats:
        starts = range(0, len(weights), size)
        return np.concatenate([weigh(weights[start : start + size]) for start in starts])

    return weigh_blocks


def check_lengths(*columns: Sequence[object]) -> None:
    """Refuse empty or unequal columns.

    Raises:
        ValueError: as above.
    """
    sizes = [len(column) for column in columns]
    if len(set(sizes)) != 1:
        raise ValueError(f"references, predictions and folds differ in number: {sizes}")
    if sizes[0] == 0:
        raise ValueError("no utterances to score")


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return numerator / denominator, NaN where the denominator is zero."""
    out: Floats = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out
