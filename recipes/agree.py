"""``mynah agree A B``: do two folders of results put the same upstreams in the same order?

For each task and corpus that both have, Spearman's rank correlation of the upstreams' scores (means
over seeds), as with ``mynah bench --quick`` against the whole protocol, or ``fixed`` against ``superb``.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

if TYPE_CHECKING:
    from mynah.recipes.results import Result

LEAST = 3  # upstreams that an order needs


@dataclass(frozen=True, kw_only=True)
class Args:
    """Compare the order of upstreams in two folders of results."""

    first: Annotated[Path, Positional]
    """Folder of results."""
    second: Annotated[Path, Positional]
    """Another one, of the same upstreams and corpora."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One task on one corpus.

    Attributes:
        task: its name.
        corpus: name of the corpus.
        upstreams: how many both folders have.
        correlation: Spearman's; None where one folder gives all of them the same score.
        first: CPU seconds of the first folder's results.
        second: of the second's.
    """

    task: str
    corpus: str
    upstreams: int
    correlation: float | None
    first: float
    second: float


def compare(first: Iterable[Result], second: Iterable[Result]) -> list[Agreement]:
    """Return one agreement per task and corpus that both sides have of three upstreams or more."""
    from scipy.stats import spearmanr

    sides = [_by_column(results) for results in (first, second)]
    found = []
    for column in sorted(sides[0].keys() & sides[1].keys()):
        a, b = sides[0][column], sides[1][column]
        names = sorted(a.keys() & b.keys())
        if len(names) < LEAST:
            continue
        scores = [
            [statistics.fmean(r.main.value for r in side[n]) for n in names] for side in (a, b)
        ]
        flat = any(len(set(side)) == 1 for side in scores)
        value = math.nan if flat else float(spearmanr(*scores).statistic)
        found.append(
            Agreement(
                task=column[0],
                corpus=column[1],
                upstreams=len(names),
                correlation=None if math.isnan(value) else value,
                first=_seconds(r for n in names for r in a[n][:1]),
                second=_seconds(r for n in names for r in b[n][:1]),
            )
        )
    return found


def _by_column(results: Iterable[Result]) -> dict[tuple[str, str], dict[str, list[Result]]]:
    out: dict[tuple[str, str], dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for r in results:
        task = r.task if r.layer is None else f"{r.task} layer {r.layer}"
        out[task, r.corpus][r.upstream].append(r)
    return out


def _seconds(results: Iterable[Result]) -> float:
    """Return what training and scoring cost; extraction is paid by whoever comes first."""
    return sum(c.cpu for r in results for stage, c in r.costs.items() if stage != "extract")


def lines(found: Iterable[Agreement]) -> list[str]:
    """Return a Markdown table and the mean."""
    rows = list(found)
    out = [
        "| task, corpus | upstreams | rank correlation | CPU s, first | CPU s, second |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        value = "one score for all" if row.correlation is None else f"{row.correlation:.2f}"
        out.append(
            f"| {row.task}, {row.corpus} | {row.upstreams} | {value} | {row.first:.0f} | "
            f"{row.second:.0f} |"
        )
    known = [row.correlation for row in rows if row.correlation is not None]
    mean = f"{statistics.fmean(known):.2f}" if known else "–"
    first, second = sum(r.first for r in rows), sum(r.second for r in rows)
    out.append(f"| **mean** | | {mean} | {first:.0f} | {second:.0f} |")
    return out


def main(args: Args) -> int:
    """Print the table; exit status 1 if there is nothing to compare.

    Raises:
        FileNotFoundError: no results.
        ValueError: a damaged result.
    """
    from mynah.recipes.progress import console
    from mynah.recipes.results import load_all

    found = compare(load_all(args.first), load_all(args.second))
    if not found:
        console.print(f"no task of which both folders have {LEAST} upstreams or more")
        return 1
    for line in lines(found):
        console.print(line, markup=False)
    return 0
