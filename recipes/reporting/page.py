"""From a folder of results to the page: which pictures and tables each task gets, and the whole."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mynah.recipes.kept import Rows
from mynah.recipes.reporting import (
    comparing,
    detection,
    embeddings,
    figures,
    layering,
    matrix,
    plot,
    project,
    tabulated,
    wrong,
)
from mynah.recipes.reporting.clips import Clip, Clips
from mynah.recipes.reporting.figures import Picture
from mynah.recipes.reporting.groups import Files, by_layer, first_seeds, group, last_steps, rows
from mynah.recipes.reporting.groups import title as title_of
from mynah.recipes.results import Result
from mynah.recipes.table import Table
from mynah.tasks.metrics.detection import NONTARGET, TARGET

log = logging.getLogger(__name__)

DOTS = 6_000  # of all scatter plots together
FEWEST = 50  # dots of one, where there are many
MANY = 24  # runs with utterance means; of more those of the best upstreams are drawn
BEST = 2


@dataclass(frozen=True, kw_only=True)
class Run:
    """One upstream's results of a task.

    Attributes:
        upstream: its id.
        said: its score.
        pictures: of its curves, confusions and utterance means.
        examples: its worst transcripts.
    """

    upstream: str
    said: str
    pictures: tuple[Picture, ...]
    examples: tuple[wrong.Example, ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One task on one corpus under one protocol.

    Attributes:
        title: for the heading.
        anchor: for links.
        facts: what the numbers are: metric signature, n, bootstrap units.
        legend: (markup of the key, upstream) of the pictures over all upstreams.
        overview: pictures over all upstreams.
        hard: the utterances that most upstreams get wrong, or None.
        clips: of the rows of ``hard``, in order.
        unit: what transcripts are made of.
        rates: (markup of the key, learning rate) of all runs, empty where they differ.
        note: on what is not drawn.
        runs: of each upstream.
    """

    title: str
    anchor: str
    facts: str
    legend: tuple[tuple[str, str], ...]
    overview: tuple[Picture, ...]
    hard: wrong.Hard | None
    clips: tuple[tuple[Clip, ...], ...]
    unit: str
    rates: tuple[tuple[str, str], ...]
    note: str
    runs: tuple[Run, ...]

    @property
    def detailed(self) -> bool:
        """Whether any run has more to show than its score."""
        return any(run.pictures or run.examples for run in self.runs)


def embedded(files: Files, result: Result, *, points: int) -> list[Picture]:
    """Return PCA and t-SNE of the utterance means that were kept with a result."""
    if result.embeddings is None:
        return []
    means, predictions = (
        files.beside(result, name) for name in (result.embeddings, result.predictions)
    )
    try:
        kept = embeddings.load(means, predictions)
    except FileNotFoundError as error:
        log.warning("%s: the report goes without its pictures", error)
        return []
    chosen = embeddings.spread(len(kept.ids), points)
    if len(chosen) < 3:
        return []
    mean_ND = kept.mean_ND[chosen]
    made = project.project(mean_ND)
    first, second = made.explained
    views = [(made.pca_N2, f"PCA ({100 * first:.0f} % × {100 * second:.0f} %)")]
    if made.tsne_N2 is not None:
        views.append((made.tsne_N2, f"t-SNE (perplexity {made.perplexity:.0f})"))
    what = " and ".join(name.partition(" ")[0] for _, name in views)
    out = []
    views_by = [("label", kept.labels), (result.main.unit, kept.speakers)]
    if kept.labels == kept.speakers:  # speaker identification
        del views_by[1]
    for by, given in views_by:
        labels = [given[i] for i in chosen]
        kinds = len(set(labels))
        if not 2 <= kinds <= len(labels) // 2:
            continue  # nothing to colour by, as with transcripts
        same, chance = project.neighbours(mean_ND, labels)
        said = (
            f"{what} of {len(chosen)} test utterance means, coloured by {by} ({kinds}). The nearest "
            f"neighbour has the same {by} for {100 * same:.0f} % (chance {100 * chance:.0f} %)."
        )
        drawn, legend = figures.scatter(views, labels, alt=f"{what}, coloured by {by}")
        out.append(Picture(svg=drawn, caption=said, legend=legend))
    return out


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """How many utterance means are drawn, so that a page of many results stays small.

    Attributes:
        points: of one scatter plot.
        best: upstreams of each task.
    """

    points: int
    best: int


def drawn(results: Sequence[Result], points: int) -> Drawn:
    """Return what to draw of results, at most ``points`` in one scatter plot."""
    runs = sum(
        r.embeddings is not None
        for mine in group(results).values()
        for r in last_steps(first_seeds(mine))
    )
    best = BEST if runs > MANY else len(results)
    plots = 4 * min(runs, MANY)
    return Drawn(points=min(points, max(FEWEST, DOTS // max(plots, 1))), best=best)


def sections(
    files: Files, table: Table, index: Mapping[str, int], *, points: int, clips: Clips | None
) -> list[Section]:
    """Return the sections of the page, one per (task, corpus, protocol)."""
    out: list[Section] = []
    asked: list[tuple[Result, tuple[str, ...]]] = []
    limits = drawn(files.results, points)
    for key, mine in group(files.results).items():
        shown = last_steps(first_seeds(mine))
        said = wrong.predictions(files, shown)
        trials = {u: r for u, r in said.items() if set(r.references) == {TARGET, NONTARGET}}
        columns = [i for i, c in enumerate(table.columns) if c[:3] == key]
        pictures: list[Picture | None] = []
        for i in columns:
            cells = {row: c[i] for row, c in table.rows.items() if i in c}
            _, _, _, metric, higher = table.columns[i]
            pictures.append(figures.intervals(cells, index, metric=metric, higher=higher))
        pictures += [
            comparing.by_step(mine),
            figures.sweep(shown, index),
            *layering.weights(files, shown, index),
            layering.alone(mine, index),
            detection.det(trials, index),
        ]
        hard = wrong.hardest(shown, said)
        meant = [r for r in shown if r.embeddings is not None]
        leading = {r.upstream for r in _leading(meant, limits.best)}
        note = ""
        if len(leading) < len(meant):
            note = f"Utterance means are drawn of the {len(leading)} best upstreams."
        names = dict.fromkeys([r.upstream for r in shown] + list(by_layer(mine)))
        out.append(
            Section(
                title=title_of(key),
                anchor=f"task-{len(out) + 1}",
                facts=_facts(mine),
                legend=tuple((plot.key(index[n]), n) for n in sorted(names, key=index.__getitem__)),
                overview=tuple(p for p in pictures if p is not None),
                hard=hard,
                clips=(),
                unit=wrong.unit_of(mine[0]),
                rates=figures.rate_legend(shown),
                note=note,
                runs=tuple(
                    _run(
                        files,
                        r,
                        said.get(r.upstream),
                        points=limits.points if r.upstream in leading else 0,
                        legend=not figures.rate_legend(shown),
                    )
                    for r in shown
                ),
            )
        )
        asked.append((mine[0], hard.ids if hard else ()))
    if clips is None:
        return out
    return [
        dataclasses.replace(s, clips=heard)
        for s, heard in zip(out, clips.shared(asked), strict=True)
    ]


def _leading(shown: Sequence[Result], count: int) -> list[Result]:
    """Return the best results of a task."""
    return sorted(
        shown, key=lambda r: (-r.main.value if r.higher_is_better else r.main.value, r.upstream)
    )[:count]


def _facts(mine: Sequence[Result]) -> str:
    head = mine[0]
    ns = " or ".join(str(n) for n in sorted({r.main.n for r in mine}))
    return (
        f"{head.main.signature}: {ns} items of test, bootstrap over {head.main.units} units of "
        f"{head.main.unit!r}; corpus version {head.corpus_version[:12]}, task version "
        f"{head.task_version}."
    )


def _run(files: Files, result: Result, said: Rows | None, *, points: int, legend: bool) -> Run:
    pictures = (figures.learning(result, legend=legend), matrix.confusion(result))
    means = embedded(files, result, points=points) if points else []
    m = result.main
    seed = f", seed {result.seed}" if result.seed else ""
    return Run(
        upstream=result.upstream,
        said=f"{result.metric} {m.scale * m.value:.2f} [{m.scale * m.low:.2f}, {m.scale * m.high:.2f}]{seed}",
        pictures=tuple(p for p in (*pictures, *means) if p is not None),
        examples=tuple(wrong.examples(result, said)) if said else (),
    )


def indices(results: Sequence[Result], table: Table) -> dict[str, int]:
    """Return the place of each row and upstream among all, by which colours are given."""
    names = [*table.rows, *sorted({r.upstream for r in results})]
    return {name: i for i, name in enumerate(dict.fromkeys(names))}


def render(
    entries: Sequence[tuple[Path, Result]],
    *,
    title: str,
    points: int = 300,
    store: Path | None = None,
    clips: Clips | None = None,
) -> str:
    """Return the whole page; the same results give the same bytes.

    Args:
        entries: files of results, beside which predictions and embeddings lie, and what they hold.
        title: of the page.
        points: utterances per scatter plot at most.
        store: a feature store to describe, or None.
        clips: audio to embed, or None.

    Raises:
        ValueError: damaged predictions or embeddings.
    """
    import jinja2

    files = Files(entries)
    results = files.results
    shown = rows(results)
    scores = tabulated.scores(shown)
    table: Table = scores["table"]
    index = indices(results, table)
    here = Path(__file__).parent
    js = (here / "report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(js.encode()).digest()).decode()
    setup = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return setup.get_template("report.html.j2").render(
        title=title,
        css=(here / "report.css").read_text("utf-8"),
        js=js,
        script_hash=f"sha256-{digest}",
        count=len(results),
        upstreams=sorted({r.upstream for r in results}),
        tasks=sorted({r.task for r in results}),
        warnings=tabulated.warnings(results),
        scores=scores,
        legend=tuple((plot.key(index[n]), n) for n in table.rows),
        forms=plot.forms(),
        sizes=comparing.sizes(table, shown, index),
        radar=comparing.radar(files, last_steps(shown), index),
        sections=sections(files, table, index, points=points, clips=clips),
        runs=tabulated.runs(results),
        protocols=tabulated.protocols(results),
        kept=tabulated.kept(store) if store else None,
        environment=tabulated.environment(results),
        commands=sorted({r.command for r in results}),
        audible=clips is not None,
    )
