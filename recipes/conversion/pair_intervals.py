"""Bootstrap intervals of what belongs to two speakers, as a conversion does.

Conversions of one source are good or bad together, and so are those to one target. Speakers are drawn
with replacement, and a pair counts as often as both its speakers were drawn together (Snijders and
Borgatti 1999, Connections 22(2):61-70); what belongs to one speaker counts as often as that one was
drawn. With fewer than 5 speakers rows are drawn, and the interval says so.

Shape suffixes: n rows, U units, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mynah.tasks.metrics.bootstrap import MIN_UNITS, Interval
from mynah.tasks.metrics.metric import Measure

RESAMPLES = 1000

Speakers = tuple[str, str]


def interval(
    metric: Measure,
    references: Sequence[str],
    predictions: Sequence[str],
    speakers: Sequence[Speakers],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return a metric and its percentile interval over speakers.

    Args:
        metric: what to compute.
        references: one per row.
        predictions: likewise.
        speakers: the two of each row; may be the same one twice.
        resamples: number of draws R.
        seed: of the draws.

    Raises:
        ValueError: nothing to score, or a metric that these rows do not define.
    """
    rows = len(predictions)
    names = sorted({name for both in speakers for name in both})
    value, weigh = metric.by_unit(references, predictions, [""] * rows, np.arange(rows), rows)
    generator = np.random.default_rng(seed)
    many = len(names) >= MIN_UNITS
    units = len(names) if many else rows
    drawn_RU = generator.multinomial(units, np.full(units, 1 / units), size=resamples)
    weights_Rn = drawn_RU.astype(np.float64)
    if many:
        place = {name: i for i, name in enumerate(names)}
        a_n, b_n = (np.array([place[both[k]] for both in speakers]) for k in (0, 1))
        second_Rn = np.where(a_n == b_n, 1.0, weights_Rn[:, b_n])
        weights_Rn = weights_Rn[:, a_n] * second_Rn
    values_R = weigh(weights_Rn)
    known_R = values_R[np.isfinite(values_R)]
    low, high = np.quantile(known_R, [0.025, 0.975]) if known_R.size else (value, value)
    unit = "speaker" if many else "conversion"
    return Interval(
        value=value,
        low=float(low),
        high=float(high),
        n=rows,
        units=units,
        unit=unit,
        signature=f"{metric.signature}|ci:{unit}{'-pair' if many else ''}-bootstrap-{resamples}",
        scale=metric.scale,
    )
