"""Spoken term detection: term-weighted value, mean average precision and EER of a search.

A search scores every (query, document) pair; a pair is true if the document holds the query.

* **TWV** at a threshold: 1 - mean over queries of [P_miss + beta P_fa] (NIST 2006 spoken term
  detection plan, with trials that are documents), P_miss the share of a query's true documents that
  are not accepted, P_fa that of its other documents that are. beta = C_fa / C_miss
  (1 - P_target) / P_target = 12.49 with QUESST's P_target 0.0008, C_fa 1 and C_miss 100: the costs
  are recalled for QUESST 2014; the scoring script of its 2015 sequel has the same.
  **MTWV** is its maximum over all thresholds, accepting nothing included, so at least 0: SUPERB's
  number. **ATWV** is the value of the decisions that were taken, scores above 2 standard deviations
  of their query's scores in SUPERB.
* **MAP**: mean over queries of average precision, sum over thresholds of (recall step) x
  precision. **EER**: of all pairs together. The SUPERB challenge's hidden set used these two; how
  its code treated ties is not known. Here documents of equal scores are accepted together, as
  scikit-learn's ``average_precision_score`` does, so the order of documents cannot matter.

A pair without a score has the default one, -10 in SUPERB (the third argument of QUESST's scoring
script; what it means is recalled for 2014 and documented for 2015). A query without any true document has no P_miss: it is left out of all four
metrics, and :attr:`.Search.left_out` counts such queries. A query that is in every document has no
false alarms.

As metrics, a row is a query: the reference is its true documents, the prediction its scores, see
:func:`.encode_scores`; so the unit of the bootstrap is the query.

Shape suffixes: Q queries, D documents, P pairs in falling order of score, K ties, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mynah.tasks.metrics.detection import crossing, error_curves
from mynah.tasks.metrics.metric import Floats, Metric, RankedMetric, Weigh, in_blocks, ratio
from mynah.tasks.metrics.term_search import BETA, DEFAULT_SCORE, Search, from_text

DECISION = 2.0


def mtwv(docs: Sequence[str], *, default: float = DEFAULT_SCORE) -> RankedMetric:
    """Return the metric ``mtwv``.

    Args:
        docs: all documents that were searched.
        default: score of pairs without one.
    """
    return RankedMetric(
        name="mtwv",
        signature=f"mtwv|beta:{BETA:.2f}|{_options(default)}",
        higher_is_better=True,
        ranked=lambda refs, hyps, _folds: _mtwv_of(from_text(refs, hyps, docs, default)),
    )


def atwv(
    docs: Sequence[str], *, threshold: float = DECISION, default: float = DEFAULT_SCORE
) -> Metric:
    """Return the metric ``atwv``: the TWV of accepting scores above a threshold.

    Args:
        docs: all documents that were searched.
        threshold: what a score must be above.
        default: score of pairs without one.
    """
    return _mean_metric(
        "atwv",
        f"threshold:{threshold:g}|beta:{BETA:.2f}|{_options(default)}",
        lambda found: _values(found, threshold),
        docs,
        default,
    )


def average_precision(docs: Sequence[str], *, default: float = DEFAULT_SCORE) -> Metric:
    """Return the metric ``map``, of arguments as of :func:`mtwv`."""
    return _mean_metric("map", f"ties:together|{_options(default)}", _precisions, docs, default)


def pair_eer(docs: Sequence[str], *, default: float = DEFAULT_SCORE) -> RankedMetric:
    """Return the metric ``eer`` over all pairs, of arguments as of :func:`mtwv`."""
    return RankedMetric(
        name="eer",
        signature=f"eer|pairs:pooled|curve:linear|ties:together|{_options(default)}",
        higher_is_better=False,
        ranked=lambda refs, hyps, _folds: _eer_of(from_text(refs, hyps, docs, default)),
    )


def _mean_metric(
    name: str,
    options: str,
    values: Callable[[Search], Floats],
    docs: Sequence[str],
    default: float,
) -> Metric:
    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        found = from_text(refs, hyps, docs, default)
        return np.stack([values(found), found.kept.astype(np.float64)], axis=1)

    return Metric(
        name=name,
        signature=f"{name}|{options}",
        higher_is_better=True,
        counts=counts,
        value=lambda sums: ratio(sums[..., 0], sums[..., 1]),
    )


def _options(default: float) -> str:
    return f"default:{default:g}|queries-without-target:left-out|v1"


def _values(found: Search, threshold: float) -> Floats:
    """Return each query's 1 - P_miss - beta P_fa."""
    values_Q: Floats = np.where(found.scores_QD > threshold, found.gains, 0.0).sum(axis=1)
    return values_Q


def _precisions(found: Search) -> Floats:
    """Return each query's average precision, 0 for those left out."""
    average_Q = np.zeros(len(found.queries))
    for row in np.flatnonzero(found.kept):
        order_D = np.argsort(-found.scores_QD[row], kind="stable")
        last_K = np.flatnonzero(np.diff(found.scores_QD[row][order_D], append=-np.inf))
        hits_K = np.cumsum(found.true_QD[row][order_D])[last_K]
        steps_K = np.diff(hits_K, prepend=0) / hits_K[-1]
        average_Q[row] = (steps_K * hits_K / (last_K + 1)).sum()
    return average_Q


def _mtwv_of(found: Search) -> Weigh:
    _refuse_empty(found)
    order_P, last_K = found.ranking()
    gain_P = found.gains.ravel()[order_P]
    query_P = order_P // len(found.docs)

    def weigh(weights_RQ: Floats) -> Floats:
        sums_RK = np.cumsum(weights_RQ[:, query_P] * gain_P, axis=1)[:, last_K]
        return ratio(np.maximum(sums_RK.max(axis=1), 0.0), weights_RQ @ found.kept)

    return in_blocks(weigh, len(order_P))


def _eer_of(found: Search) -> Weigh:
    _refuse_empty(found)
    kept = found.kept
    curves = error_curves(found.scores_QD[kept].ravel(), found.true_QD[kept].ravel())
    query_P = np.repeat(np.flatnonzero(kept), len(found.docs))
    return in_blocks(lambda weights_RQ: crossing(*curves(weights_RQ[:, query_P])), len(query_P))


def _refuse_empty(found: Search) -> None:
    if not found.kept.any():
        raise ValueError(
            f"none of the {len(found.queries)} queries has a true document: nothing to find"
        )
