"""What a spoken term search is: queries, documents, scores and truth, from rows or encoded text.

Shape suffixes: Q queries, D documents, P pairs in falling order of score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mynah.tasks.metrics.metric import Floats, ratio

BETA = 1 / 100 * (1 - 0.0008) / 0.0008  # C_fa / C_miss (1 - P_target) / P_target
DEFAULT_SCORE = -10.0


@dataclass(frozen=True, kw_only=True)
class Search:
    """What was searched and found.

    Attributes:
        queries: names.
        docs: names.
        scores_QD: higher means more likely true.
        true_QD: whether the document holds the query.
    """

    queries: tuple[str, ...]
    docs: tuple[str, ...]
    scores_QD: Floats
    true_QD: NDArray[np.bool_]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Whether each query (Q,) has a true document, and so is scored."""
        return np.asarray(self.true_QD.any(axis=1))

    @property
    def left_out(self) -> int:
        """How many queries have no true document."""
        return int((~self.kept).sum())

    @property
    def gains(self) -> Floats:
        """What accepting each pair (Q, D) adds to its query's 1 - P_miss - beta P_fa.

        0 for queries that are left out.
        """
        true_Q1 = self.true_QD.sum(axis=1, keepdims=True).astype(np.float64)
        hit_Q1 = ratio(np.ones_like(true_Q1), true_Q1)
        alarm_Q1 = ratio(np.full_like(true_Q1, BETA), len(self.docs) - true_Q1)
        gain_QD = np.where(self.true_QD, hit_Q1, -alarm_Q1)
        return np.where(self.kept[:, None], gain_QD, 0.0)

    def ranking(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return all pairs in falling order of score, and the place of the last of each tie."""
        scores_P = self.scores_QD.ravel()
        order_P = np.argsort(-scores_P, kind="stable")
        return order_P, np.flatnonzero(np.diff(scores_P[order_P], append=-np.inf))


def from_rows(
    rows: Iterable[tuple[str, str, float | None, bool]],
    *,
    docs: Sequence[str] | None = None,
    default: float = DEFAULT_SCORE,
) -> Search:
    """Return the search of rows (query, document, score, is_true).

    Args:
        rows: each pair at most once; a pair that is not there is not true and has the default
            score, so a true pair that was not scored must be there with score None.
        docs: all documents; those of the rows if not given.
        default: score of pairs without one.

    Raises:
        ValueError: no rows, a pair twice, a document that is not one of ``docs``, or a score that
            is not a finite number.
    """
    scores: dict[str, dict[str, float | None]] = {}
    true: dict[str, list[str]] = {}
    for query, doc, score, is_true in rows:
        found = scores.setdefault(query, {})
        if doc in found:
            raise ValueError(f"query {query!r} and document {doc!r} have more than one row")
        found[doc] = score
        if is_true:
            true.setdefault(query, []).append(doc)
    if docs is None:
        docs = sorted({doc for found in scores.values() for doc in found})
    return _search(scores, true, docs, default)


def encode_docs(docs: Iterable[str]) -> str:
    """Return a reference: the true documents of a query, separated by spaces.

    Raises:
        ValueError: a name that is empty or has white space.
    """
    return " ".join(_checked(doc) for doc in docs)


def encode_scores(scores: Mapping[str, float]) -> str:
    """Return a prediction: ``document:score`` of each pair of a query, separated by spaces.

    Raises:
        ValueError: a name that is empty or has white space.
    """
    return " ".join(f"{_checked(doc)}:{float(score)!r}" for doc, score in scores.items())


def decode_scores(text: str) -> dict[str, float]:
    """Return what :func:`encode_scores` was given; a name may have colons.

    Raises:
        ValueError: a part that is not a document and a number, or a document twice.
    """
    scores: dict[str, float] = {}
    for part in text.split():
        doc, colon, number = part.rpartition(":")
        try:
            score = float(number)
        except ValueError:
            doc = ""
        if not colon or not doc:
            raise ValueError(f"expected document:score, got {part!r}")
        if doc in scores:
            raise ValueError(f"document {doc!r} is scored twice")
        scores[doc] = score
    return scores


def from_text(
    references: Sequence[str], predictions: Sequence[str], docs: Sequence[str], default: float
) -> Search:
    """Return the search of encoded rows; a query is known by the number of its row.

    Args:
        references: see :func:`encode_docs`.
        predictions: see :func:`encode_scores`.
        docs: all documents.
        default: score of pairs without one.

    Raises:
        ValueError: text that does not decode, a document that is not one of ``docs``, or a score
            that is not a finite number.
    """
    scores: dict[str, dict[str, float | None]] = {}
    true = {}
    for row, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        query = str(row)
        true[query] = reference.split()
        scores[query] = dict(decode_scores(prediction))
    return _search(scores, true, docs, default)


def _search(
    scores: Mapping[str, Mapping[str, float | None]],
    true: Mapping[str, Sequence[str]],
    docs: Sequence[str],
    default: float,
) -> Search:
    if not scores or not docs:
        raise ValueError(f"nothing was searched: {len(scores)} queries, {len(docs)} documents")
    index = {doc: i for i, doc in enumerate(docs)}
    if len(index) != len(docs):
        raise ValueError(f"{len(docs) - len(index)} of {len(docs)} documents are named twice")
    if not np.isfinite(default):
        raise ValueError(f"the default score must be a finite number, got {default}")
    scores_QD = np.full((len(scores), len(docs)), default, dtype=np.float64)
    true_QD = np.zeros((len(scores), len(docs)), dtype=bool)
    for row, (query, found) in enumerate(scores.items()):
        for doc in (*found, *true.get(query, ())):
            if doc not in index:
                raise ValueError(
                    f"query {query!r}: {doc!r} is not one of the {len(docs)} documents"
                )
        for doc, score in found.items():
            if score is None:
                continue
            if not np.isfinite(score):
                raise ValueError(f"query {query!r}, document {doc!r}: not a finite score: {score}")
            scores_QD[row, index[doc]] = score
        true_QD[row, [index[doc] for doc in true.get(query, ())]] = True
    return Search(queries=tuple(scores), docs=tuple(docs), scores_QD=scores_QD, true_QD=true_QD)


def _checked(doc: str) -> str:
    if doc.split() != [doc]:
        raise ValueError(f"the name of a document must have no white space, got {doc!r}")
    return doc
