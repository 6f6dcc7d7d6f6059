"""Where k-means starts: a sample of the points, and k-means++ on it.

Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding": each next centroid is
drawn among the points with a probability proportional to the squared distance to the nearest one so
far. Greedy, as scikit-learn does it: of 2 + ln K draws the one that lowers the inertia most is kept.

Shape suffixes: N points, D width, K clusters, J draws, n points of the sample.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mynah.upstream.core.kmeans_steps import Points, exact_products

_BLOCK = 1 << 14  # keys drawn at once: the same ones whatever the pieces
_NEAR = 1e-6  # a squared distance below this part of the squared norms is rounding


@torch.no_grad()
def sample(points: Points, size: int, generator: torch.Generator) -> Tensor:
    """Return ``size`` points drawn without replacement, or all, in random order.

    Every point gets a random key and those with the smallest keys stay, so that one pass is enough
    and the first n of the sample are a sample of n.

    Args:
        points: gone through once; of a tensor only the rows that are drawn.
        size: of the sample; memory is needed for a little more than twice as many.
        generator: a CPU generator.
    """
    if points.tensor is not None:
        blocks = range(0, len(points.tensor), _BLOCK)
        keys_N = torch.cat([_keys(generator) for _ in blocks])[: len(points.tensor)]
        return points.take(_smallest(keys_N, size))
    spare = max(_BLOCK, size // 4)
    kept_nD = torch.empty(size + spare, points.width, device=points.device)
    keys_n = torch.empty(size + spare, dtype=torch.float64)
    held, limit = 0, math.inf
    for x_ND in points.pieces(_BLOCK):
        keys_N = _keys(generator)[: len(x_ND)]
        rows_N = (keys_N < limit).nonzero().flatten()
        if held + len(rows_N) > size + spare:
            # The size smallest keys move to the front: into the places of those that go.
            limit = float(keys_n[:held].kthvalue(size).values)
            stays_n = keys_n[:held] <= limit
            holes_n = (~stays_n[:size]).nonzero().flatten()
            behind_n = stays_n[size:].nonzero().flatten() + size
            keys_n[holes_n] = keys_n[behind_n]
            kept_nD[holes_n.to(points.device)] = kept_nD[behind_n.to(points.device)]
            held = size
        keys_n[held : held + len(rows_N)] = keys_N[rows_N]
        kept_nD[held : held + len(rows_N)] = x_ND[rows_N.to(points.device)]
        held += len(rows_N)
    return kept_nD[_smallest(keys_n[:held], size).to(points.device)]


def _keys(generator: torch.Generator) -> Tensor:
    return torch.rand(_BLOCK, dtype=torch.float64, generator=generator)


def _smallest(keys_N: Tensor, size: int) -> Tensor:
    """Return the places of the smallest keys, in their order."""
    if size >= len(keys_N):
        return keys_N.argsort(stable=True)
    rows_n = (keys_N <= keys_N.kthvalue(size).values).nonzero().flatten()
    return rows_n[keys_N[rows_n].argsort(stable=True)[:size]]


@torch.no_grad()
def plus_plus(x_ND: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Return the greedy k-means++ centroids (K, D), float32.

    Args:
        x_ND: float32 points near zero (shifted), all in memory.
        clusters: K.
        generator: a CPU generator, so that every device draws the same.

    Raises:
        ValueError: fewer distinct points than clusters.
    """
    count, device = len(x_ND), x_ND.device
    if count < clusters:
        raise ValueError(f"{count} points cannot make {clusters} clusters: ask for fewer")
    draws = 2 + int(math.log(clusters))
    chance_KJ = torch.rand(clusters, draws, dtype=torch.float64, generator=generator).to(device)
    across_DN = x_ND.T.contiguous()
    square_N = x_ND.square().sum(dim=1)
    chosen_K = torch.zeros(clusters, dtype=torch.int64, device=device)
    chosen_K[0] = (chance_KJ[0, 0] * count).long().clamp_max(count - 1)
    with exact_products():
        near_N = _distances(x_ND, across_DN, square_N, chosen_K[:1])[0]
        for index in range(1, clusters):
            sums_N = near_N.cumsum(0, dtype=torch.float64)
            rows_J = torch.searchsorted(sums_N, chance_KJ[index] * sums_N[-1])
            rows_J = rows_J.clamp_max(count - 1)
            near_JN = _distances(x_ND, across_DN, square_N, rows_J)
            near_JN = torch.minimum(near_JN, near_N)
            best = near_JN.sum(dim=1).argmin()
            near_N = near_JN[best]
            chosen_K[index] = rows_J[best]
    return _distinct(x_ND, chosen_K)


def _distances(x_ND: Tensor, across_DN: Tensor, square_N: Tensor, rows_J: Tensor) -> Tensor:
    norms_JN = square_N[rows_J][:, None] + square_N
    near_JN = torch.addmm(norms_JN, x_ND[rows_J], across_DN, alpha=-2)
    return near_JN.masked_fill_(near_JN <= _NEAR * norms_JN, 0.0)


def _distinct(x_ND: Tensor, chosen_K: Tensor) -> Tensor:
    """Return the chosen points; one that was chosen twice makes room for a point not chosen yet.

    That happens only where the points left are as near to the chosen ones as rounding lets one see.
    """
    centroids_KD = x_ND[chosen_K]
    unique_KD = centroids_KD.unique(dim=0)
    missing = len(chosen_K) - len(unique_KD)
    if not missing:
        return centroids_KD
    both_ND = torch.cat([unique_KD, x_ND.unique(dim=0)])
    all_ND, times_N = both_ND.unique(dim=0, return_counts=True)
    if len(all_ND) < len(chosen_K):
        raise ValueError(
            f"the {len(x_ND)} points that k-means starts from have only {len(all_ND)} distinct "
            f"values, too few for {len(chosen_K)} clusters: ask for fewer, or give other points"
        )
    free_ND = all_ND[times_N == 1]
    return torch.cat([unique_KD, free_ND[:missing]])
