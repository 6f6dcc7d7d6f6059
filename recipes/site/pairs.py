"""Every two models of a leaderboard, task by task, on the same utterances."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mynah.recipes.site.entries import Model

if TYPE_CHECKING:
    from mynah.recipes.compare import Entry
    from mynah.recipes.paired import Side

DRAWS = 500
MOST = 780  # pairs: of 40 models


def paired(models: Sequence[Model]) -> dict[str, list[dict[str, Any]]]:
    """Return ``slug|slug`` -> paired differences of each task that both have.

    Positive is better for the first. Nothing is returned beyond :data:`MOST` pairs; what cannot be
    compared has no interval and says why.
    """
    from mynah.recipes import compare

    chosen = list(itertools.combinations(models, 2))
    if len(chosen) > MOST:
        return {}
    kept: dict[tuple[Path, ...], Side] = {}

    def side(entries: Sequence[Entry]) -> Side:
        key = tuple(path for path, _ in entries)
        if key not in kept:
            kept[key] = compare.scored_again(entries)
        return kept[key]

    grouped = {model.slug: _grouped(model) for model in models}
    out: dict[str, list[dict[str, Any]]] = {}
    for a, b in chosen:
        try:
            tested, refused = compare.compare(
                grouped[a.slug], grouped[b.slug], draws=DRAWS, side=side
            )
        except (ValueError, FileNotFoundError) as error:
            out[f"{a.slug}|{b.slug}"] = [{"task": "", "corpus": "", "why": str(error)}]
            continue
        rows: list[dict[str, Any]] = [
            {
                "task": t.task,
                "corpus": t.corpus,
                "metric": t.metric,
                "better": round(t.scale * t.found.better.value, 4),
                "low": round(t.scale * t.found.better.low, 4),
                "high": round(t.scale * t.found.better.high, 4),
                "p": round(t.corrected, 4),
                "unit": t.found.unit,
                "units": t.found.units,
            }
            for t in tested
        ]
        rows += [{"task": r.task, "corpus": r.corpus, "why": r.reason} for r in refused]
        out[f"{a.slug}|{b.slug}"] = rows
    return out


def _grouped(model: Model) -> Any:
    """Return a model's results by task, corpus and protocol, which both sides must share."""
    from mynah.recipes import compare

    return compare.grouped(model.entries) if model.entries else {}
