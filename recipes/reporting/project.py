"""Utterance means in two dimensions, and one number that says how well they cluster.

Shape suffixes: N utterances, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Two views of the same utterances.

    Attributes:
        pca_N2: first two principal components of z-scored means.
        explained: share of the variance that each of the two explains.
        tsne_N2: t-SNE, None with fewer than 5 utterances.
        perplexity: of the t-SNE.
    """

    pca_N2: np.ndarray
    explained: tuple[float, float]
    tsne_N2: np.ndarray | None
    perplexity: float


def scaled(mean_ND: np.ndarray) -> np.ndarray:
    """Return the rows with every dimension at mean 0 and deviation 1; constant ones become 0."""
    centred_ND = mean_ND.astype(np.float64) - mean_ND.mean(0, dtype=np.float64)
    deviation_D = centred_ND.std(0)
    deviation_D[deviation_D < 1e-12] = np.inf
    return np.asarray(centred_ND / deviation_D)


def project(mean_ND: np.ndarray, *, seed: int = 0) -> Projection:
    """Return the PCA and t-SNE of utterance means; one thread, the same bytes every time."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    points_ND = scaled(mean_ND)
    n, d = points_ND.shape
    with threadpool_limits(1):
        pca = PCA(n_components=min(n, d, 50), svd_solver="full")
        reduced = pca.fit_transform(points_ND) if points_ND.any() else np.zeros((n, 2))
        share = np.zeros(2) if not points_ND.any() else pca.explained_variance_ratio_
        perplexity = float(min(30, max(2, (n - 1) // 3)))
        tsne = None
        if n >= 5 and points_ND.any():
            model = TSNE(
                perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed, n_jobs=1
            )
            tsne = model.fit_transform(reduced.astype(np.float32))
    flat = np.zeros((n, 2))
    flat[:, : reduced.shape[1]] = reduced[:, :2]
    first, second = (*(float(x) for x in share[:2]), 0.0, 0.0)[:2]
    return Projection(pca_N2=flat, explained=(first, second), tsne_N2=tsne, perplexity=perplexity)


def neighbours(mean_ND: np.ndarray, labels: Sequence[str]) -> tuple[float, float]:
    """Return (share of utterances whose nearest other one has their label, the same by chance)."""
    n = len(labels)
    if n < 2:
        return 0.0, 0.0
    points_ND = scaled(mean_ND)
    square_N = (points_ND**2).sum(1)
    distance_NN = square_N[:, None] + square_N[None] - 2 * points_ND @ points_ND.T
    np.fill_diagonal(distance_NN, np.inf)
    nearest = distance_NN.argmin(1)
    same = sum(labels[i] == labels[j] for i, j in enumerate(nearest.tolist()))
    counts = Counter(labels)
    chance = sum(c * (c - 1) for c in counts.values()) / (n * (n - 1))
    return same / n, chance
