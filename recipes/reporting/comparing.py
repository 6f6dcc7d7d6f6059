"""Pictures over all upstreams: scores against size, a radar of each, scores by step of pretraining."""

from __future__ import annotations

import html
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mynah.recipes import aggregate
from mynah.recipes.kept import Rows
from mynah.recipes.reporting import plot
from mynah.recipes.reporting.figures import Picture, direction, short, unit
from mynah.recipes.reporting.groups import Files, Group, group, title
from mynah.recipes.reporting.wrong import predictions
from mynah.recipes.results import Result
from mynah.recipes.table import Cell, Table

SIZES = (
    ("upstream_params", "parameters"),
    ("upstream_macs", "MACs per second of audio"),
)
SMALL = 240
SPOKES = 3  # fewer make no radar


@dataclass(frozen=True, kw_only=True)
class Sized:
    """A picture of one task's scores against a size, and the task's heading."""

    picture: Picture
    task: str


def sizes(table: Table, results: Sequence[Result], index: Mapping[str, int]) -> list[Sized]:
    """Scores of every column against parameters and against multiply-accumulates.

    Args:
        table: of scores.
        results: that it was made of.
        index: row -> its place among all things of the page.
    """
    out = []
    of_row = {
        r.upstream if r.layer is None else f"{r.upstream} layer {r.layer}": r for r in results
    }
    for column, (task, corpus, protocol, metric, higher) in enumerate(table.columns):
        cells = {n: c[column] for n, c in table.rows.items() if column in c}
        for field, what in SIZES:
            known = {n: getattr(of_row[n], field) for n in cells}
            known = {n: size for n, size in known.items() if size}
            if len(set(known.values())) < 2:
                continue
            of = title((task, corpus, protocol))
            picture = _against(
                {n: (float(known[n]), cells[n]) for n in known},
                index,
                what=what,
                score=metric,
                of=of,
                higher=higher,
                without=len(cells) - len(known),
            )
            out.append(Sized(picture=picture, task=of))
    return out


def _against(
    points: Mapping[str, tuple[float, Cell]],
    index: Mapping[str, int],
    *,
    what: str,
    score: str,
    of: str,
    higher: bool,
    without: int,
) -> Picture:
    scale = next(iter(points.values()))[1].scale
    drawn = plot.Plot(
        plot.logarithmic(what, [x for x, _ in points.values()]),
        plot.linear(f"{score}{unit(scale)}", [scale * c.value for _, c in points.values()]),
        alt=f"{score} of {len(points)} upstreams against {what}; the table of scores has the numbers",
        width=SMALL,
        height=170,
    )
    for name, (x, c) in points.items():
        drawn.dot(x, scale * c.value, index[name])
    left = f" Not counted for {without}." if without else ""
    return Picture(
        svg=drawn.svg(),
        caption=f"{of} against {what}; {direction(higher=higher)}.{left}",
    )


@dataclass(frozen=True, kw_only=True)
class Radar:
    """A radar of each upstream, and the numbers that they show.

    Attributes:
        pictures: one for each upstream.
        head: of the table: the upstream, and the spokes.
        table: rows of the upstream and its share of the way from chance to perfect, as text.
        caption: how the spokes are normalised.
    """

    pictures: tuple[Picture, ...]
    head: tuple[str, ...]
    table: tuple[tuple[str, ...], ...]
    caption: str


def chance(result: Result, rows: Rows | None) -> float | None:
    """Return what guessing scores, as tables show it; a classifier's is its commonest class.

    None where that is not known: a classifier whose predictions are gone.
    """
    _, floor, _ = aggregate.CENTRED[result.task]
    if floor is not None:
        return floor
    return None if rows is None else 100 * rows.chance()


def radar(files: Files, results: Sequence[Result], index: Mapping[str, int]) -> Radar | None:
    """Return a radar of every upstream over tasks that have a chance level and a perfect score.

    A spoke runs from chance (the centre) to a perfect score (the rim), as in the centred mean of
    ``mynah score``; what is worse than chance lies in the centre.

    Args:
        files: of the results.
        results: rows of tables, any seeds.
        index: row -> its place among all things of the page.
    """
    spokes: dict[Group, dict[str, list[float]]] = {}
    left: list[str] = []
    for key, mine in group(results).items():
        head = mine[0]
        floor = None
        if head.task in aggregate.CENTRED:
            said = (rows for r in mine for rows in predictions(files, [r]).values())
            floor = chance(head, next(said, None))
        if floor is None or aggregate.CENTRED[head.task][0] not in head.metrics:
            left.append(key[0])
            continue
        metric, _, perfect = aggregate.CENTRED[head.task]
        shares: dict[str, list[float]] = defaultdict(list)
        for r in mine:
            name = r.upstream if r.layer is None else f"{r.upstream} layer {r.layer}"
            value = r.metrics[metric].scale * r.metrics[metric].value
            shares[name].append((value - floor) / (perfect - floor))
        spokes[key] = dict(shares)
    if len(spokes) < SPOKES:
        return None
    names = _spoke_names(list(spokes))
    means = {
        row: [sum(s[row]) / len(s[row]) if row in s else None for s in spokes.values()]
        for row in dict.fromkeys(n for s in spokes.values() for n in s)
    }
    order = sorted(means, key=lambda n: index[n])
    gone = (
        f" Without {', '.join(dict.fromkeys(left))}: no chance level or no perfect score."
        if left
        else ""
    )
    return Radar(
        pictures=tuple(
            _one(n, names, means[n], index[n]) for n in order
            if sum(v is not None for v in means[n]) >= SPOKES
        ),
        head=("upstream", *names),
        table=tuple(
            (n, *("–" if v is None else f"{v:.2f}" for v in means[n])) for n in order
        ),
        caption="Every spoke runs from what guessing scores (0, the centre) to a perfect score (1, the "
        "rim): (value - chance) / (perfect - chance). What is worse than guessing lies in the centre; "
        f"a task without a result is left open.{gone}",
    )  # fmt: skip


def _spoke_names(keys: Sequence[Group]) -> list[str]:
    """Return task names, with corpus and protocol where a task is there more than once."""
    tasks = [task.partition(" ")[0] for task, _, _ in keys]
    return [
        task if tasks.count(task) == 1 else " ".join(key)
        for task, key in zip(tasks, keys, strict=True)
    ]


def _one(name: str, spokes: Sequence[str], shares: Sequence[float | None], index: int) -> Picture:
    width, height, radius = 240.0, 200.0, 70.0
    x0, y0, n = width / 2, height / 2, len(spokes)

    def at(i: int, share: float) -> tuple[float, float]:
        angle = 2 * math.pi * i / n
        return x0 + radius * share * math.sin(angle), y0 - radius * share * math.cos(angle)

    rings = "".join(plot.track([at(i, s) for i in range(n)]) + "z" for s in (0.25, 0.5, 0.75, 1))
    arms = "".join(plot.track([(x0, y0), at(i, 1)]) for i in range(n))
    body = [f'<path class="g" d="{rings}{arms}"/>']
    known = [(i, min(1.0, max(0.0, s))) for i, s in enumerate(shares) if s is not None]
    ends = [at(i, s) for i, s in known]
    body.append(f'<path class="a c{index % plot.COLOURS}" d="{plot.track(ends)}z"/>')
    for i, spoke in enumerate(spokes):
        x, y = at(i, 1.14)
        side = "s" if x > x0 + 8 else "e" if x < x0 - 8 else "m"
        body.append(
            f'<text x="{plot.number(x)}" y="{plot.number(y + 4)}" class="{side}">{html.escape(short(spoke, 12))}</text>'
        )
    said = ", ".join(f"{spokes[i]} {s:.2f}" for i, s in known)
    return Picture(
        svg=plot.wrapped("".join(body), alt=f"{name}: {said}", width=width, height=height),
        caption=name,
        kind="small",
    )


def by_step(results: Sequence[Result]) -> Picture | None:
    """Scores by step of pretraining, a line with its interval for each run (``--checkpoints``).

    Args:
        results: of one task; seeds are averaged.
    """
    runs: dict[str, dict[int, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for r in results:
        if r.upstream_run is not None and r.upstream_step is not None and r.layer is None:
            runs[r.upstream_run][r.upstream_step].append(r)
    runs = {name: steps for name, steps in sorted(runs.items()) if len(steps) > 1}
    if not runs:
        return None
    first = results[0]
    scale = first.main.scale
    lines = {
        name: [
            (step, *(scale * sum(getattr(r.main, of) for r in rs) / len(rs)
                     for of in ("value", "low", "high")))
            for step, rs in sorted(steps.items())
        ]
        for name, steps in runs.items()
    }  # fmt: skip
    said = "; ".join(
        f"{n}: {ps[0][1]:.3g} at step {ps[0][0]}, {ps[-1][1]:.3g} at step {ps[-1][0]}"
        for n, ps in lines.items()
    )
    drawn = plot.Plot(
        plot.whole("step of pretraining", [p[0] for ps in lines.values() for p in ps], count=5),
        plot.linear(
            f"{first.metric}{unit(scale)}", [v for ps in lines.values() for p in ps for v in p[1:]]
        ),
        alt=f"{first.metric} by step of pretraining. {said}",
    )
    for i, points in enumerate(lines.values()):
        steps, values, low, high = (list(c) for c in zip(*points, strict=True))
        drawn.band(steps, low, high, i)
        drawn.line(steps, values, i)
        for step, value in zip(steps, values, strict=True):
            drawn.dot(step, value, i)
    return Picture(
        svg=drawn.svg(),
        caption=f"Test {first.metric} by step of pretraining with 95 % intervals, "
        f"{direction(higher=first.higher_is_better)}. {said}.",
        legend=tuple((plot.key(i), n) for i, n in enumerate(lines)),
    )
