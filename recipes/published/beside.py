"""Published rows beside one's own in a table: the columns that they have, and how far to trust them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mynah.recipes.published.rows import SOURCES, Score, models, scores

MARKS = {"verified": "", "rounded": " ≈", "recalled": " †"}
Column = tuple[str, str, str, str, bool]
"""(task, corpus, protocol, metric, higher_is_better)."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One published model's numbers in the columns of a table.

    Attributes:
        model: its name.
        cells: column index -> number.
    """

    model: str
    cells: dict[int, Score]


def beside(columns: Sequence[Column]) -> list[Beside]:
    """Return the published models that have a number in one of the columns."""
    known = {(s.model, s.task, s.metric): s for s in scores()}
    out = []
    for model in models():
        cells = {
            i: known[model.model, _task(column), column[3]]
            for i, column in enumerate(columns)
            if (model.model, _task(column), column[3]) in known
        }
        if cells:
            out.append(Beside(model=model.model, cells=cells))
    return out


def _task(column: Column) -> str:
    """Return the task, without the note that one's own head is a small one."""
    return column[0].partition(" (")[0]


def shown_as(score: Score) -> str:
    """Return a number as it was published, with a mark where it is rounded or recalled."""
    digits = f"{score.value:g}" if score.standing == "rounded" else f"{score.value:.2f}"
    return digits + MARKS[score.standing]


def records(columns: Sequence[Column], scales: Sequence[float]) -> list[dict[str, object]]:
    """Return one flat record per number, values as fractions where one's own are.

    Args:
        columns: of the table.
        scales: what its values are multiplied by to be shown.
    """
    return [
        {
            "upstream": row.model,
            "task": columns[i][0],
            "corpus": "SUPERB",
            "protocol": "superb",
            "metric": score.metric,
            "higher_is_better": columns[i][4],
            "value": score.value / scales[i],
            "published": score.source,
            "standing": score.standing,
        }
        for row in beside(columns)
        for i, score in row.cells.items()
    ]


def notes(rows: Sequence[Beside]) -> list[str]:
    """Return the lines that belong under a table with published rows."""
    used = [s for row in rows for s in row.cells.values()]
    sources = sorted({s.source for s in used})
    lines = [
        "Published rows are of SUPERB's corpora under protocol superb, without intervals: only such "
        "results of your own compare with them. The best of your own is bold.",
    ]
    standings = {s.standing for s in used}
    if "rounded" in standings:
        lines.append("≈: published with fewer digits.")
    if "recalled" in standings:
        lines.append(
            "†: recalled from the literature, not read again: check it before you quote it."
        )
    lines.append("Sources: " + "; ".join(SOURCES[s] for s in sources) + ".")
    return lines
