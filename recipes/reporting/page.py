"""From a folder of results to the page: what to say about every task, and the warnings first."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mynah.recipes import table as tables
from mynah.recipes.reporting import embeddings, figures, project
from mynah.recipes.reporting.figures import Picture
from mynah.recipes.results import Result, path_of

log = logging.getLogger(__name__)

Group = tuple[str, str, str]  # task, corpus, protocol


@dataclass(frozen=True, kw_only=True)
class Section:
    """One task on one corpus under one protocol.

    Attributes:
        title: for the heading.
        anchor: for links.
        facts: what the numbers are: metric signature, n, bootstrap units.
        overview: pictures over all upstreams.
        runs: (upstream, pictures) of each.
    """

    title: str
    anchor: str
    facts: str
    overview: tuple[Picture, ...]
    runs: tuple[tuple[str, tuple[Picture, ...]], ...]


def group(results: Iterable[Result]) -> dict[Group, list[Result]]:
    """Return results by (task, corpus, protocol), each sorted by upstream and seed."""
    out: dict[Group, list[Result]] = defaultdict(list)
    for r in sorted(results, key=lambda r: (r.label, r.corpus, r.protocol, r.upstream, r.seed)):
        out[r.label, r.corpus, r.protocol].append(r)
    return dict(out)


def first_seeds(results: Sequence[Result]) -> list[Result]:
    """Return the lowest seed of every upstream: curves and pictures show that one."""
    seen: dict[str, Result] = {}
    for r in results:
        seen.setdefault(r.upstream, r)
    return list(seen.values())


def embedded(folder: Path, result: Result, *, points: int) -> list[Picture]:
    """Return PCA and t-SNE of the utterance means that were kept with a result."""
    if result.embeddings is None:
        return []
    home = path_of(
        folder,
        upstream=result.upstream,
        task=result.task,
        protocol=result.protocol,
        corpus=result.corpus,
        seed=result.seed,
        settings=result.settings,
    ).parent
    means, predictions = home / Path(result.embeddings).name, home / Path(result.predictions).name
    try:
        kept = embeddings.load(means, predictions)
    except FileNotFoundError as error:
        log.warning("%s: the report goes without its pictures", error)
        return []
    rows = embeddings.spread(len(kept.ids), points)
    if len(rows) < 3:
        return []
    mean_ND = kept.mean_ND[rows]
    made = project.project(mean_ND)
    views: list[tuple[str, Any, tuple[str, str]]] = [
        (
            "PCA",
            made.pca_N2,
            (f"PC 1 ({100 * made.explained[0]:.0f} %)", f"PC 2 ({100 * made.explained[1]:.0f} %)"),
        )
    ]
    if made.tsne_N2 is not None:
        name = f"t-SNE (perplexity {made.perplexity:.0f})"
        views.append((name, made.tsne_N2, ("t-SNE 1", "t-SNE 2")))
    out = []
    views_by = [("label", kept.labels), (result.main.unit, kept.speakers)]
    if kept.labels == kept.speakers:  # speaker identification
        del views_by[1]
    for by, given in views_by:
        labels = [given[i] for i in rows]
        kinds = len(set(labels))
        if not 2 <= kinds <= len(labels) // 2:
            continue  # nothing to colour by, as with transcripts
        same, chance = project.neighbours(mean_ND, labels)
        for name, points_N2, axes_names in views:
            caption = (
                f"{name} of {len(rows)} test utterance means of {result.upstream}, coloured by "
                f"{by} ({kinds}). The nearest neighbour has the same {by} for {100 * same:.0f} % "
                f"(chance {100 * chance:.0f} %)."
            )
            drawn, legend = figures.scatter(
                points_N2, labels, by=by, axes_names=axes_names, alt=caption
            )
            out.append(Picture(svg=drawn, caption=caption, legend=legend))
    return out


def sections(folder: Path, results: Sequence[Result], *, points: int) -> list[Section]:
    """Return the sections of the page, one per (task, corpus, protocol)."""
    out: list[Section] = []
    for (task, corpus, protocol), mine in group(results).items():
        shown = first_seeds(mine)
        cells = {u: c[0] for u, c in tables.collect(mine).rows.items()}
        head = mine[0]
        overview = [
            figures.intervals(cells, metric=head.metric, higher=head.higher_is_better),
            figures.sweep(shown),
            figures.layers(shown),
        ]
        runs = []
        for r in shown:
            matrix = figures.confusion(r)
            pictures = [*figures.learning(r), *([matrix] if matrix else [])]
            runs.append((r.upstream, (*pictures, *embedded(folder, r, points=points))))
        ns = " or ".join(str(n) for n in sorted({r.main.n for r in mine}))
        facts = (
            f"{head.main.signature}: {ns} items of test, bootstrap over {head.main.units} units of "
            f"{head.main.unit!r}; corpus version {head.corpus_version[:12]}, task version "
            f"{head.task_version}."
        )
        out.append(
            Section(
                title=f"{task} on {corpus} ({protocol})",
                anchor=f"task-{len(out) + 1}",
                facts=facts,
                overview=tuple(p for p in overview if p is not None),
                runs=tuple(runs),
            )
        )
    return out


def warnings(results: Sequence[Result]) -> list[str]:
    """Return what a reader must know before comparing numbers."""
    out = []
    skipped = [r for r in results if r.skipped]
    if skipped:
        names = ", ".join(f"{r.upstream}/{r.task} ({len(r.skipped)})" for r in skipped[:6])
        more = f" and {len(skipped) - 6} more" if len(skipped) > 6 else ""
        out.append(f"Utterances were left out in {len(skipped)} results: {names}{more}.")
    for (task, corpus, protocol), mine in group(results).items():
        terms = {r.terms for r in mine}
        if len(terms) > 1:
            out.append(
                f"{task} on {corpus} ({protocol}) mixes {len(terms)} sets of versions or settings: "
                "do not compare its rows."
            )
        for r in mine:
            rates = sorted({p.learning_rate for p in r.sweep})
            at_edge = [c for c in r.choices if c.learning_rate in (rates[:1] + rates[-1:])]
            if len(rates) > 2 and len(at_edge) * 2 > len(r.choices):
                out.append(
                    f"{r.upstream}, {task} on {corpus} ({protocol}), seed {r.seed}: the chosen "
                    f"learning rate {figures.rate(at_edge[0].learning_rate)} is at the edge of the "
                    "grid; a wider grid may do better."
                )
    different = {k for k, v in environment(results).items() if len(v) > 1}
    if different:
        out.append(
            f"The results come from different environments ({', '.join(sorted(different))}): see "
            "Environment."
        )
    return out


def environment(results: Sequence[Result]) -> dict[str, Counter[str]]:
    """Return for each fact of the environment its values and how many results have each."""
    out: dict[str, Counter[str]] = defaultdict(Counter)
    for r in results:
        for key, value in sorted(r.environment.items()):
            out[key][value] += 1
    return dict(sorted(out.items()))


def scores(results: Sequence[Result]) -> dict[str, Any]:
    """Return the table of scores, ready to print: head, rows of (text, is best), notes."""
    table = tables.collect(results)
    leaders = [tables.best(table, i) for i in range(len(table.columns))]
    rows = [
        (
            upstream,
            [
                (tables.shown_as(cells[i]) if i in cells else "–", leaders[i] == upstream)
                for i in range(len(table.columns))
            ],
        )
        for upstream, cells in table.rows.items()
    ]
    head = [tables.heading(c) for c in table.columns]
    return {"head": head, "rows": rows, "notes": tables.notes(table)}


def seconds(value: float) -> str:
    """Return seconds for people."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def runs(results: Sequence[Result]) -> dict[str, Any]:
    """Return the table of runs: what exactly was scored, and what it cost."""
    parts = sorted({name for r in results for name in r.costs})
    head = [
        "upstream",
        "task",
        "corpus",
        "protocol",
        "seed",
        "score",
        "learning rate",
        "train / dev / test",
        "head parameters",
        "upstream parameters",
        "fingerprint",
        "features",
        "forwards",
        "passes",
        *(f"{p}, CPU s" for p in parts),
    ]
    rows = []
    for mine in group(results).values():
        for r in mine:
            chosen = Counter(figures.rate(c.learning_rate) for c in r.choices)
            cost = [seconds(r.costs[p].cpu) if p in r.costs else "–" for p in parts]
            rows.append(
                [
                    r.upstream,
                    r.label,
                    r.corpus,
                    r.protocol,
                    str(r.seed),
                    f"{r.main.scale * r.main.value:.2f}",
                    ", ".join(k if len(chosen) == 1 else f"{k} ({n}×)" for k, n in chosen.items()),
                    f"{r.n_train} / {r.n_dev} / {r.n_test}",
                    f"{r.head_params:,}",
                    f"{r.upstream_params:,}",
                    r.fingerprint[:12],
                    r.features,
                    str(r.forwards),
                    f"{r.passes:.1f}",
                    *cost,
                ]
            )
    return {"head": head, "rows": rows}


def kept(store: Path) -> dict[str, Any]:
    """Return the table of what a feature store holds."""
    from mynah.upstream.store import FeatureStore
    from mynah.upstream.store.choose import size

    rows = []
    for folder in FeatureStore(store).folders():
        meta = folder.meta
        used = sum(p.stat().st_size for p in folder.shards())
        rows.append(
            [
                meta.upstream,
                meta.fingerprint[:12],
                meta.precision,
                meta.kind,
                meta.dtype,
                f"{meta.num_layers} × {meta.dim}",
                str(len(folder.table().entries)),
                size(used),
            ]
        )
    head = [
        "upstream",
        "fingerprint",
        "precision",
        "kind",
        "dtype",
        "layers × width",
        "records",
        "size",
    ]
    return {"head": head, "rows": rows}


def render(
    folder: Path,
    results: Sequence[Result],
    *,
    title: str,
    points: int = 300,
    store: Path | None = None,
) -> str:
    """Return the whole page; the same results give the same bytes.

    Args:
        folder: of the results, beside which embeddings lie.
        results: what to show.
        title: of the page.
        points: utterances per scatter plot at most.
        store: a feature store to describe, or None.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    setup = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return setup.get_template("report.html.j2").render(
        title=title,
        count=len(results),
        upstreams=sorted({r.upstream for r in results}),
        tasks=sorted({r.task for r in results}),
        warnings=warnings(results),
        scores=scores(results),
        sections=sections(folder, results, points=points),
        runs=runs(results),
        kept=kept(store) if store else None,
        environment=environment(results),
        commands=sorted({r.command for r in results}),
    )
