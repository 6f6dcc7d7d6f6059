"""Rows of published models on a site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mynah.recipes.site.entries import VIEWS, Column, Model


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A number in a table: as text, with its interval, and as what to sort by."""

    text: str = "–"
    ci: str = ""
    sort: str = ""
    best: bool = False


def rows_of(columns: Sequence[Column], models: Sequence[Model]) -> list[dict[str, Any]]:
    """Return rows of published models; without pages, intervals or places.

    They are ranked among each other and the models of the site, as ``mynah score`` does.
    """
    from mynah.recipes import aggregate
    from mynah.recipes.published import beside, rows

    found = {row.model: row for row in beside.beside(columns)}
    ranked = rows.ranked()
    ours = [next(iter(m.standing.values())).values for m in models if m.standing]
    out = []
    for model in rows.models():
        if model.model not in found:
            continue
        cells = found[model.model].cells
        values = rows.of_model(model.model)
        scores = {v: aggregate.superb_s(values, v) for v in VIEWS}
        others = [*(v for n, v in ranked.items() if n != model.model), *ours]
        ranks = {v: aggregate.superb_r(values, others, v) for v in VIEWS}
        out.append(
            {
                "name": model.model,
                "page": "",
                "published": True,
                "params": model.params,
                "macs": None,
                "rank": {v: Shown(text=f"{ranks[v]:.2f}", sort=repr(ranks[v])) for v in VIEWS},
                "score": {
                    v: Shown() if s is None else Shown(text=f"{s:.0f}", sort=repr(s))
                    for v, s in scores.items()
                },
                "centred": Shown(),
                "cells": [
                    Shown(text=beside.shown_as(cells[i]), sort=repr(cells[i].value))
                    if i in cells
                    else Shown()
                    for i in range(len(columns))
                ],
            }
        )
    return out
