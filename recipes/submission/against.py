"""What a submission is held against: ids, truths and labels of each task's test set.

They come from a folder of results, of any upstream, on the same test sets: their predictions are
kept beside references and units, which is all that scoring needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mynah.recipes.kept import Rows
    from mynah.recipes.results import Result


@dataclass(frozen=True, kw_only=True)
class Truth:
    """One task's test set.

    Attributes:
        path: result that it is read from.
        result: what that holds: metrics, labels, protocol.
        rows: ids, folds, units and references; and its own predictions.
    """

    path: Path
    result: Result
    rows: Rows

    def references(self, fold: str | None = None) -> dict[str, str]:
        """Return the reference of each id, of one fold if that is named."""
        rows = zip(self.rows.ids, self.rows.folds, self.rows.references, strict=True)
        return {name: true for name, of, true in rows if fold is None or of == fold}

    def folds(self) -> list[str]:
        """Return the folds in order; [""] where there are none."""
        return sorted(set(self.rows.folds))

    def labels(self) -> frozenset[str]:
        """Return the labels that a prediction may be."""
        return frozenset(self.result.classes) | frozenset(self.rows.references)


def truths(
    folder: Path, *, corpus: Sequence[str] = (), protocol: str | None = None
) -> dict[str, Truth]:
    """Return the test set of each task that a folder of results has.

    Args:
        folder: of results.
        corpus: only results on these corpora.
        protocol: only results of this protocol.

    Raises:
        FileNotFoundError: no results, or predictions that are gone.
        ValueError: results of one task on several test sets, or none left.
    """
    from mynah.recipes import kept

    found: dict[str, Truth] = {}
    for path, result in kept.pairs(folder):
        if corpus and result.corpus not in corpus:
            continue
        if protocol not in (None, result.protocol):
            continue
        truth = Truth(path=path, result=result, rows=kept.read(path, result))
        other = found.setdefault(result.task, truth)
        if _test_set(other) != _test_set(truth):
            raise ValueError(
                f"{folder} has {result.task} on several test sets ({other.result.corpus}, protocol "
                f"{other.result.protocol}; {result.corpus}, protocol {result.protocol}): choose with "
                "--corpus and --protocol"
            )
    if not found:
        raise ValueError(f"{folder} has no result of the corpora and protocol asked for")
    return found


def _test_set(truth: Truth) -> list[tuple[str, str, str]]:
    if truth.result.task in ("se", "ss", "vc"):  # their references are names only
        return [(i, "", "") for i in sorted(truth.rows.ids)]
    return sorted(zip(truth.rows.ids, truth.rows.folds, truth.rows.references, strict=True))
