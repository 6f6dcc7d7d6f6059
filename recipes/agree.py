"""``mynah agree A B``: do two folders of results put the same upstreams in the same order?

For each task and corpus that both have, Spearman's rank correlation of the upstreams' scores (means
over seeds), as with ``mynah bench --quick`` against the whole protocol, or ``fixed`` against ``superb``.
Small heads and protocols are set against their like; where the folders share none, against each other.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

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
        task: its name, with what makes it another number; ``A against B`` where that differs.
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


class Column(NamedTuple):
    """What a score must share with others to be averaged or ranked with them.

    Attributes:
        task: its name, and whether a language model decodes it.
        corpus: name of the corpus.
        layer: the one hidden state that the heads read, empty for the weighted sum: in order.
    """

    task: str
    corpus: str
    layer: tuple[int, ...]


class Variant(NamedTuple):
    """How a column was measured, which the two folders may differ in.

    Attributes:
        label: the task with what makes it another number, :attr:`Result.label`.
        protocol: ``superb`` or ``fixed``.
    """

    label: str
    protocol: str

    def text(self, layer: tuple[int, ...]) -> str:
        """Return what it is called: ``pr (small head) layer 3``; ``fixed`` is not said."""
        protocol = [] if self.protocol == "fixed" else [self.protocol]
        return " ".join([self.label, *(f"layer {k}" for k in layer), *protocol])


Side = dict[Column, dict[Variant, dict[str, list["Result"]]]]
"""Column -> variant -> upstream -> seeds."""


def compare(first: Iterable[Result], second: Iterable[Result]) -> list[Agreement]:
    """Return one agreement per column that both sides have of three upstreams or more.

    Of the variants that a column was measured in, those that both sides have are compared, each with
    itself; where they share none, each of one side with each of the other.
    """
    sides = [_by_column(results) for results in (first, second)]
    found = []
    for column in sorted(sides[0].keys() & sides[1].keys()):
        a, b = sides[0][column], sides[1][column]
        shared = [(variant, variant) for variant in sorted(a.keys() & b.keys())]
        for one, other in shared or product(sorted(a), sorted(b)):
            names = [each.text(column.layer) for each in dict.fromkeys((one, other))]
            agreement = _agreement(" against ".join(names), column.corpus, a[one], b[other])
            found += [] if agreement is None else [agreement]
    return found


def _agreement(
    task: str, corpus: str, first: dict[str, list[Result]], second: dict[str, list[Result]]
) -> Agreement | None:
    """Return how two sets of upstreams agree, None where they share too few."""
    from scipy.stats import spearmanr

    names = sorted(first.keys() & second.keys())
    if len(names) < LEAST:
        return None
    scores = [
        [statistics.fmean(r.main.value for r in side[n]) for n in names] for side in (first, second)
    ]
    flat = any(len(set(side)) == 1 for side in scores)
    value = math.nan if flat else float(spearmanr(*scores).statistic)
    return Agreement(
        task=task,
        corpus=corpus,
        upstreams=len(names),
        correlation=None if math.isnan(value) else value,
        first=_seconds(r for n in names for r in first[n][:1]),
        second=_seconds(r for n in names for r in second[n][:1]),
    )


def _by_column(results: Iterable[Result]) -> Side:
    from mynah.recipes.results import labelled

    out: Side = {}
    for r in results:
        plain = labelled(r.task, {**r.settings, "heads": "protocol"})
        column = Column(plain, r.corpus, () if r.layer is None else (r.layer,))
        variants = out.setdefault(column, {})
        variants.setdefault(Variant(r.label, r.protocol), {}).setdefault(r.upstream, []).append(r)
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
