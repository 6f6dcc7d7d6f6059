"""What a pair of metrics is: ours and a reference on the same random cases, and their table.

A reference is a function of a library, or the definition written out in a loop. Some of our metrics
call a library themselves; there the comparison shows only that its inputs and options are right, and
the table says so.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Value = float | Sequence[float]
Cases = Callable[[int, int], Iterator[tuple[Value, Value]]]
"""(number of cases, seed) -> our value and theirs for each; several numbers where a case has more."""

HEAD = ("metric", "reference", "cases", "largest absolute difference", "allowed", "ok")
MISSING = "not installed"
WRITTEN_OUT = "written out"
NOTE = (
    "Differences are of fractions (1 is 100 %), of dB for si_sdr, si_sdri and mcd, of points of its "
    "scale for pesq."
)


@dataclass(frozen=True, kw_only=True)
class MetricPair:
    """One of our metrics and a reference.

    Attributes:
        metric: its name, and in parentheses what distinguishes it from others of that name.
        packages: distributions that the reference needs; none where it is written out here.
        what: the function, or what is written out.
        cases: makes random cases.
        allowed: largest absolute difference.
        most: largest number of cases, where one takes long.
        note: what the comparison cannot show.
    """

    metric: str
    packages: tuple[str, ...]
    what: str
    cases: Cases
    allowed: float
    most: int | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """The metric's name alone."""
        return self.metric.partition(" ")[0]

    @property
    def missing(self) -> tuple[str, ...]:
        """Packages that are not installed."""
        return tuple(package for package in self.packages if _version(package) is None)

    @property
    def reference(self) -> str:
        """The packages with their versions, and the function."""
        found = ", ".join(
            f"{package} {_version(package) or ''}".strip() for package in self.packages
        )
        return f"{found or WRITTEN_OUT}: {self.what}" + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came out for one pair.

    Attributes:
        metric: as the pair's.
        reference: likewise, with versions.
        cases: how many were compared.
        difference: the largest absolute one; None where there is none.
        allowed: as the pair's.
        low: least value of the reference.
        high: largest value of the reference.
        cpu_seconds: of all cases, imports included.
        error: why there is no difference.
    """

    metric: str
    reference: str
    cases: int = 0
    difference: float | None = None
    allowed: float
    low: float | None = None
    high: float | None = None
    cpu_seconds: float = 0.0
    error: str = ""

    @property
    def checked(self) -> bool:
        """Whether the reference is there."""
        return not self.error.startswith(MISSING)

    @property
    def ok(self) -> bool:
        """Whether the difference is within what is allowed."""
        return self.difference is not None and self.difference <= self.allowed


def measure(pair: MetricPair, *, cases: int, seed: int) -> Row:
    """Compare a pair and return its row.

    Args:
        pair: what to compare; its packages are there.
        cases: how many, or as many as the pair has at most.
        seed: of the cases.

    Raises:
        ValueError: other numbers of cases or values than there should be, or a value that is not
            finite; the reference may raise anything.
    """
    wanted = cases if pair.most is None else min(cases, pair.most)
    begin = time.process_time()
    worst, seen = 0.0, []
    for ours, theirs in pair.cases(wanted, seed):
        worst = max(worst, gap(ours, theirs))
        seen.append(np.atleast_1d(theirs)[0])
    if len(seen) != wanted:
        raise ValueError(f"{len(seen)} cases were made, expected {wanted}")
    return Row(
        metric=pair.metric,
        reference=pair.reference,
        cases=wanted,
        difference=worst,
        allowed=pair.allowed,
        low=float(min(seen)),
        high=float(max(seen)),
        cpu_seconds=round(time.process_time() - begin, 3),
    )


def gap(ours: Value, theirs: Value) -> float:
    """Return the largest absolute difference.

    Raises:
        ValueError: other numbers of values, or one that is not finite.
    """
    a, b = (np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in (ours, theirs))
    if a.shape != b.shape:
        raise ValueError(f"ours gives values of shape {a.shape}, the reference {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(f"a value is not finite: ours {ours}, the reference {theirs}")
    return float(np.abs(a - b).max())


def lines(rows: Sequence[Row], *, asked: int) -> list[str]:
    """Return the rows as a Markdown table, a line each.

    Args:
        rows: what came out.
        asked: number of cases that were asked for.
    """
    table = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for row in rows:
        cases, difference = "-", "-"
        if row.difference is not None:
            cases = f"{row.cases}" if row.cases == asked else f"{row.cases} of {asked}"
            difference = f"{row.difference:.1e}"
        if row.checked:
            ok = "yes" if row.ok else f"NO {row.error}".rstrip()
        else:
            ok = row.error
        cells = (row.metric, row.reference, cases, difference, f"{row.allowed:.0e}", ok)
        table.append(
            "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |"
        )
    return table


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
