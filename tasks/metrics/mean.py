"""The mean over utterances of a number that was computed for each: SI-SDR, PESQ, STOI, MCD...

Such numbers need audio, and are computed while it is at hand; what goes to the metric are the
numbers as text, in the place of predictions, so that they are kept with a result and resampled like
all others. References are not read: they may be names.

Shape suffixes: n utterances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mynah.tasks.metrics.metric import Floats, Metric, ratio

UNDEFINED = "undefined"


def as_text(value: float | None) -> str:
    """Return a number as text that reads back as the same number; ``undefined`` for None.

    Raises:
        ValueError: NaN or infinite.
    """
    if value is None:
        return UNDEFINED
    if not math.isfinite(value):
        raise ValueError(f"a score must be finite, got {value}; None says that there is none")
    return repr(float(value))


def mean_metric(
    name: str,
    *,
    higher_is_better: bool,
    options: str = "",
    skip_undefined: bool = False,
    scale: float = 1.0,
) -> Metric:
    """Return the metric that is the mean of what its predictions say, every utterance alike.

    Args:
        name: key in results.
        higher_is_better: its direction.
        options: how each number is defined, for the signature: ``option:value|option:value``.
        skip_undefined: leave out utterances whose prediction is ``undefined``, rather than refuse
            them; the signature says so.
        scale: what tables multiply it by.

    Raises:
        ValueError: from the metric, for a prediction that is not a finite number.
    """

    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        if len(refs) != len(hyps):
            raise ValueError(f"{len(refs)} references but {len(hyps)} predictions")
        table = np.zeros((len(hyps), 2))
        for row, text in enumerate(hyps):
            if not (skip_undefined and text == UNDEFINED):
                table[row] = _number(name, row, text), 1
        return table

    rules = [options] if options else []
    if skip_undefined:
        rules.append("undefined:skipped")
    return Metric(
        name=name,
        signature="|".join([name, *rules, "average:utterance", "v1"]),
        higher_is_better=higher_is_better,
        scale=scale,
        counts=counts,
        value=lambda sums: ratio(sums[..., 0], sums[..., 1]),
    )


def _number(name: str, row: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(
            f"{name} of utterance {row} must be a finite number, got {text!r}: "
            "predictions of this metric are numbers as text"
        )
    return value
