"""The mean over utterances of a number that was computed for each: SI-SDR, PESQ, STOI, MCD...

Such numbers need audio, and are computed while it is at hand; what goes to the metric are the
numbers as text, in the place of predictions, so that they are kept with a result and resampled like
all others. References are not read: they may be names. Several numbers of an utterance are one text,
``pesq=2.3 stoi=0.9``, of which each metric reads its own.

Shape suffixes: n utterances.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

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


def as_fields(values: Mapping[str, float | None]) -> str:
    """Return several numbers as one text, ``pesq=2.3 stoi=undefined``, for :func:`of_field`.

    Raises:
        ValueError: a number that is NaN or infinite, or a name with white space or ``=``.
    """
    for name in values:
        if name.split() != [name] or "=" in name:
            raise ValueError(f"a name must be without white space and '=', got {name!r}")
    return " ".join(f"{name}={as_text(value)}" for name, value in values.items())


def of_field(metric: Metric) -> Metric:
    """Return a metric of one number that reads it from what :func:`as_fields` gives, by its name.

    Raises:
        ValueError: from the metric, for a text without a field of that name, or with two.
    """

    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        return metric.counts(refs, [_field(metric.name, text) for text in hyps], folds)

    return dataclasses.replace(metric, counts=counts)


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


def _field(name: str, text: str) -> str:
    found = [part.partition("=")[2] for part in text.split() if part.startswith(f"{name}=")]
    if len(found) != 1:
        raise ValueError(f"expected one field {name}=..., got {text!r}")
    return found[0]


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
