"""Pictures of one task's scores: intervals, the sweep, learning curves, means in two dimensions."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mynah.recipes.reporting import plot, svg
from mynah.recipes.results import Result
from mynah.recipes.table import Cell, shown_as

NAME = 52  # letters that fit into a picture's width
POINTS = 50  # of the learning curves of one run
SPREAD = 5  # a loss that falls by less is not drawn logarithmically


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One figure of the page.

    Attributes:
        svg: inline SVG.
        caption: a sentence or two.
        legend: (markup of the key, name) of what is drawn, empty where axes or the page say it.
        kind: class of the figure, "" for the usual width.
    """

    svg: str
    caption: str
    legend: tuple[tuple[str, str], ...] = ()
    kind: str = ""


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


def unit(scale: float) -> str:
    """Return what follows the name of a metric that is shown multiplied by ``scale``."""
    return ", per cent" if scale == 100 else ""


def direction(*, higher: bool) -> str:
    """Return which way is better, as a word."""
    return "higher is better" if higher else "lower is better"


def intervals(
    cells: Mapping[str, Cell], index: Mapping[str, int], *, metric: str, higher: bool
) -> Picture:
    """Scores with their intervals, best on top; names stand above the intervals, uncut.

    Args:
        cells: row -> score.
        index: row -> its place among all things of the page.
        metric: what is shown.
        higher: whether more is better.
    """
    order = sorted(cells, key=lambda u: (cells[u].value, u), reverse=higher)
    if not higher:
        order = sorted(cells, key=lambda u: (cells[u].value, u))
    scale = next(iter(cells.values())).scale
    ends = [c.scale * e for c in cells.values() for e in (c.low, c.high, c.value)]
    axis = plot.linear(metric, ends, margin=0.02)
    row, top, width = 30, 4, plot.WIDTH
    bottom = top + row * len(order)

    def at(value: float) -> float:
        return 8 + axis(value) * (width - 16)

    body = [
        '<path class="g" d="'
        + "".join(f"M{plot.number(at(t))} {top}V{bottom}" for t, _ in axis.ticks)
        + '"/>'
    ]
    for i, name in enumerate(order):
        c, y = cells[name], top + row * i
        low, high = (plot.number(at(c.scale * e)) for e in (c.low, c.high))
        digits = 1 if c.scale == 100 else 2
        body.append(
            f'<text x="8" y="{y + 12}" class="s">{html.escape(short(name, NAME - 8))}</text>'
            f'<text x="{width - 8}" y="{y + 12}" class="e">{c.scale * c.value:.{digits}f}</text>'
            f'<path class="i c{index[name] % plot.COLOURS}" d="M{low} {y + 21}H{high}"/>'
            + plot.shape(index[name], at(c.scale * c.value), y + 21)
        )
    labels = "".join(
        f'<text x="{plot.number(at(t))}" y="{bottom + 13}">{label}</text>'
        for t, label in axis.ticks
    )
    better = direction(higher=higher)
    body.append(f'<g class="m">{labels}</g>')
    body.append(
        f'<text x="{width - 8}" y="{bottom + 27}" class="e">{html.escape(metric)}{unit(scale)}, {better}</text>'
    )
    alt = f"{metric}, {better}; best: {order[0]}, {shown_as(cells[order[0]])}"
    return Picture(
        svg=plot.wrapped("".join(body), alt=alt, width=width, height=bottom + 32),
        caption=f"Test {metric} with 95 % bootstrap intervals, best on top.",
    )


def curves(result: Result, of: str) -> dict[float, tuple[list[int], list[float]]]:
    """Return learning rate -> (steps, mean over folds of a Point's attribute)."""
    seen: dict[float, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for point in result.sweep:
        value = getattr(point, of)
        if value is not None and point.layer is None:
            seen[point.learning_rate][point.step].append(value)
    return {
        lr: (sorted(by), [float(np.mean(by[s])) for s in sorted(by)])
        for lr, by in sorted(seen.items())
    }


def over(result: Result) -> str:
    """Return ``, mean over n folds`` where there are several."""
    folds = len(result.choices)
    return f", mean over {folds} folds" if folds > 1 else ""


def rates(result: Result) -> list[float]:
    """Return the learning rates of a sweep."""
    return sorted({p.learning_rate for p in result.sweep if p.layer is None})


def _thin(
    steps: Sequence[int], values: Sequence[float], most: int
) -> tuple[list[int], list[float]]:
    """Return at most so many points of a curve, evenly spread, with its first and last."""
    n = len(steps)
    at = range(n) if n <= most else [i * (n - 1) // (most - 1) for i in range(most)]
    return [steps[i] for i in at], [values[i] for i in at]


def rate_legend(results: Sequence[Result]) -> tuple[tuple[str, str], ...]:
    """Return the legend of learning rates where all results have the same, else an empty one."""
    grids = {tuple(rates(r)) for r in results}
    grid = grids.pop() if len(grids) == 1 else ()
    return tuple((plot.key(i, symbol=False), rate(lr)) for i, lr in enumerate(grid))


def learning(result: Result, *, legend: bool = True) -> Picture | None:
    """The dev metric above the training loss by step, one curve per learning rate.

    Args:
        result: with its sweep.
        legend: whether the picture says which curve is which.
    """
    grid = rates(result)
    index = {lr: i for i, lr in enumerate(grid)}
    folds = len(result.choices)
    steps_axis = plot.whole("step", [p.step for p in result.sweep if p.layer is None], count=4)
    drawn: list[plot.Plot] = []
    for of, name in (("dev", f"dev {result.metric}"), ("train_loss", "training loss")):
        found = curves(result, of)
        if not found or max(len(s) for s, _ in found.values()) < 2:
            continue
        scale = result.main.scale if of == "dev" else 1.0
        scaled = {lr: (s, [scale * v for v in vs]) for lr, (s, vs) in found.items()}
        values = [v for _, vs in scaled.values() for v in vs]
        y = plot.linear(f"{name}{unit(scale)}", values, count=4)
        if of == "train_loss" and 0 < SPREAD * min(values) < max(values):
            y = plot.logarithmic(name, values)
        last = ", ".join(f"{vs[-1]:.3g} ({rate(lr)})" for lr, (_, vs) in scaled.items())
        one = plot.Plot(
            steps_axis,
            y,
            alt=f"{name} at the end: {last}" if of == "dev" else name,
            height=140,
            digits=0,
        )
        most = max(8, POINTS // len(scaled))
        for lr, (steps, vs) in scaled.items():
            one.line(*_thin(steps, vs, most), index[lr])
        if of == "dev" and folds == 1:
            for c in result.choices:
                one.ring(c.step, scale * c.dev)
        drawn.append(one)
    if not drawn:
        return None
    chosen = ", ".join(
        f"{rate(c.learning_rate)} at step {c.step}" + (f" (fold {c.fold})" if c.fold else "")
        for c in result.choices[:3]
    ) + (" and so on" if len(result.choices) > 3 else "")
    return Picture(
        svg=plot.beneath(drawn),
        caption=f"By step and learning rate{over(result)}; chosen on dev (ring): {chosen}.",
        legend=rate_legend([result]) if legend else (),
    )


def sweep(results: Sequence[Result], index: Mapping[str, int]) -> Picture | None:
    """Best dev score by learning rate (or by layer, where one is chosen), a line per upstream."""
    if not results:
        return None
    layered = any(p.layer is not None for r in results for p in r.sweep)
    pick = max if results[0].higher_is_better else min
    scale, metric = results[0].main.scale, results[0].metric
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for r in results:
        seen: dict[float, list[float]] = defaultdict(list)
        if layered:
            for p in r.sweep:
                if p.layer is not None and p.dev is not None:
                    seen[p.layer].append(p.dev)
        else:
            seen.update({lr: [pick(vs)] for lr, (_, vs) in curves(r, "dev").items()})
        if seen:
            xs = sorted(seen)
            lines[r.upstream] = (xs, [scale * float(np.mean(seen[x])) for x in xs])
    if not lines or max(len(x) for x, _ in lines.values()) < 2:
        return None
    every = sorted({x for xs, _ in lines.values() for x in xs})
    what = "layer" if layered else "learning rate"
    show = (lambda x: f"{x:.0f}") if layered else rate
    said = "; ".join(
        f"{n}: best {pick(y):.3g} at {show(x[y.index(pick(y))])}" for n, (x, y) in lines.items()
    )
    positive = not layered and every[0] > 0
    drawn = plot.Plot(
        plot.logarithmic(what, every, label=rate, at=every)
        if positive
        else plot.whole(what, every),
        plot.linear(f"best dev {metric}{unit(scale)}", [v for _, ys in lines.values() for v in ys]),
        alt=f"best dev {metric} by {what}: {said}",
    )
    for name, (xs, ys) in lines.items():
        drawn.line(xs, ys, index[name])
        drawn.dot(xs[ys.index(pick(ys))], pick(ys), index[name])
    return Picture(
        svg=drawn.svg(),
        caption=f"The sweep: best dev {metric} of every {what}{over(results[0])}; the symbol is on "
        "the best.",
    )


def scatter(
    views: Sequence[tuple[np.ndarray, str]], labels: Sequence[str], *, alt: str
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Points coloured by label; returns the SVG and, with few labels, its legend.

    Each label is one path of dots, which keeps the file small.

    Args:
        views: of the same points in two dimensions, (N, 2) each, side by side, and their names.
        labels: of each point.
        alt: what the picture says.
    """
    side, height, edge = plot.WIDTH // 2, 160, 7
    kinds = sorted(set(labels))
    few = len(kinds) <= plot.COLOURS
    given = np.asarray(labels)
    body = []
    for at, (points_N2, name) in enumerate(views):
        low, span = points_N2.min(0), np.maximum(np.ptp(points_N2, axis=0), 1e-12)
        x_N, y_N = ((points_N2 - low) / span).T
        u_N = np.rint(at * side + edge + x_N * (side - 2 * edge)).astype(int)
        v_N = np.rint(height - 16 - edge - y_N * (height - 16 - 2 * edge)).astype(int)
        for i, kind in enumerate(kinds):
            mine = given == kind
            spots = zip(u_N[mine].tolist(), v_N[mine].tolist(), strict=True)
            paint = f'class="c{i}"' if few else f'stroke="{svg.colour(i, len(kinds))}"'
            body.append(f'<path {paint} d="{"".join(f"M{u} {v}h0" for u, v in spots)}"/>')
        body.append(
            f'<text x="{at * side + 4}" y="{height - 3}" class="s">{html.escape(name)}</text>'
        )
    legend = tuple((plot.spot(i), kind) for i, kind in enumerate(kinds))
    drawn = plot.wrapped("".join(body), alt=alt, width=side * len(views), height=height, kind="p")
    return drawn, legend if few else ()
