"""One number for a model: SUPERB's score and rank, and one that is defined for any subset of tasks.

A *point* of a value places it on the way from FBANK (0) to the best model of the SUPERB paper
(1000): 1000 (value - FBANK) / (best - FBANK), which needs no direction. The points of a task's
metrics are averaged, then those of the tasks of a view.

* ``superb_s`` is that mean; without a result for each of the view's tasks there is none.
* ``superb_r`` replaces the point of each metric by the number of models that have a lower one,
  among those shown; what is missing counts 0. More is better. It is the challenge's first measure.
* ``centred`` is ours: the mean over whatever tasks there are of
  (value - chance) / (perfect - chance), so 0 is guessing and 1 is no error.

Source: superbbenchmark/website-react, frontend/src/overall_metrics.js and Data.js.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

Key = tuple[str, str]
"""(task, metric)."""
Values = Mapping[Key, float]
"""In the units of publication: per cent, BLEU, PESQ, dB."""
View = Literal["paper", "public"]

REFERENCES: dict[Key, tuple[float, float]] = {
    ("pr", "per"): (82.01, 3.53),
    ("ks", "accuracy"): (41.3826674, 96.66),
    ("ic", "accuracy"): (9.649354219, 98.76),
    ("sid", "accuracy"): (20.058174, 90.3),
    ("er", "accuracy"): (48.23672168, 67.62),
    ("asr", "wer"): (23.18, 3.62),
    ("qbe", "mtwv"): (0.58, 7.36),
    ("sf", "slot_type_f1"): (69.64, 89.81),
    ("sf", "slot_value_cer"): (52.94, 21.76),
    ("asv", "eer"): (9.56, 5.11),
    ("sd", "der"): (10.05, 5.62),
    ("st", "bleu"): (2.32, 20.01),
    ("se", "pesq"): (2.55, 2.64),
    ("se", "stoi"): (93.6, 94.2),
    ("ss", "si_sdri"): (9.2341, 10.4514),
}
"""(FBANK, best of the paper)."""
VIEWS: dict[View, tuple[str, ...]] = {
    "paper": ("pr", "sid", "ks", "qbe", "ic", "asr", "asv", "er", "sd", "sf"),
    "public": ("pr", "sid", "qbe", "asr", "asv", "er", "sd", "st", "se", "ss"),
}

# (chance, perfect): chance is what saying nothing, one thing or a coin gives. A classifier's is the
# share of the commonest class, which depends on the test set. Separation, enhancement and voice
# conversion have no perfect score.
CENTRED: dict[str, tuple[str, float | None, float]] = {
    "pr": ("per", 100.0, 0.0),
    "asr": ("wer", 100.0, 0.0),
    "ood_asr": ("error_rate", 100.0, 0.0),
    "ks": ("accuracy", None, 100.0),
    "ic": ("accuracy", None, 100.0),
    "sid": ("accuracy", None, 100.0),
    "er": ("accuracy", None, 100.0),
    "qbe": ("mtwv", 0.0, 100.0),
    "sf": ("slot_type_f1", 0.0, 100.0),
    "asv": ("eer", 50.0, 0.0),
    "sd": ("der", 100.0, 0.0),
    "st": ("bleu", 0.0, 100.0),
}
FORMULA = "mean over tasks of (value - chance) / (perfect - chance)"


def metrics_of(view: View) -> dict[str, list[Key]]:
    """Return the metrics of each task of a view."""
    return {task: [key for key in REFERENCES if key[0] == task] for task in VIEWS[view]}


def point(key: Key, value: float) -> float:
    """Return the point of one value."""
    fbank, best = REFERENCES[key]
    return 1000 * (value - fbank) / (best - fbank)


def superb_s(values: Values, view: View) -> float | None:
    """Return the score, None where a task of the view is missing."""
    if missing(values, view):
        return None
    return _mean(_mean(point(k, values[k]) for k in keys) for keys in metrics_of(view).values())


def superb_r(values: Values, others: Iterable[Values], view: View) -> float:
    """Return the rank of a model among itself and others: 0 is last.

    Args:
        values: of the model.
        others: of all others that are shown.
        view: which tasks count.
    """
    shown = list(others)

    def below(key: Key) -> float:
        if key not in values:
            return 0.0
        own = point(key, values[key])
        return float(sum(point(key, o[key]) < own for o in shown if key in o))

    return _mean(_mean(below(k) for k in keys) for keys in metrics_of(view).values())


def missing(values: Values, view: View) -> list[str]:
    """Return the tasks of a view of which a metric is missing."""
    return [
        task for task, keys in metrics_of(view).items() if any(key not in values for key in keys)
    ]


def centred(values: Values, chances: Mapping[str, float]) -> dict[str, float]:
    """Return (value - chance) / (perfect - chance) of each task that has both.

    Args:
        values: of a model.
        chances: of classification tasks, per cent, where known.
    """
    out = {}
    for task, (metric, chance, perfect) in CENTRED.items():
        floor = chances.get(task) if chance is None else chance
        value = values.get((task, metric))
        if value is not None and floor is not None and floor != perfect:
            out[task] = (value - floor) / (perfect - floor)
    return out


def centred_mean(values: Values, chances: Mapping[str, float]) -> float | None:
    """Return the mean of :func:`centred`, None where no task has one."""
    found = centred(values, chances)
    return _mean(found.values()) if found else None


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)
