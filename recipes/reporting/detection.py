"""Detection error trade-off of speaker verification: misses against false alarms, probit axes.

Source: Martin et al. 1997, "The DET curve in assessment of detection task performance".
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mynah.recipes.kept import Rows
from mynah.recipes.reporting import plot
from mynah.recipes.reporting.figures import Picture
from mynah.tasks.metrics.detection import TARGET, crossing, error_curves

STEP = 2.5  # picture units between points of a curve
TOP = 0.4  # rate that is always in view
LOWEST = 0.001


def det(trials: Mapping[str, Rows], index: Mapping[str, int]) -> Picture | None:
    """Return DET curves with the EER of each marked, None without trials.

    Args:
        trials: upstream -> its scored trials (``target`` or ``nontarget``, score).
        index: upstream -> its place among all things of the page.

    Raises:
        ValueError: predictions that are no scores.
    """
    if not trials:
        return None
    lines: dict[str, tuple[np.ndarray, np.ndarray, float]] = {}
    for name, rows in trials.items():
        scores = np.array([float(p) for p in rows.predictions])
        targets = np.array([r == TARGET for r in rows.references])
        miss_1K, false_1K = error_curves(scores, targets)(np.ones((1, len(scores))))
        lines[name] = (miss_1K[0], false_1K[0], float(crossing(miss_1K, false_1K)[0]))
    some = next(iter(trials.values()))
    high = min(0.98, max(TOP, 2.5 * max(e for *_, e in lines.values())))
    seen = [
        np.concatenate([miss[false <= high], false[miss <= high]])
        for miss, false, _ in lines.values()
    ]
    low = max(LOWEST, min(float(rates[rates > 0].min(initial=TOP / 2)) for rates in seen))
    said = "; ".join(f"{n}: EER {100 * e:.2f} %" for n, (*_, e) in lines.items())
    drawn = plot.Plot(
        plot.probit("false alarm rate, per cent", low, high),
        plot.probit("miss rate, per cent", low, high),
        alt=f"DET curves. {said}",
        height=300,
    )
    drawn.diagonal()
    for name, (miss, false, eer) in lines.items():
        inside = (miss <= high) & (false <= high)  # what lies below is drawn on the edge
        drawn.line(false[inside].tolist(), miss[inside].tolist(), index[name], gap=STEP)
        drawn.dot(eer, eer, index[name])
    wanted = sum(r == TARGET for r in some.references)
    return Picture(
        svg=drawn.svg(),
        caption=f"Detection error trade-off on {wanted} target and "
        f"{len(some.references) - wanted} nontarget trials, axes of normal deviates; the symbol "
        f"marks equal errors.",
    )
