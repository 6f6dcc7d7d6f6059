"""How well sources are separated: SI-SDR, its improvement, and the best order of the sources.

SI-SDR (Le Roux et al. 2019, "SDR - half-baked or well done?", eq. 3-5), of signals without their
means: project the estimate on the reference, then ``10 log10(|projection|^2 / |estimate -
projection|^2)`` in dB. The improvement is SI-SDR of the estimate minus that of the mixture. With
several sources the order of the estimates is free: the one with the highest mean SI-SDR counts
(utterance-level permutation invariance), as SUPERB-SG scores separation and, with one source,
enhancement.

A signal that equals its reference up to scale has no finite SI-SDR, and neither has one without any
of it. Residual and projection count as at least as large as rounding makes them, so values stay
between -313 and +313 dB: what is beyond cannot be told apart in float64.

Silence (a constant signal) is refused: as a reference it has no SI-SDR, and an estimate of silence
has none either, which a small number added to both sides would hide as a plausible value.

Shape suffixes: N sources, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike

from mynah.tasks.metrics.mean import mean_metric
from mynah.tasks.metrics.metric import Floats, Metric

MOST_SOURCES = 4  # 24 orders
SHORTEST = 3  # samples; without the mean, two are always proportional to any other two
_EPS = float(np.finfo(np.float64).eps)
LOWEST = 20 * float(np.log10(_EPS))  # dB, -313: of a signal with nothing of its reference


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well one mixture was separated.

    Attributes:
        si_sdr: mean over sources of the best order, in dB.
        si_sdri: mean improvement over the mixture, in dB.
        order: the estimate of each reference.
    """

    si_sdr: float
    si_sdri: float
    order: tuple[int, ...]


def si_sdr(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Return the scale-invariant signal-to-distortion ratio in dB.

    Args:
        estimate: (S) samples of any real type.
        reference: likewise.

    Raises:
        ValueError: not one-dimensional, of different lengths, under 3 samples, NaN or infinite
            samples, or silence.
    """
    estimate_S = _signal(estimate, "the estimate")
    reference_S = _signal(reference, "the reference")
    _same_length(estimate_S, reference_S, "the estimate", "the reference")
    return _si_sdr(estimate_S, reference_S)


def si_sdr_improvement(estimate: ArrayLike, reference: ArrayLike, mixture: ArrayLike) -> float:
    """Return SI-SDR of the estimate minus SI-SDR of the mixture, in dB.

    Raises:
        ValueError: as :func:`si_sdr`.
    """
    return separation([estimate], [reference], mixture).si_sdri


def best_order(
    estimates: Sequence[ArrayLike], references: Sequence[ArrayLike]
) -> tuple[float, tuple[int, ...]]:
    """Return the highest mean SI-SDR of all orders of the estimates, and that order.

    Args:
        estimates: N signals (S), 1 to 4 of them, or an array (N, S).
        references: as many.

    Returns:
        The mean in dB, and for each reference the number of its estimate; of equal orders the first
        in lexicographic order.

    Raises:
        ValueError: no sources, more than 4, different numbers of them, or as :func:`si_sdr`.
    """
    estimates_N, references_N = _sources(estimates, references, False)
    return _best(_table(estimates_N, references_N))


def separation(
    estimates: Sequence[ArrayLike],
    references: Sequence[ArrayLike],
    mixture: ArrayLike,
    *,
    silent_allowed: bool = False,
) -> Separation:
    """Return SI-SDR and its improvement of the best order; see :func:`best_order`.

    Args:
        estimates: N signals (S), 1 to 4 of them, or an array (N, S).
        references: as many.
        mixture: (S), what was separated.
        silent_allowed: give an estimate that is silence ``LOWEST`` dB with every reference, instead
            of refusing it: a model that has learned nothing may well be silent.

    Raises:
        ValueError: as :func:`best_order`.
    """
    estimates_N, references_N = _sources(estimates, references, silent_allowed)
    mixture_S = _signal(mixture, "the mixture")
    _same_length(mixture_S, references_N[0], "the mixture", "reference 0")
    value, order = _best(_table(estimates_N, references_N))
    before = float(np.mean([_si_sdr(mixture_S, reference_S) for reference_S in references_N]))
    return Separation(si_sdr=value, si_sdri=value - before, order=order)


def si_sdr_metric(*, skip_undefined: bool = False) -> Metric:
    """Mean over utterances of SI-SDR in dB, from numbers as text; see ``mean_metric``."""
    return _metric("si_sdr", skip_undefined)


def si_sdri_metric(*, skip_undefined: bool = False) -> Metric:
    """Mean over utterances of the improvement of SI-SDR in dB, likewise."""
    return _metric("si_sdri", skip_undefined)


def _metric(name: str, skip_undefined: bool) -> Metric:
    return mean_metric(
        name,
        higher_is_better=True,
        options="mean:removed|order:best|unit:dB",
        skip_undefined=skip_undefined,
    )


def _si_sdr(estimate_S: Floats, reference_S: Floats) -> float:
    """SI-SDR of two signals without mean; the reference is not silent."""
    if not estimate_S.any():
        return LOWEST
    # rounding is relative to the largest term: signals of norm one neither over- nor underflow
    estimate_S = estimate_S / np.linalg.norm(estimate_S)
    reference_S = reference_S / np.linalg.norm(reference_S)
    projection_S = (estimate_S @ reference_S) * reference_S
    kept = max(float(np.sum(projection_S**2)), _EPS**2)
    lost = max(float(np.sum((estimate_S - projection_S) ** 2)), _EPS**2)
    return 10 * float(np.log10(kept / lost))


def _table(estimates_N: list[Floats], references_N: list[Floats]) -> Floats:
    """SI-SDR of every reference (rows) with every estimate (columns)."""
    return np.array([[_si_sdr(e_S, r_S) for e_S in estimates_N] for r_S in references_N])


def _best(table_NN: Floats) -> tuple[float, tuple[int, ...]]:
    rows = np.arange(len(table_NN))
    orders = list(permutations(range(len(table_NN))))
    means = [float(table_NN[rows, list(order)].mean()) for order in orders]
    best = int(np.argmax(means))
    return means[best], orders[best]


def _sources(
    estimates: Sequence[ArrayLike], references: Sequence[ArrayLike], silent_allowed: bool
) -> tuple[list[Floats], list[Floats]]:
    """Check the sources, and return them as float64 without mean."""
    if len(estimates) != len(references):
        raise ValueError(f"{len(estimates)} estimates but {len(references)} references")
    if not 1 <= len(references) <= MOST_SOURCES:
        raise ValueError(f"1 to {MOST_SOURCES} sources can be ordered, got {len(references)}")
    estimates_N = [
        _signal(x, f"estimate {place}", silent_allowed=silent_allowed)
        for place, x in enumerate(estimates)
    ]
    references_N = [_signal(x, f"reference {place}") for place, x in enumerate(references)]
    for place in range(len(references)):
        _same_length(estimates_N[place], references_N[0], f"estimate {place}", "reference 0")
        _same_length(references_N[place], references_N[0], f"reference {place}", "reference 0")
    return estimates_N, references_N


def _signal(x: ArrayLike, name: str, *, silent_allowed: bool = False) -> Floats:
    """Return a signal as float64 without its mean, if it is one."""
    x_S = np.asarray(x, dtype=np.float64)
    if x_S.ndim != 1:
        raise ValueError(f"{name} must be one channel of samples, got shape {x_S.shape}")
    if len(x_S) < SHORTEST:
        raise ValueError(f"{name} has {len(x_S)} samples: SI-SDR needs {SHORTEST} at least")
    if not np.isfinite(x_S).all():
        raise ValueError(f"{name} has samples that are NaN or infinite")
    if np.ptp(x_S) == 0:
        if silent_allowed:
            return np.zeros_like(x_S)
        raise ValueError(f"{name} is silence (constant {x_S[0]:g}): SI-SDR is not defined")
    x_S = x_S / np.abs(x_S).max()
    centred_S: Floats = x_S - x_S.mean()
    return centred_S


def _same_length(x_S: Floats, y_S: Floats, name: str, other: str) -> None:
    if len(x_S) != len(y_S):
        raise ValueError(
            f"{name} has {len(x_S)} samples but {other} has {len(y_S)}: cut or pad them first"
        )
