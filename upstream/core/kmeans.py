"""k-means for any amount of points, on a processor or an accelerator.

What HuBERT's targets are made of: the cluster of each frame's features (arXiv 2106.07447, section
II-B). :func:`fit` finds the centroids, :func:`assign` the nearest one of each point.

How it is fast: the minimum is approached on a sample. k-means++ draws the centroids among 10 000
points (20 K if that is more), and Lloyd's iterations with lengthened steps run on these, then on
four times as many, and so on up to ``largest``; what is left are two or three iterations over all
points. One iteration is one matrix product, an argmin and a sum over pieces that fit into the
cache. Nothing of it changes what is minimised: the result is a fixed point of Lloyd's iteration
on *all* points, up to ``tolerance``.

The reference is HuBERT's recipe (fairseq ``examples/hubert/simple_kmeans/learn_kmeans.py``):
scikit-learn's MiniBatchKMeans with init k-means++, batch_size 10000, max_iter 100, n_init 20,
tol 0.0, max_no_improvement 100, reassignment_ratio 0.0, on a part of the data that fits in memory.
What differs: ``full`` uses every point and not only some batches of them, so its inertia is lower;
one start is enough, because greedy k-means++ is followed by iterations to convergence on the
sample; data that does not fit in memory streams.

Empty clusters: the points farthest from their centroids become clusters of their own, as
scikit-learn has it (:func:`mynah.upstream.core.kmeans_steps.fill_empty`).

The same seed and the same points give the same result, bit for bit on one machine, whether they
come as a tensor or in chunks of any size.

Shape suffixes: N points, D width, K clusters, n points of the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mynah.upstream.core.kmeans_loops import coarse, first_level, levels, lloyd, mini_batch
from mynah.upstream.core.kmeans_seed import sample
from mynah.upstream.core.kmeans_steps import (
    Nearest,
    Points,
    Source,
    exact_products,
    refuse_bad,
)

Method = Literal["full", "mini-batch"]


@dataclass(frozen=True, kw_only=True)
class KMeans:
    """Centroids and how well they fit.

    Attributes:
        centroids_KD: float32, on the device of the computation.
        inertia: mean squared distance of all points to their nearest centroid.
        counts_K: int64 points of each cluster; the sum is N.
        iterations: updates from all points (``mini-batch``: from a batch).
        history: the inertia before each of them (``mini-batch``: of its batch), and at the end.
    """

    centroids_KD: Tensor
    inertia: float
    counts_K: Tensor
    iterations: int
    history: tuple[float, ...]


@torch.no_grad()
def fit(
    points: Source,
    *,
    clusters: int,
    method: Method = "full",
    iterations: int = 100,
    tolerance: float = 1e-3,
    inits: int = 1,
    start_KD: Tensor | None = None,
    largest: int = 160_000,
    batch: int = 10_000,
    patience: int = 100,
    seed: int | torch.Generator = 0,
    device: torch.device | str | None = None,
) -> KMeans:
    """Find centroids that make the mean squared distance of the points to the nearest one small.

    Args:
        points: floating (N, D); or a callable that returns, at each call, a new iterable of (n, D)
            chunks of the same points in the same order, of any number and size: they are never
            all in memory. It is called once or twice to look at the first chunk, once to draw the sample,
            once for each update, and once to measure the result.
        clusters: K.
        method: ``full``, Lloyd's iterations over all points; or ``mini-batch``, for points that
            are slow to come by: updates after each batch, a few passes in all. Chunks should then
            come in random order.
        iterations: at most this many passes that update the centroids.
        tolerance: ``full``: stop when an update lowers the inertia by at most this part of it.
        inits: k-means++ starts that are compared on the sample. Ten instead of one lower the
            inertia of MFCCs of real speech by less than a tenth of a percent (K = 100 and 500),
            that of some dozens of clusters far apart by a percent.
        start_KD: centroids to start from; then there is no sample and no k-means++.
        largest: points of the sample of ``full``, or 20 K if that is more; little more than twice
            as many are in memory while they are drawn. ``mini-batch`` samples 10 000 or 20 K.
        batch: points of a mini-batch.
        patience: ``mini-batch``: stop when the running mean of the batches' inertia has found no
            new minimum for this many batches.
        seed: of the sample, k-means++ and the batches; or a CPU generator to draw from.
        device: where to compute; None: where the points are.

    Raises:
        TypeError: points that are not floating tensors.
        ValueError: a setting out of range, points of another shape, NaN or infinite, fewer
            distinct points than clusters, or a callable that yields other points the second time.
    """
    _check_settings(
        clusters=clusters,
        iterations=iterations,
        inits=inits,
        batch=batch,
        patience=patience,
        largest=largest,
    )
    if method not in ("full", "mini-batch"):
        raise ValueError(f"method must be 'full' or 'mini-batch', got {method!r}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    source = Points(points, clusters=clusters, device=device)
    if start_KD is not None:
        centroids_KD = _start(start_KD, source, clusters)
        counts_K = torch.zeros(clusters, dtype=torch.int64, device=source.device)
    else:
        centroids_KD, counts_K = _from_sample(
            source,
            clusters=clusters,
            inits=inits,
            largest=largest if method == "full" else 0,
            generator=generator,
        )
    if method == "full":
        centroids_KD, found, history = lloyd(source, centroids_KD, iterations, tolerance)
    else:
        centroids_KD, found, history = mini_batch(
            source,
            centroids_KD,
            counts_K,
            batch=batch,
            epochs=iterations,
            patience=patience,
            generator=generator,
        )
    return KMeans(
        centroids_KD=(centroids_KD + source.shift_D).float(),
        inertia=found.inertia,
        counts_K=found.counts_K,
        iterations=len(history) - 1,
        history=tuple(history),
    )


@torch.no_grad()
def assign(points_ND: Tensor, centroids_KD: Tensor) -> Tensor:
    """Return the index of the nearest centroid of each point, int64 (N,), where the points are.

    Distances are never all in memory. Of equally near centroids the first is taken.

    Args:
        points_ND: floating (N, D); N may be 0.
        centroids_KD: floating (K, D).

    Raises:
        TypeError: points that are not a floating tensor.
        ValueError: shapes that do not fit, or a point that is NaN or infinite.
    """
    if centroids_KD.ndim != 2 or not len(centroids_KD):
        raise ValueError(f"centroids must be of shape (K, D), got {tuple(centroids_KD.shape)}")
    if points_ND.ndim == 2 and not len(points_ND):
        return torch.zeros(0, dtype=torch.int64, device=points_ND.device)
    points = Points(points_ND, clusters=len(centroids_KD))
    if points.width != centroids_KD.shape[1]:
        raise ValueError(
            f"points of width {points.width} have no nearest among centroids of width "
            f"{centroids_KD.shape[1]}: take features of the same layer of the same model"
        )
    centroids_KD = centroids_KD.to(points.device, torch.float64)
    points.move(centroids_KD.mean(dim=0))
    nearest = Nearest(centroids_KD - points.shift_D)
    labels: list[Tensor] = []
    with exact_products():
        for x_ND in points.pieces():
            labels.append(nearest(x_ND))
            if not torch.dot(x_ND.flatten(), x_ND.flatten()).isfinite():
                refuse_bad(points)
    return torch.cat(labels)


def _from_sample(
    points: Points, *, clusters: int, inits: int, largest: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the centroids (K, D) of a sample and their counts, and shift the points to its mean."""
    size = max(largest, first_level(clusters))
    if points.count:
        size = levels(points.count, clusters, largest)[-1]
    x_nD = sample(points, size, generator)
    if not torch.dot(x_nD.flatten(), x_nD.flatten()).isfinite():
        refuse_bad(points)
    sizes = levels(points.count, clusters, largest)
    points.move(x_nD[: sizes[0]].mean(dim=0, dtype=torch.float64))
    x_nD = x_nD[: sizes[-1]].sub_(points.shift_D.float())
    return coarse(x_nD, sizes, clusters=clusters, inits=inits, generator=generator)


def _start(start_KD: Tensor, points: Points, clusters: int) -> Tensor:
    """Return a given start, float64 and shifted, and shift the points likewise."""
    if start_KD.shape != (clusters, points.width) or not start_KD.isfinite().all():
        raise ValueError(
            f"start_KD must hold {clusters} finite centroids of width {points.width}, got shape "
            f"{tuple(start_KD.shape)}"
        )
    mean_D = next(points.pieces()).mean(dim=0, dtype=torch.float64)
    if not mean_D.isfinite().all():
        refuse_bad(points)
    points.move(mean_D)
    return start_KD.to(points.device, torch.float64) - points.shift_D


def _check_settings(**settings: int) -> None:
    for name, value in settings.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
