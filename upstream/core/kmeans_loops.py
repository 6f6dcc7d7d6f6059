"""The loops of k-means: on a growing sample, over all points (Lloyd), and over mini-batches.

Lloyd 1982, "Least squares quantization in PCM"; Sculley 2010, "Web-scale k-means clustering" for
mini-batches; Salakhutdinov and Roweis 2003, "Adaptive overrelaxed bound optimization methods" for
the steps on the sample.

Shape suffixes: N points, D width, K clusters, n points of the sample, b points of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mynah.upstream.core.kmeans_seed import plus_plus
from mynah.upstream.core.kmeans_steps import Points, Totals, fill_empty, means, totals

_BASE = 10_000  # points of the first level, or 20 for each cluster where that is more
_GROWTH = 4  # of a level over the one before
_RELAX = 1.8  # a step on the sample, as a multiple of Lloyd's
_SETTLED = 3e-4  # a level ends when a step lowers the inertia by less than this part of it
_MOST = 100  # steps of one level
_TRIAL = 10  # steps after which several starts are compared

Run = tuple[Tensor, Totals, list[float]]


def first_level(clusters: int) -> int:
    """Return how many points k-means++ draws from: 10 000, or 20 for each cluster."""
    return max(_BASE, 20 * clusters)


def levels(count: int, clusters: int, largest: int) -> list[int]:
    """Return how many points of the sample each level has, at least one level.

    Each has four times as many as the one before, up to ``largest`` and to half of all points:
    beyond that the points themselves are as cheap.
    """
    sizes = [min(count, first_level(clusters))]
    while (size := sizes[-1] * _GROWTH) <= min(largest, count // 2):
        sizes.append(size)
    return sizes


def coarse(
    x_nD: Tensor, sizes: list[int], *, clusters: int, inits: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the centroids (K, D), float64, and their counts from a sample, coarse to fine.

    Args:
        x_nD: the sample in random order, shifted: its first points are a sample too.
        sizes: of the levels.
        clusters: K.
        inits: k-means++ starts on the first level; the best after ten steps goes on.
        generator: a CPU generator.
    """
    base = Points(x_nD[: sizes[0]], clusters=clusters)
    best: tuple[Tensor, Totals] | None = None
    for _ in range(inits):
        start_KD = plus_plus(x_nD[: sizes[0]], clusters, generator).double()
        tried = relaxed(base, start_KD, _TRIAL if inits > 1 else 0)
        if best is None or tried[1].inertia < best[1].inertia:
            best = tried
    assert best is not None
    for size in sizes:
        centroids_KD, found = relaxed(Points(x_nD[:size], clusters=clusters), best[0])
        best = (means(centroids_KD, found), found)
    return best[0], best[1].counts_K


def relaxed(points: Points, centroids_KD: Tensor, iterations: int = _MOST) -> tuple[Tensor, Totals]:
    """Lloyd's iterations with steps that go 1.8 times as far: about half as many are needed.

    A step after which the inertia is higher is taken back, and the rest are Lloyd's own.

    Args:
        points: gone through once per iteration.
        centroids_KD: float64 start.
        iterations: at most this many steps.

    Returns:
        The best centroids and what was found with them.
    """
    factor, next_KD = _RELAX, centroids_KD
    best: tuple[Tensor, Totals] | None = None
    for _ in range(iterations + 1):
        found = totals(points, centroids_KD)
        if best is not None and found.inertia > best[1].inertia:
            if factor == 1.0:
                break
            factor, centroids_KD = 1.0, next_KD
            continue
        gain = best[1].inertia - found.inertia if best is not None else float("inf")
        best = (centroids_KD, found)
        filled = fill_empty(points, centroids_KD, found)
        if filled is found and gain <= _SETTLED * found.inertia:
            break
        next_KD = means(centroids_KD, filled)
        step = factor if filled is found else 1.0
        centroids_KD = centroids_KD + step * (next_KD - centroids_KD)
    assert best is not None
    return best


def lloyd(points: Points, centroids_KD: Tensor, iterations: int, tolerance: float) -> Run:
    """Lloyd's iterations over all points.

    Args:
        points: gone through once per iteration, and once more at the end.
        centroids_KD: float64 start, shifted as the points are.
        iterations: at most this many updates.
        tolerance: stop when an update lowers the inertia by at most this part of it and there is
            no empty cluster that a point could be given to.

    Returns:
        Centroids, what was found with exactly these, and the inertia before each update and after
        the last.
    """
    history: list[float] = []
    while True:
        found = totals(points, centroids_KD)
        history.append(found.inertia)
        if len(history) > iterations:
            return centroids_KD, found, history
        filled = fill_empty(points, centroids_KD, found)
        settled = len(history) > 1 and history[-2] - history[-1] <= tolerance * history[-2]
        if settled and filled is found:
            return centroids_KD, found, history
        centroids_KD = means(centroids_KD, filled)


def mini_batch(
    points: Points,
    centroids_KD: Tensor,
    counts_K: Tensor,
    *,
    batch: int,
    epochs: int,
    patience: int,
    generator: torch.Generator,
) -> Run:
    """Sculley's mini-batch k-means: each centroid is the mean of all points it ever was given.

    A cluster that is given no point stays where it is (scikit-learn's reassignment_ratio = 0).

    Args:
        points: a tensor is gone through in a new random order each time, chunks in theirs.
        centroids_KD: float64 start.
        counts_K: how many points each of them stands for already.
        batch: b.
        epochs: at most this often through all points.
        patience: stop when the running mean of the batches' inertia has found no new minimum for
            this many batches.
        generator: a CPU generator.

    Returns:
        Centroids, what was found with exactly these, and the inertia of each batch before its
        update and of all points at the end.
    """
    clusters = len(centroids_KD)
    weights_K = counts_K.double()
    history: list[float] = []
    smooth, lowest, waited = 0.0, float("inf"), 0
    for x_bD in _batches(points, batch, epochs, generator):
        found = totals(Points(x_bD, clusters=clusters), centroids_KD)
        weights_K = weights_K + found.counts_K
        step_KD = found.sums_KD - found.counts_K[:, None] * centroids_KD
        centroids_KD = centroids_KD + step_KD / weights_K.clamp_min(1)[:, None]
        history.append(found.inertia)
        share = min(1.0, 2 * batch / (points.count + 1))
        smooth = smooth + share * (found.inertia - smooth) if len(history) > 1 else found.inertia
        waited = 0 if smooth < lowest else waited + 1
        lowest = min(lowest, smooth)
        if waited >= patience:
            break
    found = totals(points, centroids_KD)
    return centroids_KD, found, [*history, found.inertia]


def _batches(
    points: Points, size: int, epochs: int, generator: torch.Generator
) -> Iterator[Tensor]:
    for _ in range(epochs):
        if points.tensor is None:
            yield from points.pieces(size)
            continue
        order_N = torch.randperm(len(points.tensor), generator=generator)
        for rows_b in order_N.split(size):
            yield points.take(rows_b)
