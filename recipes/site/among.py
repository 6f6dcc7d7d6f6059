"""One model among the published ones, over the tasks that both have.

SUPERB's score is not defined where a task is missing, and most published rows lack some. Here the
same formula is taken over whatever tasks a model and a published row share, with every metric of a
task.
"""

from __future__ import annotations

import math
from typing import Any

from mynah.recipes.aggregate import REFERENCES, Values, point
from mynah.recipes.site.entries import Model


def table(model: Model) -> dict[str, Any] | None:
    """Return a model beside each published row; None where none of its tasks counts among them.

    ``tasks``: those that count; ``rank``: superb_r over them; ``rows``: name, number of tasks that
    both have, both scores over these and in how many tasks the model is better, the highest score of
    the published first.
    """
    from mynah.recipes.published import rows

    standing = next(iter(model.standing.values()), None)
    own = points(standing.placed) if standing and standing.counted else {}
    if not own:
        return None
    out = []
    for row in rows.models():
        theirs = points(rows.of_model(row.model))
        both = sorted(own.keys() & theirs.keys())
        if both:
            out.append(
                {
                    "name": row.model,
                    "tasks": len(both),
                    "ours": _mean([own[t] for t in both]),
                    "theirs": _mean([theirs[t] for t in both]),
                    "better": sum(own[t] > theirs[t] for t in both),
                }
            )
    assert standing is not None
    return {
        "tasks": sorted(own),
        "rank": f"{_rank(standing.placed, [*rows.ranked().values()]):.2f}",
        "rows": sorted(out, key=lambda r: (-r["theirs"], r["name"])),
    }


def points(values: Values) -> dict[str, float]:
    """Return the points of each task of which every metric is there."""
    out = {}
    for task in dict.fromkeys(task for task, _ in REFERENCES):
        keys = [key for key in REFERENCES if key[0] == task]
        if all(key in values for key in keys):
            out[task] = _mean([point(key, values[key]) for key in keys])
    return out


def _rank(values: Values, others: list[dict[tuple[str, str], float]]) -> float:
    """Return superb_r over the tasks of a model: the mean number of others below it."""
    ranks = []
    for task in points(values):
        keys = [key for key in REFERENCES if key[0] == task]
        below = [
            sum(point(key, o[key]) < point(key, values[key]) for o in others if key in o)
            for key in keys
        ]
        ranks.append(_mean(below))
    return _mean(ranks)


def _mean(values: list[float] | list[int]) -> float:
    return math.fsum(values) / len(values)
