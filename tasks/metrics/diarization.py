"""Speaker diarization: the diarization error rate (DER), exact in time.

Between two boundaries of turns the speakers who talk are the same, so a recording is a few hundred
intervals, each with ``r`` speakers of the reference and ``h`` of the hypothesis. An interval of
duration d adds d max(0, r - h) of missed speech, d max(0, h - r) of false alarm and
d (min(r, h) - c) of confusion, where c is how many of the reference's speakers talk whose
counterparts in the hypothesis talk too. Counterparts are one to one, per recording, and such that
their time together is longest (the assignment problem). DER is the sum of all three over all
recordings, over the speaker time of the reference: two speakers at once count twice, and overlaps
are scored (NIST md-eval; dscore's and SUPERB's OVERALL row, with a collar of 0).

* With a *collar*, what is less than that many seconds from a boundary of the reference is not
  scored; counterparts are still found over all time, as md-eval does.
* Turns of one speaker that overlap or touch are one turn.
* Everything counts that either side has: there is no unscored time but the collars.
* A recording without reference speech adds what was hypothesised as false alarm and nothing to the
  total; silence on both sides adds nothing. If no recording has speech the DER is not defined, a
  ``ValueError`` when scored.

Shape suffixes: K intervals, E edges of turns, R and H speakers of the reference and the hypothesis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mynah.tasks.metrics.metric import Floats, Metric, ratio
from mynah.tasks.metrics.rttm import Turn, number, seconds

TOUCHING = 1e-8  # seconds, md-eval's epsilon: the end of one turn and the start of the next are one


class Errors(NamedTuple):
    """Seconds of a recording, or of several.

    Attributes:
        miss: speaker time of the reference without anyone in the hypothesis.
        false_alarm: speaker time of the hypothesis without anyone in the reference.
        confusion: speaker time of the reference given to another.
        total: speaker time of the reference.
    """

    miss: float
    false_alarm: float
    confusion: float
    total: float


def encode(turns: Iterable[Turn]) -> str:
    """Return turns as text, ``start duration speaker`` separated by ``;``; "" if there are none."""
    return ";".join(f"{seconds(t.start)} {seconds(t.duration)} {t.speaker}" for t in turns)


def decode(text: str) -> tuple[Turn, ...]:
    """Return exactly the turns that :func:`encode` was given.

    Raises:
        ValueError: a part that is no turn.
    """
    turns = []
    for part in text.split(";") if text.strip() else ():
        fields = part.split()
        if len(fields) != 3:
            raise ValueError(f"expected 'start duration speaker', got {part!r}")
        turns.append(Turn(number(fields[0], "start"), number(fields[1], "duration"), fields[2]))
    return tuple(turns)


def errors(reference: Sequence[Turn], hypothesis: Sequence[Turn], *, collar: float = 0.0) -> Errors:
    """Return the errors of one recording; see the top of this module.

    Args:
        reference: who talked.
        hypothesis: who was said to; names need not be those of the reference.
        collar: seconds before and after each boundary of the reference that are not scored.

    Raises:
        ValueError: a collar that is negative or not finite.
    """
    if not 0 <= collar < np.inf:
        raise ValueError(f"a collar must be 0 or a positive number of seconds, got {collar}")
    ref, hyp = _speech(reference), _speech(hypothesis)
    ref_edges = np.array([edge for spans in ref for edge in spans.ravel()])
    hyp_edges = np.array([edge for spans in hyp for edge in spans.ravel()])
    edges = [ref_edges, hyp_edges]
    if collar:
        edges += [ref_edges - collar, ref_edges + collar]
    times = np.unique(np.concatenate(edges))
    if not times.size:
        return Errors(0.0, 0.0, 0.0, 0.0)
    seconds_K, middle_K = np.diff(times), (times[:-1] + times[1:]) / 2
    talks_RK, talks_HK = _talks(ref, middle_K), _talks(hyp, middle_K)
    right_K = _right(talks_RK, talks_HK, seconds_K)
    if collar:
        edges_E = np.sort(ref_edges)
        before_K = np.searchsorted(edges_E, middle_K - collar, side="right")
        near_K = np.searchsorted(edges_E, middle_K + collar) > before_K
        seconds_K = np.where(near_K, 0.0, seconds_K)
    r_K, h_K = talks_RK.sum(axis=0), talks_HK.sum(axis=0)
    return Errors(
        miss=float(seconds_K @ np.maximum(r_K - h_K, 0)),
        false_alarm=float(seconds_K @ np.maximum(h_K - r_K, 0)),
        confusion=float(seconds_K @ (np.minimum(r_K, h_K) - right_K)),
        total=float(seconds_K @ r_K),
    )


def der(*, collar: float = 0.0) -> Metric:
    """Return the metric ``der``; rows are recordings, encoded by :func:`encode`.

    Args:
        collar: see :func:`errors`.
    """
    return _metric("der", (0, 1, 2), collar)


def der_parts(*, collar: float = 0.0) -> tuple[Metric, Metric, Metric]:
    """Return the metrics ``miss``, ``false_alarm`` and ``confusion``, whose sum is the DER.

    Args:
        collar: see :func:`errors`.
    """
    return (
        _metric("miss", (0,), collar),
        _metric("false_alarm", (1,), collar),
        _metric("confusion", (2,), collar),
    )


def _metric(name: str, columns: tuple[int, ...], collar: float) -> Metric:
    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        pairs = zip(refs, hyps, strict=True)
        return np.array([errors(decode(ref), decode(hyp), collar=collar) for ref, hyp in pairs])

    shown = f"{collar:.2f}" if collar == round(collar, 2) else f"{collar!r}"
    return Metric(
        name=name,
        signature=f"{name}|collar:{shown}|overlap:yes|v1",
        higher_is_better=False,
        counts=counts,
        value=lambda sums: ratio(sums[..., list(columns)].sum(axis=-1), sums[..., 3]),
    )


def _speech(turns: Sequence[Turn]) -> list[Floats]:
    """Return the start and end of each stretch of speech (N, 2) of each speaker."""
    spoken: dict[str, list[list[float]]] = {}
    for turn in sorted(turns, key=lambda turn: turn.start):
        spans = spoken.setdefault(turn.speaker, [])
        if spans and turn.start <= spans[-1][1] + TOUCHING:
            spans[-1][1] = max(spans[-1][1], turn.end)
        else:
            spans.append([turn.start, turn.end])
    return [np.array(spans) for spans in spoken.values()]


def _talks(speech: Sequence[Floats], middle_K: Floats) -> NDArray[np.bool_]:
    """Return whether each speaker talks in each interval, (speakers, K)."""
    table = np.zeros((len(speech), len(middle_K)), dtype=bool)
    for row, spans in enumerate(speech):
        begun_K = np.searchsorted(spans[:, 0], middle_K)
        table[row] = begun_K > np.searchsorted(spans[:, 1], middle_K)
    return table


def _right(
    talks_RK: NDArray[np.bool_], talks_HK: NDArray[np.bool_], seconds_K: Floats
) -> NDArray[np.int64]:
    """Return how many speakers of the reference talk at the same time as their counterparts."""
    from scipy.optimize import linear_sum_assignment

    together_RH = (talks_RK * seconds_K) @ talks_HK.T.astype(np.float64)
    ref_speakers, hyp_speakers = linear_sum_assignment(together_RH, maximize=True)
    both = talks_RK[ref_speakers] & talks_HK[hyp_speakers]
    return np.asarray(both.sum(axis=0, dtype=np.int64))
