"""Alignment of two whole sequences by dynamic time warping: exact, or as ``fastdtw`` does it.

Steps (1, 0), (0, 1) and (1, 1), all of weight one, from the first pair of frames to the last
(Sakoe and Chiba 1978, symmetric form without the double diagonal weight): the recursion of
``fastdtw`` and of ``librosa.sequence.dtw``. All cells of an anti-diagonal depend on the two before
it only, so each is one vector operation.

FastDTW (Salvador and Chan 2007) halves both sequences until they are short, aligns those, and then
aligns each finer level within ``radius`` cells of the path below. It sees fewer paths, so its cost
is never below the exact one: for mel-cepstra of two recordings of a sentence 1 % above it on
average, 8 % at most (60 pairs of EmoDB).

Shape suffixes: X and Y frames of the sequences, D width, P pairs of the path.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mynah.tasks.metrics.metric import Floats


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """The cheapest path.

    Attributes:
        cost: sum of the costs of its pairs.
        x_P: frames of the first sequence, from first to last.
        y_P: frames of the second, likewise.
    """

    cost: float
    x_P: NDArray[np.intp]
    y_P: NDArray[np.intp]


def align(cost_XY: Floats) -> Alignment:
    """Return the cheapest path through a matrix of costs, from corner to corner.

    Of equal predecessors (x-1, y) is taken before (x, y-1), and that before (x-1, y-1), as
    ``fastdtw`` does.

    Args:
        cost_XY: costs of pairing frames; infinity forbids a pair.

    Raises:
        ValueError: an empty matrix, NaN, or no path of finite cost.
    """
    cost_XY = np.ascontiguousarray(cost_XY, dtype=np.float64)
    if cost_XY.ndim != 2 or not cost_XY.size:
        raise ValueError(f"costs must be a matrix with frames on both sides, got {cost_XY.shape}")
    if np.isnan(cost_XY).any():
        raise ValueError("costs hold NaN: check the features")
    xs, ys = cost_XY.shape
    # total[k + 2, x + 1] is the cost of the best path to (x, y) with x + y = k; the first two rows
    # and the first column stand for what is before the first frames
    total = np.full((xs + ys + 1, xs + 1), np.inf)
    total[0, 0] = 0
    flat, step = cost_XY.ravel(), max(1, ys - 1)  # along an anti-diagonal
    for k in range(xs + ys - 1):
        low, high = max(0, k - ys + 1), min(xs - 1, k)
        best = np.minimum(total[k + 1, low : high + 1], total[k + 1, low + 1 : high + 2])
        np.minimum(best, total[k, low : high + 1], out=best)
        begin = low * ys + k - low
        best += flat[begin : begin + (high - low) * step + 1 : step]
        total[k + 2, low + 1 : high + 2] = best
    cost = float(total[-1, -1])
    if not np.isfinite(cost):
        raise ValueError("no path of finite cost from the first pair of frames to the last")
    x, y = xs - 1, ys - 1
    path = [(x, y)]
    while x or y:
        k = x + y
        before = (total[k + 1, x], total[k + 1, x + 1], total[k, x])
        move = before.index(min(before))
        x, y = x - (move != 1), y - (move != 0)
        path.append((x, y))
    pairs = np.array(path[::-1], dtype=np.intp)
    return Alignment(cost=cost, x_P=pairs[:, 0], y_P=pairs[:, 1])


def distances(x_XD: Floats, y_YD: Floats) -> Floats:
    """Return Euclidean distances of all frames of x to all of y, (X, Y).

    Raises:
        ValueError: not two matrices of the same width with frames in both.
    """
    from scipy.spatial.distance import cdist

    for name, z in (("x", x_XD), ("y", y_YD)):
        if z.ndim != 2 or not z.size:
            raise ValueError(f"{name} must be frames x width with one frame at least: {z.shape}")
    if x_XD.shape[1] != y_YD.shape[1]:
        raise ValueError(f"x has width {x_XD.shape[1]} but y {y_YD.shape[1]}")
    found: Floats = cdist(x_XD, y_YD)
    return found


def fast_align(x_XD: Floats, y_YD: Floats, *, radius: int = 1) -> Alignment:
    """Return FastDTW's approximate alignment of two sequences under Euclidean distance.

    Args:
        x_XD: frames.
        y_YD: frames.
        radius: cells around the coarser path that are looked at; 1 is ``fastdtw``'s default.

    Raises:
        ValueError: as :func:`align` and :func:`distances`, or a radius below 1.
    """
    if radius < 1:
        raise ValueError(f"radius must be at least 1, got {radius}")
    cost_XY = distances(x_XD, y_YD)
    if min(cost_XY.shape) < radius + 2:
        return align(cost_XY)
    coarse = fast_align(_halved(x_XD), _halved(y_YD), radius=radius)
    near_XY = _near(coarse, cost_XY.shape[0], cost_XY.shape[1], radius)
    return align(np.where(near_XY, cost_XY, np.inf))


def _halved(x_XD: Floats) -> Floats:
    """Return means of pairs of frames; an odd last frame is left out."""
    even = len(x_XD) // 2 * 2
    halved: Floats = (x_XD[0:even:2] + x_XD[1:even:2]) / 2
    return halved


def _near(coarse: Alignment, xs: int, ys: int, radius: int) -> NDArray[np.bool_]:
    """Return which cells (X, Y) lie within ``radius`` coarse cells of the coarse path."""
    size = 2 * radius + 1
    cells = np.zeros((xs // 2 + size, ys // 2 + size), dtype=bool)  # with a rim of radius
    for dx in range(size):
        for dy in range(size):
            cells[coarse.x_P + dx, coarse.y_P + dy] = True
    near = cells[radius:, radius:].repeat(2, axis=0).repeat(2, axis=1)
    return near[:xs, :ys]
