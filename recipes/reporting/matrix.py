"""The confusion matrix as a small picture, and the most frequent confusions in words."""

from __future__ import annotations

import html

import numpy as np

from mynah.recipes.reporting import plot
from mynah.recipes.reporting.figures import Picture, short
from mynah.recipes.results import Result

COUNTED = 8  # classes, at most, whose cells bear numbers
NUMBERED = 12  # classes, at most, whose columns are all numbered
SHOWN = 20  # classes at most
LEVELS = 8  # of shading


def confusion(result: Result) -> Picture | None:
    """Row-normalised confusion matrix of a classification task, None of others.

    Of many classes those with the most errors are shown.
    """
    if not result.confusion:
        return None
    count = np.asarray(result.confusion, dtype=np.float64)
    n = len(result.classes)
    wrong = [(int(count[i, j]), i, j) for i, j in zip(*np.nonzero(count), strict=True) if i != j]
    worst = sorted(wrong, key=lambda w: (-w[0], w[1], w[2]))[:4]
    said = ", ".join(
        f"{result.classes[i]} taken for {result.classes[j]} ({c}×)" for c, i, j in worst
    )
    share = count / np.maximum(count.sum(1, keepdims=True), 1)
    shown = list(range(n))
    caption = (
        f"Confusions on test; rows are references and sum to one. Most frequent: {said or 'none'}."
    )
    if n > SHOWN:
        errors = count.sum(1) + count.sum(0) - 2 * count.diagonal()
        shown = sorted(np.argsort(-errors, kind="stable")[:SHOWN].tolist())
        caption += f" Of {n} classes the {SHOWN} with the most errors are drawn."
    right = 100 * np.trace(count) / max(count.sum(), 1)
    alt = f"confusion matrix of {n} classes, {right:.1f} % on the diagonal"
    names = [short(result.classes[i], 12) for i in shown]
    return Picture(
        svg=_drawn(names, share[np.ix_(shown, shown)], count[np.ix_(shown, shown)], alt),
        caption=caption,
    )


def _drawn(names: list[str], share: np.ndarray, count: np.ndarray, alt: str) -> str:
    n = len(names)
    left = 28 + plot.GLYPH * max(map(len, names))
    cell = min(26.0, (plot.WIDTH - 6 - left) / n)
    width, top = plot.WIDTH, 16.0
    levels: dict[int, list[str]] = {}
    for i, j in zip(*np.nonzero(share), strict=True):
        level = max(1, round(LEVELS * float(share[i, j])))
        levels.setdefault(level, []).append(f"M{j} {i}h1")
    body = [
        f'<g transform="translate({plot.number(left)} {plot.number(top)}) scale({cell:.2f})">'
        f'<path class="n" d="M0 0h{n}v{n}h-{n}z"/>'
        + "".join(
            f'<path class="h" transform="translate(0 .5)" style="opacity:{level / LEVELS * 0.8:.1f}" d="{"".join(cells)}"/>'
            for level, cells in sorted(levels.items())
        )
        + "</g>"
    ]
    every = 1 if n <= NUMBERED else 2  # columns; rows are all numbered
    numbers = "".join(
        f'<text x="{round(left + (i + 0.5) * cell)}" y="11">{i + 1}</text>'
        for i in range(0, n, every)
    )
    body.append(f'<g class="m">{numbers}</g>')
    rows = "".join(
        f'<text y="{round(top + (i + 0.5) * cell + 3.5)}">{html.escape(name)} {i + 1}</text>'
        for i, name in enumerate(names)
    )
    body.append(f'<g class="e" transform="translate({round(left - 5)} 0)">{rows}</g>')
    if n <= COUNTED:
        cells = "".join(
            f'<text x="{plot.number(left + (j + 0.5) * cell)}" y="{plot.number(top + (i + 0.5) * cell + 3.5)}">{count[i, j]:.0f}</text>'
            for i, j in zip(*np.nonzero(count), strict=True)
        )
        body.append(f'<g class="m">{cells}</g>')
    return plot.wrapped("".join(body), alt=alt, width=width, height=top + n * cell + 4)
