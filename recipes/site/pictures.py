"""Pictures of the leaderboard: score against size, and what each hidden state knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mynah.recipes.reporting import svg
from mynah.recipes.site.entries import Column, LayerPoint

NAMED = 12  # points, at most, that bear names: more would lie on each other
Point = tuple[str, float, float]
"""(name, x, y)."""


def against(points: Sequence[Point], *, x: str, y: str) -> str:
    """Return inline SVG of scores against a size; "" with fewer than two points.

    Args:
        points: of models.
        x: what the size is, drawn logarithmically.
        y: what the score is.
    """
    points = [p for p in points if p[1] > 0]
    if len(points) < 2:
        return ""

    def paint(_: Any, axes: Any) -> None:
        axes.set_xscale("log")
        axes.grid(visible=True)
        for index, (name, size, score) in enumerate(points):
            axes.plot([size], [score], "o", color=svg.colour(index, len(points)))
            if len(points) <= NAMED:
                axes.annotate(
                    name[:28], (size, score), textcoords="offset points", xytext=(5, 4), fontsize=7
                )
        axes.margins(x=0.25, y=0.15)
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    said = "; ".join(f"{name}: {size:.4g}, {score:.4g}" for name, size, score in points)
    return svg.draw(paint, alt=f"{y} against {x}. {said}", width=5.2, height=3.4)


def layers(column: Column, points: Sequence[LayerPoint]) -> str:
    """Return inline SVG of the scores of single hidden states."""

    def paint(_: Any, axes: Any) -> None:
        x = [p.layer for p in points]
        axes.fill_between(
            x, [p.low for p in points], [p.high for p in points], color=svg.COLOURS[0], alpha=0.2
        )
        axes.plot(x, [p.value for p in points], "o-", color=svg.COLOURS[0])
        axes.set_xticks(x)
        axes.set_xlabel("hidden state")
        axes.set_ylabel(column[3])
        axes.grid(visible=True)

    said = "; ".join(f"{p.layer}: {p.value:.2f}" for p in points)
    title = f"{column[0]} on {column[1]}, {column[3]} by hidden state"
    return svg.draw(paint, alt=f"{title}. {said}", width=4.2, height=2.8)
