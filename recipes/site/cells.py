"""Numbers as a site shows them: text, interval, what to sort by, and the place among its models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mynah.recipes.site.entries import Column, Model


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A number in a table: as text, with a mark and its interval, and as what to sort by."""

    text: str = "–"
    mark: str = ""
    ci: str = ""
    sort: str = ""
    best: bool = False


def interval(found: Any, digits: int) -> Shown:
    """Return (value, low, high) with so many digits, nothing of None."""
    if found is None:
        return Shown()
    value, low, high = found
    return Shown(
        text=f"{value:.{digits}f}", ci=f"[{low:.{digits}f}, {high:.{digits}f}]", sort=repr(value)
    )


def cell(model: Model, column: Column, models: Sequence[Model]) -> Shown:
    """Return a model's score in a column; the best of several models is marked."""
    from mynah.recipes.table import numbers

    found = model.cells.get(column)
    if found is None:
        return Shown()
    text, ci = numbers(found)
    return Shown(
        text=text,
        ci=ci,
        sort=repr(found.scale * found.value),
        best=place(model, column, models) == 1 and sum(column in m.cells for m in models) > 1,
    )


def place(model: Model, column: Column, models: Sequence[Model]) -> int:
    """Return a model's place in a column among the models of the site, from 1."""
    own = model.cells[column].value
    others = [m.cells[column].value for m in models if column in m.cells]
    return 1 + sum(o > own if column[4] else o < own for o in others)
