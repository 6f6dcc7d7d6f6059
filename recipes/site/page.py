"""What the page of one model says: its scores and places, single hidden states, costs, commands."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from mynah.recipes.site import among, pictures
from mynah.recipes.site.cells import cell, place
from mynah.recipes.site.entries import VIEWS, Column, Model

PARTS = ("extract", "train", "score")


def page(
    model: Model, row: dict[str, Any], columns: Sequence[Column], models: Sequence[Model]
) -> dict[str, Any]:
    """Return what the template of a model's page shows.

    Args:
        model: whose.
        row: its row in the table of all.
        columns: of own scores.
        models: all of the site.
    """
    from mynah.recipes.table import heading

    own = [c for c in columns if c in model.cells]
    return {
        "m": row,
        "among": among.table(model),
        "spec": model.first.spec,
        "fingerprint": model.first.fingerprint,
        "unscored": model.unscored,
        "missing": {v: model.standing[v].missing if v in model.standing else [] for v in VIEWS},
        "rows": [
            {
                "title": heading(c),
                "cell": cell(model, c, models),
                "seeds": model.cells[c].seeds,
                "place": place(model, c, models),
                "of": sum(c in m.cells for m in models),
            }
            for c in own
        ],
        "figures": [
            {
                "svg": pictures.layers(c, points),
                "caption": f"{heading(c)}: one probe per hidden state",
            }
            for c, points in model.layers.items()
        ],
        "parts": PARTS,
        "costs": [_cost(model, c) for c in own],
        "commands": sorted({r.command for _, r in model.entries}),
    }


def _cost(model: Model, column: Column) -> dict[str, Any]:
    from mynah.recipes.table import heading

    runs = [r for _, r in model.entries if (r.label, r.corpus, r.protocol, r.metric) == column[:4]]
    seconds = []
    for part in PARTS:
        found = [r.costs[part].cpu for r in runs if part in r.costs]
        seconds.append(f"{statistics.fmean(found):.1f}" if found else "–")
    return {
        "title": heading(column),
        "seconds": seconds,
        "forwards": max(r.forwards for r in runs),
        "head": f"{runs[0].head_params:,}",
    }
