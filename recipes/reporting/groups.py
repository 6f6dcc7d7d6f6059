"""Which results a page shows where: rows, pictures of the last step, hidden states by themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from mynah.recipes.results import Result

Group = tuple[str, str, str]
"""(task with what makes it another number, corpus, protocol)."""


def group(results: Iterable[Result]) -> dict[Group, list[Result]]:
    """Return results by (task, corpus, protocol), each sorted by upstream, layer and seed."""
    out: dict[Group, list[Result]] = defaultdict(list)
    order = sorted(
        results,
        key=lambda r: (
            r.label, r.corpus, r.protocol, r.upstream, -1 if r.layer is None else r.layer, r.seed,
        ),
    )  # fmt: skip
    for r in order:
        out[r.label, r.corpus, r.protocol].append(r)
    return dict(out)


def title(of: Group) -> str:
    """Return a group's heading."""
    task, corpus, protocol = of
    return f"{task} on {corpus} ({protocol})"


def rows(results: Sequence[Result]) -> list[Result]:
    """Return what tables of scores show: weighted sums, and what there is of upstreams without any.

    Single hidden states of an upstream with a weighted sum on the same task are in a picture of
    their own (:func:`by_layer`).
    """
    out = []
    for mine in group(results).values():
        summed = {r.upstream for r in mine if r.layer is None}
        out += [r for r in mine if r.layer is None or r.upstream not in summed]
    return out


def by_layer(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results of single hidden states by upstream, where there are several."""
    out: dict[str, list[Result]] = defaultdict(list)
    for r in results:
        if r.layer is not None:
            out[r.upstream].append(r)
    return {u: rs for u, rs in out.items() if len({r.layer for r in rs}) > 1}


def last_steps(results: Sequence[Result]) -> list[Result]:
    """Return the results without those of earlier checkpoints of a run that is there later, too."""
    last: dict[str, int] = {}
    for r in results:
        if r.upstream_run is not None and r.upstream_step is not None:
            last[r.upstream_run] = max(last.get(r.upstream_run, 0), r.upstream_step)
    return [
        r
        for r in results
        if r.upstream_run is None
        or r.upstream_step is None
        or r.upstream_step == last[r.upstream_run]
    ]


def first_seeds(results: Sequence[Result]) -> list[Result]:
    """Return the lowest seed of every upstream's weighted sum: pictures of one run show that."""
    seen: dict[str, Result] = {}
    for r in results:
        if r.layer is None:
            seen.setdefault(r.upstream, r)
    return list(seen.values())


class Files:
    """Results of a folder, and what lies beside each.

    Args:
        entries: files of results, and what they hold.
    """

    def __init__(self, entries: Sequence[tuple[Path, Result]]) -> None:
        self.results = [result for _, result in entries]
        self._paths = {id(result): path for path, result in entries}

    def path(self, result: Result) -> Path:
        """Return the file of a result."""
        return self._paths[id(result)]

    def beside(self, result: Result, name: str) -> Path:
        """Return a file that a probe left beside a result; only its name counts."""
        return self.path(result).with_name(Path(name).name)
