"""What a spoken term search is: queries, documents, scores and truth, from encoded text.

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
    if not references or not docs:
        raise ValueError(f"nothing was searched: {len(references)} queries, {len(docs)} documents")
    index = {doc: i for i, doc in enumerate(docs)}
    if len(index) != len(docs):
        raise ValueError(f"{len(docs) - len(index)} of {len(docs)} documents are named twice")
    if not np.isfinite(default):
        raise ValueError(f"the default score must be a finite number, got {default}")
    scores_QD = np.full((len(references), len(docs)), default, dtype=np.float64)
    true_QD = np.zeros((len(references), len(docs)), dtype=bool)
    for row, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        found, true = decode_scores(prediction), reference.split()
        for doc in (*found, *true):
            if doc not in index:
                raise ValueError(f"query {row}: {doc!r} is not one of the {len(docs)} documents")
        for doc, score in found.items():
            if not np.isfinite(score):
                raise ValueError(f"query {row}, document {doc!r}: not a finite score: {score}")
            scores_QD[row, index[doc]] = score
        true_QD[row, [index[doc] for doc in true]] = True
    queries = tuple(str(row) for row in range(len(references)))
    return Search(queries=queries, docs=tuple(docs), scores_QD=scores_QD, true_QD=true_QD)


def _checked(doc: str) -> str:
    if doc.split() != [doc]:
        raise ValueError(f"the name of a document must have no white space, got {doc!r}")
    return doc
