"""The models of a leaderboard: who they are, what they cost, and their scores from many folders."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mynah.recipes.aggregate import View

if TYPE_CHECKING:
    from mynah.recipes.results import Result
    from mynah.recipes.score import Drawn, Standing
    from mynah.recipes.table import Cell

Column = tuple[str, str, str, str, bool]
"""(task, corpus, protocol, metric, higher_is_better)."""
Entries = list[tuple[Path, "Result"]]
VIEWS: tuple[View, ...] = ("paper", "public")


@dataclass(frozen=True, kw_only=True)
class LayerPoint:
    """What one hidden state scores by itself."""

    layer: int
    value: float
    low: float
    high: float


@dataclass(kw_only=True)
class Model:
    """One model of the leaderboard.

    Attributes:
        slug: name of its page; depends on its name and fingerprint only.
        name: in tables.
        first: one of its results: parameters, multiply-accumulates, spec.
        entries: its results with the weighted sum over layers, and their files.
        cells: column -> score.
        layers: column -> scores of single hidden states.
        standing: view -> aggregates.
        unscored: why it has no aggregates, if so.
    """

    slug: str
    name: str
    first: Result
    entries: Entries
    cells: dict[Column, Cell] = field(default_factory=dict)
    layers: dict[Column, list[LayerPoint]] = field(default_factory=dict)
    standing: dict[View, Standing] = field(default_factory=dict)
    unscored: str = ""

    @property
    def apart(self) -> bool:
        """Whether it has aggregates, but none of its results was made as published ones were."""
        return any(not s.counted for s in self.standing.values())


def slug_of(name: str, fingerprint: str) -> str:
    """Return a name for a page: ASCII letters, digits, dots and dashes, and six digits of a hash."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", plain).strip("-.").lower()[:60] or "model"
    digest = hashlib.sha256(f"{name}\n{fingerprint}".encode()).hexdigest()[:6]
    return f"{plain}-{digest}"


def gather(folders: Sequence[Path]) -> list[Model]:
    """Return the models of all folders, in order of their names.

    Raises:
        FileNotFoundError: a folder without results.
        ValueError: a damaged result, or two different results of the same run in two folders.
    """
    from mynah.recipes import kept

    seen: dict[tuple[object, ...], tuple[Path, str]] = {}
    of_model: dict[tuple[str, str], Entries] = defaultdict(list)
    for folder in folders:
        for path, result in kept.pairs(folder):
            key = (
                result.upstream, result.fingerprint, result.label, result.corpus, result.protocol,
                result.seed, result.layer, tuple(sorted(result.settings.items())),
            )  # fmt: skip
            metrics = repr(sorted((n, m.value) for n, m in result.metrics.items()))
            if key in seen:
                if seen[key][1] != metrics:
                    raise ValueError(
                        f"{path} and {seen[key][0]} are of the same model, task and seed and say "
                        "different things: leave one out"
                    )
                continue
            seen[key] = (path, metrics)
            of_model[result.upstream, result.fingerprint].append((path, result))
    models = [
        Model(slug=slug_of(name, print_), name=name, first=_counted(entries), entries=entries)
        for (name, print_), entries in sorted(of_model.items())
    ]
    for model in models:
        _score_cells(model)
    _aggregate(models)
    return models


def _counted(entries: Entries) -> Result:
    """Return a result of a model, one with its multiply-accumulates if there is one."""
    return next((r for _, r in entries if r.upstream_macs is not None), entries[0][1])


def columns_of(models: Iterable[Model]) -> list[Column]:
    """Return every column that a model has, in order."""
    return sorted({column for model in models for column in model.cells})


def _score_cells(model: Model) -> None:
    from mynah.recipes.table import collect

    whole = [(p, r) for p, r in model.entries if r.layer is None]
    single = [r for _, r in model.entries if r.layer is not None]
    model.entries = whole
    if whole:
        table = collect([r for _, r in whole])
        (cells,) = table.rows.values()
        model.cells = {table.columns[i]: cell for i, cell in cells.items()}
    if single:
        table = collect(single)
        points: dict[Column, list[LayerPoint]] = defaultdict(list)
        for name, cells in table.rows.items():
            layer = table.origins[name].layer
            assert layer is not None
            for i, cell in cells.items():
                points[table.columns[i]].append(
                    LayerPoint(
                        layer=layer,
                        value=cell.scale * cell.value,
                        low=cell.scale * cell.low,
                        high=cell.scale * cell.high,
                    )
                )
        model.layers = {c: sorted(p, key=lambda one: one.layer) for c, p in sorted(points.items())}


def _aggregate(models: Sequence[Model]) -> None:
    """Give each model SUPERB's score and rank among all, by view, where they can be had.

    Of a task that was also done as the published scores were, other results do not count.
    """
    from mynah.recipes.published import comparable
    from mynah.recipes.score import chosen, drawn, standings

    results: dict[tuple[str, str], Mapping[str, Entries]] = {}
    found: dict[tuple[str, str], Drawn] = {}
    for model in models:
        protocols = {r.protocol for _, r in model.entries}
        protocol = "superb" if "superb" in protocols else None
        whole = {r.task for _, r in model.entries if comparable.alike(r)}
        entries = [(p, r) for p, r in model.entries if r.task not in whole or comparable.alike(r)]
        try:
            (of_task,) = chosen(entries, protocol=protocol, corpus=()).values()
            found[model.slug, protocol or "fixed"] = drawn(of_task)
        except (ValueError, FileNotFoundError) as error:
            model.unscored = str(error)
            continue
        results[model.slug, protocol or "fixed"] = of_task
    by_slug = {model.slug: model for model in models}
    for view in VIEWS if results else ():
        for standing in standings(results, view, found=found):
            by_slug[standing.model].standing[view] = standing
