"""What a metric is: additive counts per utterance, and a function of their sums.

A metric that is written this way gives its value, its bootstrap interval and its comparison on any
subset from the same table of counts, and cannot mean something else in each of them.

Shape suffixes: n utterances, S statistics, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: key in results and tables.
        signature: how exactly the number is defined, ``name|option:value|...|v1``; two numbers may
            be compared only if their signatures are equal.
        higher_is_better: its direction.
        counts: (references, predictions, folds) -> (n, S) counts of each utterance.
        value: (..., S) sums of counts -> (...) values; NaN where it is not defined.
    """

    name: str
    signature: str
    higher_is_better: bool
    counts: Callable[[Sequence[str], Sequence[str], Sequence[str]], Floats]
    value: Callable[[Floats], Floats]

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
        value = float(self.value(self.counts(references, predictions, folds).sum(axis=0)))
        if not np.isfinite(value):
            raise ValueError(f"{self.name} is not defined for these {len(references)} references")
        return value


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
