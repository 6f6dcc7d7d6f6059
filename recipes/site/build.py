"""From models to pages: a dictionary of files, the same bytes for the same results."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mynah.recipes.aggregate import VIEWS as TASKS_OF
from mynah.recipes.site import pairs, pictures, published_rows
from mynah.recipes.site.cells import Shown, cell, interval
from mynah.recipes.site.entries import VIEWS, Column, Model, columns_of
from mynah.recipes.site.page import page

FORMAT = 1


def pages(models: Sequence[Model], *, title: str, published: bool) -> dict[str, str]:
    """Return every file of the site by its path."""
    import jinja2

    here = Path(__file__).parent
    js = (here / "site.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(js.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(
        css=(here / "site.css").read_text("utf-8"),
        js=js,
        script_hash=f"sha256-{digest}",
        views=VIEWS,
    )
    columns = columns_of(models)
    extra = published_rows.added(columns, models) if published else []
    shown = [*columns, *extra]
    heads = [_head(c) for c in shown]
    ranked = _by_rank(models)
    mixed = published or any(m.standing and not m.apart for m in models)
    rows = [_row(m, shown, models, mixed=mixed) for m in ranked]
    theirs = []
    if published:
        open_ = [*published_rows.official(columns, models), *extra]
        theirs = published_rows.rows_of(open_, models)
        for row in theirs:
            row["cells"] = [row["cells"].get(c, Shown()) for c in shown]
    found = pairs.paired(models)
    files = {
        "index.html": environment.get_template("index.html.j2").render(
            up="",
            title=title,
            models=_standing_together(rows, theirs),
            own=len(rows),
            columns=heads,
            kinds=len(columns),
            published=bool(theirs),
            mixed=mixed,
            apart=any(m.apart for m in models),
            figures=_sizes(rows, heads[: len(columns)]),
            notes=_notes(models, published=bool(theirs)),
        ),
        "compare.html": environment.get_template("compare.html.j2").render(
            up="",
            models=[{"slug": m.slug, "name": m.name} for m in models],
            data=_script_json(_comparable(models, columns, found)),
        ),
        "data/results.json": json.dumps(as_data(models, columns, found), indent=1, sort_keys=True)
        + "\n",
    }
    for model, row in zip(ranked, rows, strict=True):
        files[f"models/{model.slug}.html"] = environment.get_template("model.html.j2").render(
            up="../", **page(model, row, columns, models)
        )
    return files


def as_data(
    models: Sequence[Model], columns: Sequence[Column], found: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Return the site's data for other programs.

    ``models`` by slug: name, spec, fingerprint, sizes, ``aggregates`` by view, ``scores`` (in the
    units of publication: value, low, high, seeds) and ``layers``; ``among_published`` of an aggregate
    are the tasks that it is of and ranked by among published rows, [] where it is not; ``pairs``: ``slug|slug`` -> paired
    differences, positive where the first is better.
    """
    return {
        "format": FORMAT,
        "models": {
            m.slug: {
                "name": m.name,
                "spec": m.first.spec,
                "fingerprint": m.first.fingerprint,
                "parameters": m.first.upstream_params,
                "macs_per_second": m.first.upstream_macs,
                "aggregates": {
                    view: {
                        "superb_r": s.superb_r._asdict(),
                        "superb_s": s.superb_s and s.superb_s._asdict(),
                        "missing": s.missing,
                        "among_published": s.counted,
                    }
                    for view, s in m.standing.items()
                },
                "scores": [
                    {
                        **_column(c),
                        "value": m.cells[c].scale * m.cells[c].value,
                        "low": m.cells[c].scale * m.cells[c].low,
                        "high": m.cells[c].scale * m.cells[c].high,
                        "seeds": m.cells[c].seeds,
                        "skipped": m.cells[c].skipped,
                    }
                    for c in columns
                    if c in m.cells
                ],
                "layers": [
                    {**_column(c), "points": [vars(p) for p in points]}
                    for c, points in m.layers.items()
                ],
            }
            for m in models
        },
        "pairs": found,
    }


def _column(column: Column) -> dict[str, Any]:
    names = ("task", "corpus", "protocol", "metric", "higher_is_better")
    return dict(zip(names, column, strict=True))


def _head(column: Column) -> dict[str, Any]:
    from mynah.recipes.table import heading

    task = column[0].partition(" (")[0]
    views = ["all", *(view for view in VIEWS if task in TASKS_OF[view])]
    title = heading(column)
    label, corpus = column[:2]
    return {
        "title": title,
        "parts": [label, corpus, title.removeprefix(f"{label} {corpus} ")],
        "higher": column[4],
        "views": " ".join(views),
    }


def _by_rank(models: Sequence[Model]) -> list[Model]:
    """Return models, the best of the paper's view first; those without a rank last."""

    def order(m: Model) -> tuple[float, str]:
        standing = m.standing.get("paper")
        return (-standing.superb_r.value if standing else 1.0, m.name)

    return sorted(models, key=order)


def _standing_together(
    own: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the rows of a table: own models among published ones, by rank; the others apart.

    Those stand first where no own model stands among published ones, else last.
    """
    among = [r for r in own if not r["apart"]]
    if theirs:
        among = sorted(
            [*among, *theirs],
            key=lambda r: (
                -float(r["rank"]["paper"].sort or -1.0),
                -float(r["score"]["paper"].sort or "-inf"),
                r["name"],
            ),
        )
    apart = [r for r in own if r["apart"]]
    return [*among, *apart] if any(not r["published"] for r in among) else [*apart, *among]


def _row(
    model: Model, columns: Sequence[Column], models: Sequence[Model], *, mixed: bool
) -> dict[str, Any]:
    """Return a model's row.

    Args:
        model: whose.
        columns: of the table.
        models: all own.
        mixed: whether models are ranked among published rows on this site; the ranks and scores of
            the others are not sorted with theirs then.
    """
    standing = model.standing
    any_one = next(iter(standing.values()), None)

    def placed(found: Any, digits: int) -> Shown:
        shown = interval(found, digits)
        return replace(shown, sort="") if mixed and model.apart else shown

    return {
        "name": model.name,
        "page": f"models/{model.slug}.html",
        "published": False,
        "apart": model.apart,
        "params": model.first.upstream_params,
        "macs": model.first.upstream_macs,
        "rank": {v: placed(standing[v].superb_r if v in standing else None, 2) for v in VIEWS},
        "score": {v: placed(standing[v].superb_s if v in standing else None, 0) for v in VIEWS},
        "centred": interval(any_one.centred if any_one else None, 3),
        "cells": [cell(model, c, models) for c in columns],
    }


def _sizes(rows: Sequence[dict[str, Any]], heads: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return pictures of scores against sizes: of superb_r, and of every column."""
    out = []
    for size, label in (("params", "parameters"), ("macs", "multiply-accumulates per second")):
        kinds = [("superb_r (paper)", [r["rank"]["paper"] for r in rows])]
        kinds += [(h["title"], [r["cells"][i] for r in rows]) for i, h in enumerate(heads)]
        for title, cells in kinds[:7]:
            points = [
                (r["name"], float(r[size]), float(c.sort))
                for r, c in zip(rows, cells, strict=True)
                if r[size] and c.sort
            ]
            if svg := pictures.against(points, x=label, y=title):
                out.append({"svg": svg, "caption": f"{title} against {label}"})
    return out


def _notes(models: Sequence[Model], *, published: bool) -> list[str]:
    out = [f"{m.name}: no superb_s or superb_r: {m.unscored}" for m in models if m.unscored]
    for m in models:
        standing = m.standing.get("paper")
        out += [f"{m.name}: {remark}" for remark in (standing.remarks if standing else ())]
        if standing and standing.counted and len(standing.counted) < len(standing.corpora):
            out.append(f"{m.name}: among published rows counts only {', '.join(standing.counted)}")
    if published:
        out.append(
            "Published rows are of SUPERB's corpora under protocol superb, without intervals. Only "
            "results on the whole test sets of these, under protocol superb and by its heads, stand "
            "among them. ≈ was published with fewer digits, † is recalled and was not read again."
        )
    return out


def _comparable(
    models: Sequence[Model], columns: Sequence[Column], found: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    return {
        "columns": [
            {
                "title": _head(c)["title"],
                "task": c[0],
                "corpus": c[1],
                "metric": c[3],
                "higher": c[4],
            }
            for c in columns
        ],
        "models": {
            m.slug: {
                "name": m.name,
                "cells": {
                    i: m.cells[c].scale * m.cells[c].value
                    for i, c in enumerate(columns)
                    if c in m.cells
                },
            }
            for m in models
        },
        "pairs": found,
    }


def _script_json(data: Any) -> str:
    """Return JSON that cannot end the element it stands in."""
    text = json.dumps(data, sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
