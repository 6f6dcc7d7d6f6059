"""The report's pictures, each with a caption, a legend in HTML, and a text alternative."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mynah.recipes.reporting import svg
from mynah.recipes.results import Result
from mynah.recipes.table import Cell, shown_as

ACCENT = "#3b82c4"
ANNOTATE = 14
NAMED = 40


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One figure of the page.

    Attributes:
        svg: inline SVG.
        caption: a sentence or two.
        legend: (colour, name) of what is drawn, empty where axes say it.
    """

    svg: str
    caption: str
    legend: tuple[tuple[str, str], ...] = ()


def short(name: str, width: int = 24) -> str:
    """Return a name cut in the middle to at most ``width`` characters."""
    if len(name) <= width:
        return name
    keep = width - 1
    return f"{name[: keep - keep // 2]}…{name[len(name) - keep // 2 :]}"


def rate(value: float) -> str:
    """Return a learning rate as people write it: ``1e-3``."""
    text = f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return text if float(text) == value else f"{value:g}"


def intervals(cells: Mapping[str, Cell], *, metric: str, higher: bool) -> Picture:
    """Scores with their intervals, best on top."""
    order = sorted(cells, key=lambda u: cells[u].value, reverse=not higher)

    def paint(figure: Any, axes: Any) -> None:
        del figure
        for y, name in enumerate(order):
            c = cells[name]
            ends = [c.scale * c.low, c.scale * c.high]
            axes.plot(ends, [y, y], color=ACCENT, linewidth=3, alpha=0.45)
            axes.plot([c.scale * c.value], [y], "o", color=ACCENT, markersize=6)
        axes.set_yticks(range(len(order)), [short(n) for n in order])
        axes.set_ylim(-0.6, len(order) - 0.4)
        unit = ", per cent" if all(c.scale == 100 for c in cells.values()) else ""
        axes.set_xlabel(f"{metric}{unit}, {'higher' if higher else 'lower'} is better")
        axes.grid(axis="x")

    said = "; ".join(f"{n}: {shown_as(cells[n])}" for n in reversed(order))
    return Picture(
        svg=svg.draw(
            paint, alt=f"{metric}, best first: {said}", width=4.6, height=0.8 + 0.28 * len(order)
        ),
        caption=f"{metric[0].upper()}{metric[1:]} with 95 % bootstrap intervals, best on top.",
    )


def _curves(result: Result, of: str) -> dict[float, tuple[list[int], list[float]]]:
    """Return learning rate -> (steps, mean over folds of a Point's attribute)."""
    seen: dict[float, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for point in result.sweep:
        value = getattr(point, of)
        if value is not None:
            seen[point.learning_rate][point.step].append(value)
    return {
        lr: (sorted(by), [float(np.mean(by[s])) for s in sorted(by)])
        for lr, by in sorted(seen.items())
    }


def _plain_log(axes: Any) -> None:
    """Label a logarithmic y axis at 1, 2 and 5 with plain numbers (no formula is typeset)."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _over(result: Result) -> str:
    """Return ``, mean over n folds`` where there are several."""
    folds = len(result.choices)
    return f", mean over {folds} folds" if folds > 1 else ""


def _rates(result: Result) -> list[float]:
    return sorted({p.learning_rate for p in result.sweep})


def learning(result: Result) -> list[Picture]:
    """The dev metric and the training loss by step, one curve per learning rate."""
    rates = _rates(result)
    colours = {lr: svg.colour(i, len(rates)) for i, lr in enumerate(rates)}
    legend = tuple((colours[lr], rate(lr)) for lr in rates)
    folds, over = len(result.choices), _over(result)
    chosen = ", ".join(
        f"{rate(c.learning_rate)} at step {c.step}" + (f" (fold {c.fold})" if c.fold else "")
        for c in result.choices[:3]
    ) + (" …" if len(result.choices) > 3 else "")
    out = []
    for of, name in (("dev", f"dev {result.metric}"), ("train_loss", "training loss")):
        curves = _curves(result, of)
        if not curves:
            continue
        scale = result.main.scale if of == "dev" else 1.0

        def paint(
            figure: Any,
            axes: Any,
            of: str = of,
            name: str = name,
            curves: dict[float, tuple[list[int], list[float]]] = curves,
            scale: float = scale,
        ) -> None:
            del figure
            for lr, (steps, values) in curves.items():
                mark = "o-" if len(steps) < 3 else "-"
                axes.plot(steps, [scale * v for v in values], mark, color=colours[lr])
            if of == "dev" and folds == 1:
                for c in result.choices:
                    axes.plot(
                        [c.step], [scale * c.dev], "o", markersize=9, markerfacecolor="none",
                        markeredgecolor=svg.INK,
                    )  # fmt: skip
            if of == "train_loss" and all(v > 0 for _, vs in curves.values() for v in vs):
                axes.set_yscale("log")
                _plain_log(axes)
            axes.set_xlabel("step")
            axes.set_ylabel(f"{name}, per cent" if scale == 100 else name)
            axes.grid()

        last = "; ".join(f"{rate(lr)} ends at {scale * v[-1]:.3g}" for lr, (_, v) in curves.items())
        caption = (
            f"{name[0].upper()}{name[1:]} of {result.upstream} by step and learning rate{over}"
        )
        caption += f"; chosen on dev: {chosen}." if of == "dev" else "."
        out.append(
            Picture(
                svg=svg.draw(paint, alt=f"{name} by step: {last}", width=4.4, height=2.7),
                caption=caption,
                legend=legend,
            )
        )
    return out


def sweep(results: Sequence[Result]) -> Picture | None:
    """Best dev score by learning rate, one line per upstream."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    pick = max if results[0].higher_is_better else min
    for result in results:
        curves = _curves(result, "dev")
        if curves:
            lines[result.upstream] = (
                list(curves),
                [result.main.scale * pick(v) for _, v in curves.values()],
            )
    if not lines or max(len(x) for x, _ in lines.values()) < 2:
        return None
    names = list(lines)
    metric = results[0].metric

    def paint(figure: Any, axes: Any) -> None:
        del figure
        for i, name in enumerate(names):
            axes.plot(*lines[name], "o-", color=svg.colour(i, len(names)))
        axes.set_xscale("log")
        ticks = sorted({x for xs, _ in lines.values() for x in xs})
        ticks = ticks[:: 1 + len(ticks) // 8]
        axes.set_xticks(ticks, [rate(x) for x in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("learning rate")
        unit = ", per cent" if results[0].main.scale == 100 else ""
        axes.set_ylabel(f"best dev {metric}{unit}")
        axes.grid()

    said = "; ".join(
        f"{n}: best {pick(y):.1f} at {rate(x[y.index(pick(y))])}" for n, (x, y) in lines.items()
    )
    return Picture(
        svg=svg.draw(
            paint, alt=f"best dev {metric} by learning rate: {said}", width=4.4, height=2.7
        ),
        caption=f"The sweep: best dev {metric} of every learning rate{_over(results[0])}.",
        legend=tuple((svg.colour(i, len(names)), n) for i, n in enumerate(names)),
    )


def layers(results: Sequence[Result]) -> Picture | None:
    """The weight of every layer in the head's weighted sum, one row per upstream."""
    rows = [r for r in results if len(r.layer_weights) > 1]
    if not rows:
        return None
    width = max(len(r.layer_weights) for r in rows)

    def paint(figure: Any, axes: Any) -> None:
        del figure
        image = np.zeros((len(rows), width, 4))
        image[..., :3] = [int(ACCENT[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        for y, r in enumerate(rows):
            weights = np.asarray(r.layer_weights)
            image[y, : len(weights), 3] = weights / max(weights.max(), 1e-12)
            if width <= ANNOTATE:
                for x, w in enumerate(weights):
                    axes.text(x, y, f"{100 * w:.0f}", ha="center", va="center", fontsize=7)
        axes.imshow(image, aspect="auto", interpolation="none")
        axes.set_yticks(range(len(rows)), [short(r.upstream) for r in rows])
        axes.set_xticks(range(0, width, 1 if width <= 16 else 2))
        axes.set_xlabel("layer (0: before the first block)")

    said = "; ".join(
        f"{r.upstream}: most weight ({100 * max(r.layer_weights):.0f} %) on layer "
        f"{int(np.argmax(r.layer_weights))}"
        for r in rows
    )
    return Picture(
        svg=svg.draw(paint, alt=f"layer weights: {said}", width=4.6, height=0.8 + 0.3 * len(rows)),
        caption=f"Weight of each layer in the head's softmax-weighted sum, per cent{_over(rows[0])}.",
    )


def confusion(result: Result) -> Picture | None:
    """Row-normalised confusion matrix, and the most frequent confusions in words."""
    if not result.confusion:
        return None
    count = np.asarray(result.confusion, dtype=np.float64)
    names, n = result.classes, len(result.classes)
    share = count / np.maximum(count.sum(1, keepdims=True), 1)
    wrong = [(int(count[i, j]), names[i], names[j]) for i in range(n) for j in range(n) if i != j]
    worst = sorted((w for w in wrong if w[0]), key=lambda w: (-w[0], w[1], w[2]))[:4]
    said = ", ".join(f"{a} taken for {b} ({c}×)" for c, a, b in worst) or "none"

    def paint(figure: Any, axes: Any) -> None:
        del figure
        image = np.zeros((n, n, 4))
        image[..., :3] = [int(ACCENT[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        image[..., 3] = share
        axes.imshow(image, interpolation="none")
        if n <= ANNOTATE:
            for i in range(n):
                for j in range(n):
                    if count[i, j]:
                        axes.text(j, i, f"{count[i, j]:.0f}", ha="center", va="center", fontsize=7)
        if n <= NAMED:
            size = 8 if n <= 20 else 5
            ticks = [short(c, 12) for c in names]
            axes.set_xticks(range(n), ticks, rotation=90, fontsize=size)
            axes.set_yticks(range(n), ticks, fontsize=size)
        axes.set_xlabel("predicted")
        axes.set_ylabel("reference")

    right = np.trace(count) / max(count.sum(), 1)
    side = 3.6 if n <= ANNOTATE else 4.6
    return Picture(
        svg=svg.draw(
            paint,
            alt=f"confusion matrix of {n} classes, {100 * right:.1f} % on the diagonal; most "
            f"frequent confusions: {said}",
            width=side + 0.4,
            height=side,
        ),
        caption=f"Confusions of {result.upstream} on test; rows sum to one. Most frequent: {said}.",
    )


def scatter(
    points_N2: np.ndarray, labels: Sequence[str], *, by: str, axes_names: tuple[str, str], alt: str
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Points coloured by label; returns the SVG and, with few labels, its legend.

    Each label is one path of dots, which keeps the file small.
    """
    names = sorted(set(labels))
    colours = {name: svg.colour(i, len(names)) for i, name in enumerate(names)}

    def paint(figure: Any, axes: Any) -> None:

        del figure
        given = np.asarray(labels)
        for name in names:
            mine = points_N2[given == name]
            x = np.column_stack([mine[:, 0], mine[:, 0], np.full(len(mine), np.nan)]).ravel()
            y = np.column_stack([mine[:, 1], mine[:, 1], np.full(len(mine), np.nan)]).ravel()
            axes.plot(x, y, color=colours[name], linewidth=4, solid_capstyle="round", alpha=0.8)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(axes_names[0])
        axes.set_ylabel(axes_names[1])
        axes.margins(0.06)

    drawn = svg.draw(paint, alt=f"{alt}, coloured by {by}", width=3.3, height=3.0)
    few = len(names) <= len(svg.COLOURS)
    return drawn, tuple((colours[n], n) for n in names) if few else ()
