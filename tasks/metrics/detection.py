"""Detection of targets by a score: equal error rate, minimum detection cost, and the accept rate.

A trial is accepted if its score reaches a threshold. Over all thresholds, from one that accepts
nothing to one that accepts everything, the miss rate P_miss falls from 1 to 0 and the false alarm
rate P_fa grows from 0 to 1; trials of equal scores are accepted together.

* **EER**: where P_miss = P_fa on the curve that joins these points by straight lines. SUPERB's is
  the root of 1 - x - ROC(x), found by ``brentq`` on scikit-learn's ``roc_curve``; here the crossing
  is computed in closed form, which is the same point to the root finder's tolerance (1e-12).
* **minDCF**: the minimum over thresholds of C_miss P_miss P_target + C_fa P_fa (1 - P_target), over
  the cost of the better of accepting everything and nothing, so that 1 is a system that ignores its
  scores (NIST SRE 2016 evaluation plan, section 3; s3prl's ``compute_minDCF``). Not part of SUPERB.
* **accept rate**: the share of scores above a threshold that was set elsewhere, as voice conversion
  counts the conversions that a speaker verification system takes for the target speaker. A threshold
  at the EER of real trials lies halfway between the scores that it keeps apart; where the crossing
  is between two points of the curve it is interpolated as the crossing is. (s3prl interpolates
  between accepted scores, so that the lowest of trials that are told apart without error would
  itself be rejected.)

Shape suffixes: n trials, K thresholds (distinct scores, and one above all), R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mynah.tasks.metrics.metric import Floats, RankedMetric, Weigh, ratio

TARGET: Final = "target"
NONTARGET: Final = "nontarget"


def error_curves(
    scores_n: ArrayLike, targets_n: ArrayLike
) -> Callable[[Floats], tuple[Floats, Floats]]:
    """Sort trials once, and return what gives the error rates of any weights of them.

    Args:
        scores_n: higher means more likely a target.
        targets_n: whether each trial is one.

    Returns:
        A function of weights (R, n), 2 for a trial meaning that trial twice, to the miss and the
        false alarm rates (R, K), by falling threshold: from 1 and 0 to 0 and 1; NaN where a draw
        has no targets, or no others.

    Raises:
        ValueError: no trials, not one score and label for each, a score that is not a finite
            number, or trials that are all targets or all nontargets.
    """
    scores, targets = np.asarray(scores_n, dtype=np.float64), np.asarray(targets_n)
    if scores.ndim != 1 or scores.shape != targets.shape:
        raise ValueError(
            f"expected a score and a label for each trial, got shapes {scores.shape} and "
            f"{targets.shape}"
        )
    if not scores.size:
        raise ValueError("no trials to score")
    _refuse_not_finite(scores)
    if not np.isin(targets, (0, 1)).all():
        raise ValueError("labels must be true (1) for targets and false (0) for nontargets")
    targets = targets.astype(bool)
    if targets.all() or not targets.any():
        kind = TARGET if targets.all() else NONTARGET
        raise ValueError(
            f"all {scores.size} trials are {kind} trials: an error rate of detection needs both"
        )
    order_n = np.argsort(-scores, kind="stable")
    last_K = np.flatnonzero(np.diff(scores[order_n], append=-np.inf))  # of each tie
    sorted_n = targets[order_n].astype(np.float64)

    def curves(weights_Rn: Floats) -> tuple[Floats, Floats]:
        sorted_Rn = weights_Rn[:, order_n]
        rates = []
        for kind_n in (sorted_n, 1 - sorted_n):
            accepted_RK = np.cumsum(sorted_Rn * kind_n, axis=1)[:, last_K]
            rates.append(ratio(accepted_RK, accepted_RK[:, -1:]))
        hit_RK, false_RK = (np.pad(rate, ((0, 0), (1, 0))) for rate in rates)
        return 1 - hit_RK, false_RK

    return curves


def crossing(miss_RK: Floats, false_RK: Floats) -> Floats:
    """Return the equal error rates (R,) of curves of :func:`error_curves`, NaN where they are."""
    gap_RK = miss_RK - false_RK  # from 1 down to -1
    after_R = np.argmax(gap_RK <= 0, axis=1)[:, None]
    before_R = np.maximum(after_R - 1, 0)
    gap_R, next_R = (np.take_along_axis(gap_RK, at, axis=1) for at in (before_R, after_R))
    low_R, high_R = (np.take_along_axis(false_RK, at, axis=1) for at in (before_R, after_R))
    found_R: Floats = (low_R + (high_R - low_R) * ratio(gap_R, gap_R - next_R))[:, 0]
    return np.where(np.isnan(miss_RK + false_RK).any(axis=1), np.nan, found_R)


def lowest_cost(
    miss_RK: Floats,
    false_RK: Floats,
    *,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> Floats:
    """Return the minimum normalised detection costs (R,) of curves of :func:`error_curves`.

    Args:
        miss_RK: miss rates.
        false_RK: false alarm rates.
        p_target: prior probability of a target.
        c_miss: cost of a miss.
        c_fa: cost of a false alarm.

    Raises:
        ValueError: a prior that is not between 0 and 1, or costs that are not positive.
    """
    if not 0 < p_target < 1 or not c_miss > 0 or not c_fa > 0:
        raise ValueError(
            "p_target must be between 0 and 1 and costs positive, got "
            f"p_target {p_target}, c_miss {c_miss}, c_fa {c_fa}"
        )
    costs_RK = c_miss * p_target * miss_RK + c_fa * (1 - p_target) * false_RK
    lowest: Floats = costs_RK.min(axis=1) / min(c_miss * p_target, c_fa * (1 - p_target))
    return lowest


def equal_error_rate(scores_n: ArrayLike, targets_n: ArrayLike) -> float:
    """Return the EER of trials, between 0 and 1; see the top of this module.

    Args:
        scores_n: higher means more likely a target.
        targets_n: whether each trial is one.

    Raises:
        ValueError: see :func:`error_curves`.
    """
    return float(crossing(*_once(scores_n, targets_n))[0])


def accept_rate(scores_n: ArrayLike, threshold: float) -> float:
    """Return the share of scores above a threshold; a score that equals it is not above.

    Raises:
        ValueError: no scores, or a score or threshold that is not a finite number.
    """
    scores = np.asarray(scores_n, dtype=np.float64)
    if not scores.size:
        raise ValueError("no similarities: the share that is accepted is not defined")
    _refuse_not_finite(scores)
    if not np.isfinite(threshold):
        raise ValueError(f"the threshold must be a finite number, got {threshold}")
    return float((scores > threshold).mean())


def threshold_at_eer(scores_n: ArrayLike, targets_n: ArrayLike) -> tuple[float, float]:
    """Return the EER of trials and the threshold there; see the top of this module.

    Args:
        scores_n: higher means more likely a target.
        targets_n: whether each trial is one.

    Raises:
        ValueError: see :func:`error_curves`.
    """
    miss_1K, false_1K = _once(scores_n, targets_n)
    gap_K = (miss_1K - false_1K)[0]
    after = int(np.argmax(gap_K <= 0))  # not 0: there the gap is 1
    share = gap_K[after - 1] / (gap_K[after - 1] - gap_K[after])
    falling = np.unique(np.asarray(scores_n, dtype=np.float64))[::-1]
    between_K = np.concatenate(
        [falling[:1], (falling[:-1] + falling[1:]) / 2, falling[-1:]]
    )  # of the points of the curve: nothing accepted, one distinct score, ..., all of them
    threshold = between_K[after - 1] + share * (between_K[after] - between_K[after - 1])
    return float(crossing(miss_1K, false_1K)[0]), float(threshold)


def eer() -> RankedMetric:
    """Return the metric ``eer``: references are ``target`` or ``nontarget``, predictions scores.

    A prediction is a decimal number as text; rows are trials.
    """
    return RankedMetric(
        name="eer",
        signature="eer|curve:linear|ties:together|v1",
        higher_is_better=False,
        ranked=lambda refs, hyps, _folds: _ranked(refs, hyps, crossing),
    )


def min_dcf(*, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0) -> RankedMetric:
    """Return the metric ``min_dcf``, of references and predictions as of :func:`eer`.

    Args:
        p_target: prior probability of a target.
        c_miss: cost of a miss.
        c_fa: cost of a false alarm.
    """

    def cost(miss_RK: Floats, false_RK: Floats) -> Floats:
        return lowest_cost(miss_RK, false_RK, p_target=p_target, c_miss=c_miss, c_fa=c_fa)

    return RankedMetric(
        name="min_dcf",
        signature=f"min_dcf|p_target:{p_target:g}|c_miss:{c_miss:g}|c_fa:{c_fa:g}|normalised|v1",
        higher_is_better=False,
        ranked=lambda refs, hyps, _folds: _ranked(refs, hyps, cost),
    )


def _once(scores_n: ArrayLike, targets_n: ArrayLike) -> tuple[Floats, Floats]:
    curves = error_curves(scores_n, targets_n)
    return curves(np.ones((1, np.size(scores_n))))


def _ranked(
    references: Sequence[str],
    predictions: Sequence[str],
    value: Callable[[Floats, Floats], Floats],
) -> Weigh:
    curves = error_curves(_numbers(predictions), _targets(references))
    return lambda weights_Rn: value(*curves(weights_Rn))


def _targets(references: Sequence[str]) -> NDArray[np.bool_]:
    for row, label in enumerate(references):
        if label not in (TARGET, NONTARGET):
            raise ValueError(f"trial {row}: a label is {TARGET} or {NONTARGET}, got {label!r}")
    return np.array([label == TARGET for label in references])


def _numbers(predictions: Sequence[str]) -> Floats:
    scores = np.empty(len(predictions))
    for row, text in enumerate(predictions):
        try:
            scores[row] = float(text)
        except ValueError:
            raise ValueError(f"trial {row}: a score is a decimal number, got {text!r}") from None
    return scores


def _refuse_not_finite(scores: Floats) -> None:
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        raise ValueError(
            f"{bad.size} of {scores.size} scores are not finite numbers; the first is score "
            f"{bad[0]}: {scores[bad[0]]}"
        )
