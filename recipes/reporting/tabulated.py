"""The tables of the page, and what a reader must know before comparing their numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mynah.recipes import table as tables
from mynah.recipes.reporting import figures
from mynah.recipes.reporting.groups import group, title
from mynah.recipes.results import Result


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A cell: text, what follows it in small type, what to sort by, whether it is the best."""

    text: str = "–"
    more: str = ""
    sort: str = ""
    best: bool = False


def scores(results: Sequence[Result]) -> dict[str, Any]:
    """Return the table of scores: ``head``, ``rows`` (name, cells) and ``notes``, ready to print.

    Besides scores it has sizes and the mean place: over the columns that a row has a score in, 1
    where it is the best in all of them.
    """
    table = tables.collect(results)
    known = {r.upstream: r for r in sorted(results, key=lambda r: r.upstream_macs is not None)}
    places = [_places(table, i) for i in range(len(table.columns))]
    head: list[dict[str, str]] = [
        {"title": "mean place", "first": "ascending", "task": ""},
        {"title": "parameters", "first": "ascending", "task": ""},
        {"title": "MAC/s of audio", "first": "ascending", "task": ""},
    ]
    if table.has_steps:
        head.insert(0, {"title": "step", "first": "ascending", "task": ""})
    for column in table.columns:
        order = "descending" if column[4] else "ascending"
        head.append({"title": tables.heading(column), "first": order, "task": title(column[:3])})
    rows = []
    for name, cells in table.rows.items():
        origin = known[table.origins[name].upstream]
        mine = [places[i][name] for i in cells]
        mean = sum(mine) / len(mine)
        row = [
            Shown(text=f"{mean:.1f}", more=f"({len(mine)} scores)", sort=repr(mean)),
            _size(origin.upstream_params),
            _size(origin.upstream_macs),
        ]
        if table.has_steps:
            step = table.origins[name].step
            row.insert(
                0, Shown(text=tables.step_of(table, name), sort="" if step is None else str(step))
            )
        row += [
            _score(cells[i], places[i][name]) if i in cells else Shown()
            for i in range(len(table.columns))
        ]
        rows.append((name, row))
    return {"head": head, "rows": rows, "notes": tables.notes(table), "table": table}


def _places(table: tables.Table, column: int) -> dict[str, int]:
    """Return the place of each row in a column, 1 the best; equal scores share a place."""
    values = {name: cells[column].value for name, cells in table.rows.items() if column in cells}
    higher = table.columns[column][4]
    return {
        name: 1 + sum(o > own if higher else o < own for o in values.values())
        for name, own in values.items()
    }


def _score(cell: tables.Cell, place: int) -> Shown:
    text = tables.shown_as(cell)
    value, _, rest = text.partition(" ")
    return Shown(
        text=value, more=f"{rest} #{place}", sort=repr(cell.scale * cell.value), best=place == 1
    )


def _size(value: int | None) -> Shown:
    if value is None:
        return Shown()
    text = f"{value / 1e6:,.1f} M" if value >= 1e5 else f"{value:,}"
    return Shown(text=text, sort=str(value))


def warnings(results: Sequence[Result]) -> list[str]:
    """Return what a reader must know before comparing numbers."""
    out = []
    skipped = [r for r in results if r.skipped]
    if skipped:
        names = ", ".join(f"{r.upstream}/{r.task} ({len(r.skipped)})" for r in skipped[:6])
        more = f" and {len(skipped) - 6} more" if len(skipped) > 6 else ""
        out.append(f"Utterances were left out in {len(skipped)} results: {names}{more}.")
    for key, mine in group(results).items():
        terms = {
            tuple(t for t in r.terms if not (isinstance(t, tuple) and t[0] == "layer"))
            for r in mine
        }
        if len(terms) > 1:
            out.append(
                f"{title(key)} mixes {len(terms)} sets of versions or settings: "
                "do not compare its rows."
            )
    out += _at_edges(results)
    different = {k for k, v in environment(results).items() if len(v) > 1}
    if different:
        out.append(
            f"The results come from different environments ({', '.join(sorted(different))}): see "
            "Environment."
        )
    return out


def _at_edges(results: Sequence[Result]) -> list[str]:
    """Return for each task which weighted sums chose a learning rate at the edge of the grid."""
    out = []
    for key, mine in group(r for r in results if r.layer is None).items():
        found = []
        for r in mine:
            grid = figures.rates(r)
            at_edge = [c for c in r.choices if c.learning_rate in (grid[:1] + grid[-1:])]
            if len(grid) > 2 and len(at_edge) * 2 > len(r.choices):
                seed = f", seed {r.seed}" if r.seed else ""
                found.append(f"{r.upstream} ({figures.rate(at_edge[0].learning_rate)}{seed})")
        if found:
            more = f" and {len(found) - 6} more" if len(found) > 6 else ""
            out.append(
                f"{title(key)}: the chosen learning rate is at the edge of the grid, and a wider one "
                f"may do better: {', '.join(found[:6])}{more}."
            )
    return out


def environment(results: Sequence[Result]) -> dict[str, Counter[str]]:
    """Return for each fact of the environment its values and how many results have each."""
    out: dict[str, Counter[str]] = defaultdict(Counter)
    for r in results:
        for key, value in sorted(r.environment.items()):
            out[key][value] += 1
    return dict(sorted(out.items()))


def seconds(value: float) -> str:
    """Return seconds for people."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def runs(results: Sequence[Result]) -> dict[str, Any]:
    """Return the table of runs: what exactly was scored, and what it cost."""
    parts = sorted({name for r in results for name in r.costs})
    head = [
        "upstream", "task", "corpus", "protocol", "seed", "layer", "score", "learning rate",
        "train / dev / test", "head parameters", "fingerprint", "features", "forwards", "passes",
        *(f"{p}, CPU s" for p in parts),
    ]  # fmt: skip
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
                    "sum" if r.layer is None else str(r.layer),
                    f"{r.main.scale * r.main.value:.2f}",
                    ", ".join(k if len(chosen) == 1 else f"{k} ({n}×)" for k, n in chosen.items()),
                    f"{r.n_train} / {r.n_dev} / {r.n_test}",
                    f"{r.head_params:,}",
                    r.fingerprint[:12],
                    r.features,
                    str(r.forwards),
                    f"{r.passes:.1f}",
                    *cost,
                ]
            )
    return {"head": head, "rows": rows}


def protocols(results: Sequence[Result]) -> dict[str, Any]:
    """Return the table of protocols: settings, versions and signature of what each task measured."""
    rows = []
    for key, mine in group(results).items():
        for signature, settings in dict.fromkeys(
            (r.main.signature, "; ".join(f"{k} {v}" for k, v in sorted(r.settings.items()) if v and k != "layer"))
            for r in mine
        ):  # fmt: skip
            same = mine[0]
            version = f"task {same.task_version}, corpus {same.corpus_version[:12]}"
            rows.append([title(key), signature, version, settings or "–"])
    return {"head": ["task", "signature of the metric", "versions", "settings"], "rows": rows}


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
    head = ["upstream", "fingerprint", "precision", "kind", "dtype", "layers × width", "records",
            "size"]  # fmt: skip
    return {"head": head, "rows": rows}
