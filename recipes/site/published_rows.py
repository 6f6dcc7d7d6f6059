"""Rows of published models on a site, and the columns that they stand in.

A published number is of SUPERB's corpus under protocol superb. It stands in a column of one's own
only if every result there was made so; otherwise it has a column to itself, so that what cannot be
compared is never sorted together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mynah.recipes.site.cells import Shown
from mynah.recipes.site.entries import VIEWS, Column, Model

if TYPE_CHECKING:
    from mynah.recipes.published.rows import Score


def official(columns: Sequence[Column], models: Sequence[Model]) -> list[Column]:
    """Return the columns in which every result was made as the published ones.

    Not those of OOD-ASR, whose published number is a mean over four corpora.
    """
    from mynah.recipes.published import comparable

    found: dict[Column, bool] = dict.fromkeys(columns, True)
    for model in models:
        for _, r in model.entries:
            column = (r.label, r.corpus, r.protocol, r.metric, r.higher_is_better)
            found[column] = found[column] and comparable.alike(r)
    return [c for c in columns if found[c] and len(comparable.CORPORA[_task(c)]) == 1]


def added(columns: Sequence[Column], models: Sequence[Model]) -> list[Column]:
    """Return the columns of published numbers whose task and metric one's own stand in no official one."""
    from mynah.recipes.published import comparable, rows

    have = {(c[0], c[3]) for c in official(columns, models)}
    known = {(s.task, s.metric) for s in rows.scores()}
    out = set()
    for label, _, _, metric, higher in columns:
        task = label.partition(" (")[0]
        if (task, metric) in known - have:
            corpora = comparable.CORPORA.get(_task((task,)), ())
            corpus = corpora[0] if len(corpora) == 1 else "SUPERB"
            out.add((task, corpus, "superb", metric, higher))
    return sorted(out)


def rows_of(columns: Sequence[Column], models: Sequence[Model]) -> list[dict[str, Any]]:
    """Return rows of published models; without pages, intervals or places.

    They are ranked among each other and the models of the site that were scored as they were, as
    ``mynah score`` does.

    Args:
        columns: those that published numbers stand in.
        models: of the site.
    """
    from mynah.recipes import aggregate
    from mynah.recipes.published import beside, rows

    found = {row.model: row for row in beside.beside(columns)}
    ranked = rows.ranked()
    ours = [s.placed for m in models if (s := m.standing.get("paper")) and s.counted]
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
                "apart": False,
                "params": model.params,
                "macs": None,
                "rank": {v: Shown(text=f"{ranks[v]:.2f}", sort=repr(ranks[v])) for v in VIEWS},
                "score": {
                    v: Shown() if s is None else Shown(text=f"{s:.0f}", sort=repr(s))
                    for v, s in scores.items()
                },
                "centred": Shown(),
                "cells": {columns[i]: _shown(score) for i, score in cells.items()},
            }
        )
    return out


def _shown(score: Score) -> Shown:
    from mynah.recipes.published import beside

    text, _, mark = beside.shown_as(score).partition(" ")
    return Shown(text=text, mark=mark, sort=repr(score.value))


def _task(column: Sequence[Any]) -> str:
    """Return the task, without a language model or a small head."""
    return str(column[0]).partition(" (")[0].partition("+")[0]
