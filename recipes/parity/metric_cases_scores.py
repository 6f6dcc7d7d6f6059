"""Random cases of what counts and ranks: accuracy, EER, minDCF, term-weighted value, MAP.

Half of the rankings have tied scores, which is where implementations differ.

Shape suffixes: n trials, Q queries, D documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mynah.recipes.parity.metric_pair import MetricPair

Pairs = Iterator[tuple[float, float]]
Table = NDArray[np.float64]
Truth = NDArray[np.bool_]

_DOCS = tuple(f"doc{i}" for i in range(12))
_BETA = (1 / 100) * (1 - 0.0008) / 0.0008  # cost of a false alarm 1, of a miss 100, prior 0.0008
_NO_SCORE = -10.0
_DECISION = 2.0


def _labels(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return classes of unequal frequency, and predictions that are often right."""
    names = [f"class{i}" for i in range(rng.integers(2, 8))]
    odds = rng.dirichlet(np.ones(len(names)))
    refs = rng.choice(names, size=rng.integers(1, 200), p=odds)
    keep = rng.random(len(refs)) < rng.uniform(0.1, 0.95)
    return refs.tolist(), np.where(keep, refs, rng.choice(names, size=len(refs))).tolist()


def accuracy(count: int, seed: int) -> Pairs:
    """Share of right classes, and scikit-learn's."""
    from sklearn.metrics import accuracy_score

    from mynah.tasks.metrics.accuracy import accuracy as metric

    rng = np.random.default_rng(seed)
    for _ in range(count):
        refs, hyps = _labels(rng)
        yield metric().score(refs, hyps), accuracy_score(refs, hyps)


def accuracy_of_folds(count: int, seed: int) -> Pairs:
    """Mean over folds of the accuracy, and of scikit-learn's of each fold."""
    from sklearn.metrics import accuracy_score

    from mynah.tasks.metrics.accuracy import fold_accuracy

    rng = np.random.default_rng(seed)
    for _ in range(count):
        refs, hyps = _labels(rng)
        folds = [f"fold{i}" for i in rng.integers(0, 5, len(refs))]
        names = sorted(set(folds))
        rows = [[i for i, fold in enumerate(folds) if fold == name] for name in names]
        theirs = [accuracy_score([refs[i] for i in r], [hyps[i] for i in r]) for r in rows]
        yield fold_accuracy(names).score(refs, hyps, folds), float(np.mean(theirs))


def uar(count: int, seed: int) -> Pairs:
    """Unweighted average recall, and scikit-learn's balanced accuracy of the same classes."""
    from sklearn.metrics import recall_score

    from mynah.tasks.metrics.accuracy import unweighted_recall

    rng = np.random.default_rng(seed)
    for _ in range(count):
        refs, hyps = _labels(rng)
        theirs = recall_score(refs, hyps, labels=sorted(set(refs)), average="macro")
        yield unweighted_recall(sorted({*refs, *hyps})).score(refs, hyps), float(theirs)


def _trials(rng: np.random.Generator, index: int) -> tuple[Table, Truth]:
    """Return scores, tied every other time, and labels of both kinds."""
    n = int(rng.integers(2, 120))
    targets = rng.random(n) < rng.uniform(0.1, 0.9)
    targets[:2] = True, False
    scores = rng.normal(targets * rng.uniform(-1, 3), 1.0)
    return (np.round(scores * 2) / 2 if index % 2 else scores), targets


def _as_text(scores: Table, targets: Truth) -> tuple[list[str], list[str]]:
    refs = ["target" if target else "nontarget" for target in targets]
    return refs, [repr(float(score)) for score in scores]


def eer(count: int, seed: int) -> Pairs:
    """Equal error rate, and the root of 1 - x - ROC(x) that SUPERB looks for."""
    from scipy.interpolate import interp1d
    from scipy.optimize import brentq
    from sklearn.metrics import roc_curve

    from mynah.tasks.metrics.detection import eer as metric

    rng = np.random.default_rng(seed)
    for index in range(count):
        scores, targets = _trials(rng, index)
        false, hit, _ = roc_curve(targets.astype(int), scores, pos_label=1)
        curve = interp1d(false, hit)

        def above(x: float, curve: Callable[[float], float] = curve) -> float:
            return 1.0 - x - float(curve(x))

        yield metric().score(*_as_text(scores, targets)), float(brentq(above, 0.0, 1.0))


def min_dcf(count: int, seed: int) -> Pairs:
    """Minimum detection cost, and the least cost in a loop over thresholds and trials."""
    from mynah.tasks.metrics.detection import min_dcf as metric

    rng = np.random.default_rng(seed)
    for index in range(count):
        scores, targets = _trials(rng, index)
        p, c_miss, c_fa = (float(x) for x in (rng.uniform(0.01, 0.5), *rng.uniform(0.5, 10, 2)))
        ours = metric(p_target=p, c_miss=c_miss, c_fa=c_fa).score(*_as_text(scores, targets))
        trials = list(zip(scores.tolist(), targets.tolist(), strict=True))
        yield ours, _least_cost(trials, p, c_miss, c_fa)


def _least_cost(
    trials: Sequence[tuple[float, bool]], p_target: float, c_miss: float, c_fa: float
) -> float:
    """Return the definition: try every threshold, count misses and false alarms."""
    targets = sum(target for _, target in trials)
    best = math.inf
    for threshold in (*{score for score, _ in trials}, math.inf):
        misses = sum(target and score < threshold for score, target in trials)
        alarms = sum(not target and score >= threshold for score, target in trials)
        cost = c_miss * p_target * misses / targets
        cost += c_fa * (1 - p_target) * alarms / (len(trials) - targets)
        best = min(best, cost)
    return best / min(c_miss * p_target, c_fa * (1 - p_target))


def _search(rng: np.random.Generator, index: int) -> tuple[list[str], list[str], Table, Truth]:
    """Return a search as text, some pairs without a score, and as scores and truth (Q, D)."""
    from mynah.tasks.metrics.term_search import encode_docs, encode_scores

    truth = rng.random((8, len(_DOCS))) < rng.uniform(0.05, 0.4)
    truth[0, :2] = True, False
    scores = rng.normal(truth * rng.uniform(0, 4), 1.0)
    scores = np.round(scores * 2) / 2 if index % 2 else scores
    given = rng.random(truth.shape) < 0.9
    refs = [
        encode_docs(doc for doc, is_in in zip(_DOCS, row, strict=True) if is_in) for row in truth
    ]
    hyps = [
        encode_scores({doc: s for doc, s, is_in in zip(_DOCS, *rows, strict=True) if is_in})
        for rows in zip(scores.tolist(), given.tolist(), strict=True)
    ]
    return refs, hyps, np.where(given, scores, _NO_SCORE), truth


def _term_weighted(accepted: Truth, truth: Truth) -> float:
    """Return the definition: 1 - mean over queries of P_miss + beta P_fa."""
    losses = []
    for taken, true in zip(accepted.tolist(), truth.tolist(), strict=True):
        if not any(true):
            continue
        misses = sum(t and not a for a, t in zip(taken, true, strict=True)) / sum(true)
        others = len(true) - sum(true)
        alarms = sum(a and not t for a, t in zip(taken, true, strict=True))
        losses.append(misses + (_BETA * alarms / others if others else 0.0))
    return 1 - math.fsum(losses) / len(losses)


def mtwv(count: int, seed: int) -> Pairs:
    """Maximum term-weighted value, and the largest in a loop over thresholds and queries."""
    from mynah.tasks.metrics.term_detection import mtwv as metric

    rng = np.random.default_rng(seed)
    for index in range(count):
        refs, hyps, scores_QD, truth_QD = _search(rng, index)
        thresholds = (math.inf, *np.unique(scores_QD))
        theirs = max(_term_weighted(scores_QD >= threshold, truth_QD) for threshold in thresholds)
        yield metric(_DOCS).score(refs, hyps), theirs


def atwv(count: int, seed: int) -> Pairs:
    """Term-weighted value of scores above 2, and its loop over queries."""
    from mynah.tasks.metrics.term_detection import atwv as metric

    rng = np.random.default_rng(seed)
    for index in range(count):
        refs, hyps, scores_QD, truth_QD = _search(rng, index)
        yield metric(_DOCS).score(refs, hyps), _term_weighted(scores_QD > _DECISION, truth_QD)


def mean_average_precision(count: int, seed: int) -> Pairs:
    """MAP, and the mean of scikit-learn's average precision over queries."""
    from sklearn.metrics import average_precision_score

    from mynah.tasks.metrics.term_detection import average_precision

    rng = np.random.default_rng(seed)
    for index in range(count):
        refs, hyps, scores_QD, truth_QD = _search(rng, index)
        rows = zip(truth_QD, scores_QD, strict=True)
        theirs = [average_precision_score(true, scores) for true, scores in rows if true.any()]
        yield average_precision(_DOCS).score(refs, hyps), float(np.mean(theirs))


def _pair(
    metric: str,
    what: str,
    cases: Callable[[int, int], Pairs],
    *packages: str,
    allowed: float = 1e-12,
) -> MetricPair:
    return MetricPair(metric=metric, packages=packages, what=what, cases=cases, allowed=allowed)


PAIRS = (
    _pair("accuracy", "accuracy_score", accuracy, "scikit-learn"),
    _pair("accuracy (mean of folds)", "accuracy_score", accuracy_of_folds, "scikit-learn"),
    _pair("uar", "recall_score, macro", uar, "scikit-learn"),
    _pair("eer", "roc_curve, brentq", eer, "scikit-learn", "scipy", allowed=1e-9),
    _pair("min_dcf", "loop over thresholds and trials", min_dcf),
    _pair("mtwv", "loop over thresholds and queries", mtwv),
    _pair("atwv", "loop over queries", atwv),
    _pair("map", "average_precision_score", mean_average_precision, "scikit-learn"),
)
