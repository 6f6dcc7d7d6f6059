"""What a submission is held against: ids, truths and labels of each task's test set.

They come from a folder of results, of any upstream, on the same test sets: their predictions are
kept beside references and units, which is all that scoring needs. Or, to validate only, from
prepared corpora (:mod:`mynah.recipes.submission.keys`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mynah.recipes.submission.layout import MEANS

if TYPE_CHECKING:
    from mynah.recipes.kept import Rows
    from mynah.recipes.results import Result


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """One task's test set.

    Attributes:
        task: whose.
        corpus: that it is of.
        classes: what a classifier may say, where that is known besides the references.
        skipped: utterances of the corpus that could not be used, id -> reason.
        rows: ids, folds, units and references.
    """

    __test__ = False  # no test of pytest's

    task: str
    corpus: str
    classes: tuple[str, ...]
    skipped: Mapping[str, str]
    rows: Rows

    def references(self, fold: str | None = None) -> dict[str, str]:
        """Return the reference of each id, of one fold if that is named."""
        rows = zip(self.rows.ids, self.rows.folds, self.rows.references, strict=True)
        return {name: true for name, of, true in rows if fold is None or of == fold}

    def ids(self, fold: str | None = None) -> list[str]:
        """Return the ids, of one fold if that is named; a trial may be there twice."""
        rows = zip(self.rows.ids, self.rows.folds, strict=True)
        return [name for name, of in rows if fold in (None, of)]

    def folds(self) -> list[str]:
        """Return the folds in order; [""] where there are none."""
        return sorted(set(self.rows.folds))

    def labels(self) -> frozenset[str]:
        """Return the labels that a prediction may be."""
        return frozenset(self.classes) | frozenset(self.rows.references)


@dataclass(frozen=True, kw_only=True)
class Truth(TestSet):
    """A test set that results were scored on.

    Attributes:
        path: result that it is read from.
        result: what that holds: metrics, labels, protocol.
        alike: every result on this test set, this one first.
    """

    path: Path
    result: Result
    alike: list[tuple[Path, Result]] = field(default_factory=list)


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
        truth = Truth(
            task=result.task,
            corpus=result.corpus,
            classes=result.classes,
            skipped=result.skipped,
            rows=kept.read(path, result),
            path=path,
            result=result,
        )
        other = found.setdefault(result.task, truth)
        if _test_set(other) != _test_set(truth):
            raise ValueError(
                f"{folder} has {result.task} on several test sets ({other.result.corpus}, protocol "
                f"{other.result.protocol}; {result.corpus}, protocol {result.protocol}): choose with "
                "--corpus and --protocol"
            )
        other.alike.append((path, result))
    if not found:
        raise ValueError(f"{folder} has no result of the corpora and protocol asked for")
    return found


def claimant(truth: Truth, means: Mapping[str, float]) -> tuple[Path, Result, Rows] | None:
    """Return the result whose own utterances have these means, computed again; None if none has.

    Args:
        truth: of a task that is submitted as means.
        means: claimed, by their names in metrics.txt.

    Raises:
        FileNotFoundError, ValueError: predictions that are gone, or not a result's own.
    """
    from mynah.recipes import kept

    for path, result in truth.alike:
        ours = {
            MEANS[name]: value for name, value in means.items() if MEANS[name] in result.metrics
        }
        if not ours or any(
            not math.isclose(result.metrics[name].value, value, rel_tol=1e-9, abs_tol=1e-9)
            for name, value in ours.items()
        ):
            continue
        rows = kept.read(path, result)
        for name in ours:
            kept.scored(path, result, name, rows=rows)  # raises where they do not give the value
        return path, result, rows
    return None


def _test_set(truth: Truth) -> list[tuple[str, str, str]]:
    if truth.result.task in ("se", "ss", "vc"):  # their references are names only
        return [(i, "", "") for i in sorted(truth.rows.ids)]
    return sorted(zip(truth.rows.ids, truth.rows.folds, truth.rows.references, strict=True))
