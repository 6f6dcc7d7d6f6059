"""The table of ``mynah table`` as flat records, one per cell, and as CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mynah.recipes.table import Table


def records(table: Table, *, published: bool = False) -> list[dict[str, object]]:
    """Return one flat record per cell, values as fractions; published ones last, if wanted."""
    own: list[dict[str, object]] = [
        {
            "upstream": table.origins[name].upstream,
            "task": table.columns[i][0],
            "corpus": table.columns[i][1],
            "protocol": table.columns[i][2],
            "metric": table.columns[i][3],
            "higher_is_better": table.columns[i][4],
            "value": cell.value,
            "low": cell.low,
            "high": cell.high,
            "seed_sd": cell.spread,
            "seeds": cell.seeds,
            "skipped": cell.skipped,
            "run": table.origins[name].run,
            "step": table.origins[name].step,
            "layer": table.origins[name].layer,
        }
        for name, cells in table.rows.items()
        for i, cell in cells.items()
    ]
    if not published:
        return own
    from mynah.recipes.published.beside import records as published_records

    scales = [
        next(cells[i].scale for cells in table.rows.values() if i in cells)
        for i in range(len(table.columns))
    ]
    others = published_records(table.columns, scales)
    names = dict.fromkeys([*own[0], "published", "standing"])
    return [{name: record.get(name) for name in names} for record in (*own, *others)]


def comma_separated(table: Table, *, published: bool = False) -> str:
    """Render as CSV, one line per cell."""
    rows = records(table, published=published)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
