"""Random cases of what compares signals: SI-SDR, its improvement, the best order, PESQ, STOI.

Shape suffixes: N sources, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mynah.recipes.parity.metric_pair import MetricPair, Value

Pairs = Iterator[tuple[Value, Value]]
Signals = NDArray[np.float64]

_RATE = 16000
_CALLS_IT = "ours calls it"


def _sources(rng: np.random.Generator, sources: int) -> tuple[Signals, Signals, Signals]:
    """Return references (N, S), their mixture (S), and estimates (N, S) in another order.

    Estimates are of any quality, scale, sign and offset.
    """
    shape = (sources, int(rng.integers(20, 400)))
    references_NS = rng.normal(size=shape) * rng.uniform(0.01, 10) + rng.normal(size=(sources, 1))
    noisy_NS = references_NS + rng.normal(size=shape) * 10 ** rng.uniform(-3, 1)
    estimates_NS = noisy_NS[rng.permutation(sources)] * rng.uniform(0.1, 5, size=(sources, 1))
    estimates_NS *= rng.choice([-1.0, 1.0], size=(sources, 1))
    return references_NS, references_NS.sum(axis=0) + rng.normal(size=shape[1]), estimates_NS


def _their_si_sdr(estimate_S: Signals, reference_S: Signals) -> float:
    import torch
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

    pair = torch.from_numpy(estimate_S), torch.from_numpy(reference_S)
    return float(scale_invariant_signal_distortion_ratio(*pair, zero_mean=True))


def si_sdr(count: int, seed: int) -> Pairs:
    """SI-SDR in dB, and torchmetrics's of signals without mean."""
    from mynah.tasks.metrics.separation import si_sdr as metric

    rng = np.random.default_rng(seed)
    for _ in range(count):
        references_NS, _, estimates_NS = _sources(rng, 1)
        pair = estimates_NS[0], references_NS[0]
        yield metric(*pair), _their_si_sdr(*pair)


def si_sdri(count: int, seed: int) -> Pairs:
    """Improvement over the mixture of one source, in dB, and the difference of torchmetrics's."""
    from mynah.tasks.metrics.separation import si_sdr_improvement

    rng = np.random.default_rng(seed)
    for _ in range(count):
        references_NS, mixture_S, estimates_NS = _sources(rng, 1)
        estimate_S, reference_S = estimates_NS[0], references_NS[0]
        theirs = _their_si_sdr(estimate_S, reference_S) - _their_si_sdr(mixture_S, reference_S)
        yield si_sdr_improvement(estimate_S, reference_S, mixture_S), theirs


def best_order(count: int, seed: int) -> Pairs:
    """Mean SI-SDR of the best order of 2 to 4 estimates and that order, and torchmetrics's."""
    import torch
    from torchmetrics.functional.audio import (
        permutation_invariant_training,
        scale_invariant_signal_distortion_ratio,
    )

    from mynah.tasks.metrics.separation import best_order as metric

    rng = np.random.default_rng(seed)
    for index in range(count):
        references_NS, _, estimates_NS = _sources(rng, 2 + index % 3)
        value, order = permutation_invariant_training(
            torch.from_numpy(estimates_NS)[None],
            torch.from_numpy(references_NS)[None],
            scale_invariant_signal_distortion_ratio,
            zero_mean=True,
        )
        mean, places = metric(list(estimates_NS), list(references_NS))
        yield (mean, *places), (float(value), *order[0].tolist())


def _voice(rng: np.random.Generator, noise: tuple[float, float]) -> tuple[Signals, Signals]:
    """Return harmonics that come and go like syllables, and the same in noise.

    Args:
        rng: of everything.
        noise: powers of ten between which its level lies; the voice's is about 0.1.
    """
    seconds = rng.uniform(0.6, 1.2)
    time_S = np.arange(int(seconds * _RATE)) / _RATE
    pitch_S = rng.uniform(90, 220) * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(1, 4) * time_S))
    phase_S = 2 * np.pi * np.cumsum(pitch_S) / _RATE
    tones = rng.choice(np.arange(1, 25), size=8, replace=False)
    clean_S = sum(np.sin(k * phase_S) / k**0.5 for k in tones)
    clean_S = 0.1 * clean_S * (0.2 + np.abs(np.sin(np.pi * rng.uniform(2, 6) * time_S)))
    noise_S = 10 ** rng.uniform(*noise) * rng.normal(size=len(clean_S))
    return clean_S, rng.uniform(0.5, 1) * clean_S + noise_S


def pesq(count: int, seed: int) -> Pairs:
    """Wide-band PESQ, and the package's, called directly."""
    from pesq import pesq as package

    from mynah.tasks.metrics import speech_quality

    rng = np.random.default_rng(seed)
    for _ in range(count):
        clean_S, noisy_S = _voice(rng, (-4.5, -1.5))
        ours = speech_quality.pesq(noisy_S, clean_S, sample_rate=_RATE)
        yield ours, float(package(_RATE, clean_S, noisy_S, "wb"))


def stoi(count: int, seed: int) -> Pairs:
    """STOI, and the package's, called directly."""
    from pystoi import stoi as package

    from mynah.tasks.metrics import speech_quality

    rng = np.random.default_rng(seed)
    for _ in range(count):
        clean_S, noisy_S = _voice(rng, (-3, -0.5))
        ours = speech_quality.stoi(noisy_S, clean_S, sample_rate=_RATE)
        yield ours, float(package(clean_S, noisy_S, _RATE, extended=False))


def _torchmetrics(metric: str, what: str, cases: Callable[[int, int], Pairs]) -> MetricPair:
    packages = ("torchmetrics",)
    return MetricPair(metric=metric, packages=packages, what=what, cases=cases, allowed=1e-6)


def _package(
    metric: str, package: str, cases: Callable[[int, int], Pairs], most: int | None = None
) -> MetricPair:
    return MetricPair(
        metric=metric,
        packages=(package,),
        what=metric,
        cases=cases,
        allowed=1e-12,
        most=most,
        note=_CALLS_IT,
    )


_SI_SDR = "scale_invariant_signal_distortion_ratio"
PAIRS = (
    _torchmetrics("si_sdr", _SI_SDR, si_sdr),
    _torchmetrics("si_sdri", _SI_SDR, si_sdri),
    _torchmetrics("si_sdr (best order)", "permutation_invariant_training", best_order),
    _package("pesq", "pesq", pesq, 100),
    _package("stoi", "pystoi", stoi),
)
