"""What k-means does to all points once: a source that can be gone through again, and a Lloyd pass.

Points come as one tensor or as chunks of any size, from a callable that starts anew each time. They
are cut into pieces of one size that a core's cache holds, whatever the chunks, so that both give
the same result bit for bit and the working memory depends on neither.

All arithmetic is on points minus one fixed vector near their mean: squared distances come of one
matrix product, |x|^2 - 2 x.c + |c|^2, which loses digits when the points lie far from zero. Sums
are kept in float64.

Shape suffixes: N points, D width, K clusters, E empty clusters, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

Source = Tensor | Callable[[], Iterable[Tensor]]

_CACHE = 1 << 18  # numbers of a piece: 1 MB of float32
_ACCELERATOR = 1 << 26
_TIGHT = 0.02  # inertia below this part of the points' energy is summed from distances
_FLUSH = 32  # points per cluster that are summed in float32 before they join the float64 sums


class Points:
    """All points, as often as asked for, in pieces of at most a few thousand.

    Args:
        source: (N, D), or a callable that returns a new iterable of (n, D) chunks at each call.
        clusters: K, which bounds a piece: points x clusters fit into the cache.
        device: where to compute; None: where the first chunk is.

    Attributes:
        width: D.
        device: where pieces are.
        rows: points of a piece.
        shift_D: float64 vector subtracted from every point; zero at first.
        count: N, known after the first pass over a callable; 0 before.
        energy: sum of the squares of all (shifted) points, None before :func:`totals` found it.

    Raises:
        TypeError: points that are not floating.
        ValueError: no points, or of another rank or width.
    """

    def __init__(
        self, source: Source, *, clusters: int, device: torch.device | str | None = None
    ) -> None:
        self._source = source
        first_ND = source if isinstance(source, Tensor) else next(iter(source()), None)
        if first_ND is None:
            raise ValueError("no points: the callable's iterable has none")
        _check(first_ND, None)
        self.width = first_ND.shape[1]
        self.device = torch.device(device) if device is not None else first_ND.device
        self.rows = piece_rows(clusters, self.width, self.device)
        self.count = len(first_ND) if isinstance(source, Tensor) else 0
        self.shift_D = torch.zeros(self.width, dtype=torch.float64, device=self.device)
        self.energy: float | None = None
        if isinstance(source, Tensor) and not len(source):
            raise ValueError("no points: the tensor has no rows")

    @property
    def tensor(self) -> Tensor | None:
        """The points where they are one tensor, None where they stream."""
        return self._source if isinstance(self._source, Tensor) else None

    def move(self, shift_D: Tensor) -> None:
        """Subtract another vector from now on, rounded to float32 as the points are."""
        self.shift_D = shift_D.float().double()
        self.energy = None

    def take(self, rows_n: Tensor) -> Tensor:
        """Return some points (n, D) of a tensor, float32 and shifted.

        Raises:
            TypeError: the points stream.
        """
        if not isinstance(self._source, Tensor):
            raise TypeError("points that stream have no rows to take")
        x_nD = self._source.index_select(0, rows_n.to(self._source.device))
        return x_nD.to(self.device, torch.float32).sub_(self.shift_D.float())

    def pieces(self, rows: int | None = None) -> Iterator[Tensor]:
        """Yield float32 (n, D) pieces of ``rows`` points, the last one of fewer, shifted.

        Raises:
            TypeError: a chunk that is not floating.
            ValueError: a chunk of another rank or width, no points at all, or not as many as the
                last time.
        """
        moved = bool(self.shift_D.any())
        shift_D = self.shift_D.float()
        count = 0
        for piece_ND in self._cut(rows or self.rows):
            count += len(piece_ND)
            x_ND = piece_ND.to(self.device, torch.float32)
            yield x_ND - shift_D if moved else x_ND
        if not count:
            raise ValueError("no points: the callable's iterable has none")
        if self.count not in (0, count):
            raise ValueError(
                f"the callable gave {self.count} points once and {count} the next time: it must "
                "return a new iterable over the same points at each call"
            )
        self.count = count

    def _cut(self, rows: int) -> Iterator[Tensor]:
        if isinstance(self._source, Tensor):
            yield from self._source.split(rows)
            return
        waiting: list[Tensor] = []
        size = 0
        for chunk_ND in self._source():
            _check(chunk_ND, self.width)
            rest_ND = chunk_ND
            while size + len(rest_ND) >= rows:
                waiting.append(rest_ND[: rows - size])
                rest_ND = rest_ND[rows - size :]
                yield torch.cat(waiting) if len(waiting) > 1 else waiting[0]
                waiting, size = [], 0
            if len(rest_ND):
                # A view would keep the whole chunk alive; a reader may also reuse its memory.
                waiting.append(rest_ND.clone())
                size += len(rest_ND)
        if waiting:
            yield torch.cat(waiting)


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What one pass over all points yields.

    Attributes:
        sums_KD: float64 sum of the points of each cluster.
        counts_K: int64.
        inertia: mean squared distance of the points to their centroid.
    """

    sums_KD: Tensor
    counts_K: Tensor
    inertia: float


def piece_rows(clusters: int, width: int, device: torch.device) -> int:
    """Return how many points are worked on at once.

    On a processor their distances fit into the cache, and they are few enough for a cluster's
    share of them to be summed in float32.
    """
    if device.type != "cpu":
        return max(256, min(_ACCELERATOR // max(clusters, width), 1 << 16))
    return max(256, min(_CACHE // max(clusters, width), _FLUSH * clusters))


class Nearest:
    """Finds the nearest centroid of shifted points: one matrix product and an argmin.

    Args:
        centroids_KD: float64, shifted likewise.
    """

    def __init__(self, centroids_KD: Tensor) -> None:
        self._half_K = (centroids_KD.square().sum(dim=1) / 2).float()
        self._across_DK = centroids_KD.float().T.contiguous()
        self._scores_NK: Tensor | None = None

    def __call__(self, x_ND: Tensor) -> Tensor:
        """Return int64 labels (n,); of equally near centroids the first."""
        if x_ND.device.type != "cpu":
            return torch.addmm(self._half_K, x_ND, self._across_DK, alpha=-1).argmin(dim=1)
        if self._scores_NK is None or len(self._scores_NK) < len(x_ND):
            self._scores_NK = x_ND.new_empty(len(x_ND), len(self._half_K))
        out_NK = self._scores_NK[: len(x_ND)]
        torch.addmm(self._half_K, x_ND, self._across_DK, alpha=-1, out=out_NK)
        # NumPy's argmin is vectorised: six times the speed of torch's on a processor.
        return torch.from_numpy(out_NK.numpy().argmin(axis=1))


@torch.no_grad()
def totals(points: Points, centroids_KD: Tensor) -> Totals:
    """Assign all points and return the sums, counts and inertia.

    The inertia needs no distances: sum |x|^2 - 2 sum_k c_k.S_k + sum_k n_k |c_k|^2, with S the sums
    and n the counts. Where the clusters are so tight that this would lose its digits, the points
    are gone through again.

    Args:
        points: gone through once.
        centroids_KD: float64, shifted as the points are.

    Raises:
        ValueError: a point that is NaN or infinite.
    """
    clusters, width = centroids_KD.shape
    sums_KD = torch.zeros_like(centroids_KD)
    counts_K = torch.zeros(clusters, dtype=torch.int64, device=centroids_KD.device)
    part_KD = torch.zeros(clusters, width, device=centroids_KD.device)
    energy = torch.zeros((), dtype=torch.float64, device=centroids_KD.device)
    nearest = Nearest(centroids_KD)
    unsummed = 0
    with exact_products():
        for x_ND in points.pieces():
            labels_N = nearest(x_ND)
            if points.energy is None:
                energy += torch.dot(x_ND.flatten(), x_ND.flatten())
            if x_ND.device.type == "cpu":
                part_KD.index_add_(0, labels_N, x_ND)
                counts_K += torch.bincount(labels_N, minlength=clusters)
            else:  # additions in a fixed order, which index_add_ does not promise there
                hot_NK = x_ND.new_zeros(len(x_ND), clusters).scatter_(1, labels_N[:, None], 1.0)
                part_KD += hot_NK.T @ x_ND
                counts_K += hot_NK.sum(dim=0).long()
            unsummed += len(x_ND)
            if unsummed >= _FLUSH * clusters:
                sums_KD += part_KD
                part_KD.zero_()
                unsummed = 0
    sums_KD += part_KD
    if points.energy is None:
        points.energy = float(energy)
    own_K = (centroids_KD * (counts_K[:, None] * centroids_KD - 2 * sums_KD)).sum(dim=1)
    total = points.energy + float(own_K.sum())
    if not total < float("inf"):
        refuse_bad(points)
    if total < _TIGHT * points.energy:
        total = _exact_inertia(points, centroids_KD)
    return Totals(sums_KD=sums_KD, counts_K=counts_K, inertia=total / points.count)


def _exact_inertia(points: Points, centroids_KD: Tensor) -> float:
    nearest, total = Nearest(centroids_KD), 0.0
    for x_ND in points.pieces():
        total += float((x_ND - centroids_KD[nearest(x_ND)]).square().sum())
    return total


def means(before_KD: Tensor, found: Totals) -> Tensor:
    """Return the float64 means of the clusters; an empty one stays where it was."""
    means_KD = found.sums_KD / found.counts_K.clamp_min(1)[:, None]
    return torch.where(found.counts_K[:, None] > 0, means_KD, before_KD)


@torch.no_grad()
def fill_empty(points: Points, centroids_KD: Tensor, found: Totals) -> Totals:
    """Give every empty cluster a point: the rule for empty clusters, scikit-learn's.

    The points farthest from their centroids, one for each empty cluster, leave their clusters and
    become clusters of their own; the farthest goes to the first empty one. Of equally far points
    the earlier in the source comes first. A cluster's only point stays, and so does a point equal
    to one that left, or one that lies on its centroid. Costs one more pass where a cluster is
    empty; else, and where no point can leave, ``found`` itself is returned.

    Args:
        points: gone through once more.
        centroids_KD: float64, those that ``found`` was found with.
        found: of the pass.
    """
    empty_E = (found.counts_K == 0).nonzero().flatten().tolist()
    if not empty_E:
        return found
    x_CD, labels_C = _farthest(points, centroids_KD, len(centroids_KD) + len(empty_E))
    sums_KD, counts_K = found.sums_KD.clone(), found.counts_K.clone()
    taken: set[bytes] = set()  # the points that left
    for x_D, label in zip(x_CD, labels_C.tolist(), strict=True):
        if not empty_E:
            break
        same = x_D.cpu().numpy().tobytes()
        if counts_K[label] < 2 or same in taken:
            continue
        taken.add(same)
        sums_KD[label] -= x_D
        counts_K[label] -= 1
        to = empty_E.pop(0)
        sums_KD[to] = x_D
        counts_K[to] = 1
    if not taken:
        return found
    return Totals(sums_KD=sums_KD, counts_K=counts_K, inertia=found.inertia)


def _farthest(points: Points, centroids_KD: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the points (C, D) farthest from their centroids, farthest first, and their labels."""
    nearest = Nearest(centroids_KD)
    centroids_KD = centroids_KD.float()
    far_C = centroids_KD.new_zeros(0)
    x_CD = centroids_KD.new_zeros(0, centroids_KD.shape[1])
    labels_C = torch.zeros(0, dtype=torch.int64, device=centroids_KD.device)
    for x_ND in points.pieces():
        labels_N = nearest(x_ND)
        far_N = (x_ND - centroids_KD[labels_N]).square().sum(dim=1)
        away_N = far_N > 1e-10 * x_ND.square().sum(dim=1)  # less is rounding of the centroid
        far_C = torch.cat([far_C, far_N[away_N]])
        order_C = far_C.argsort(descending=True, stable=True)[:count]
        x_CD = torch.cat([x_CD, x_ND[away_N]])[order_C]
        labels_C = torch.cat([labels_C, labels_N[away_N]])[order_C]
        far_C = far_C[order_C]
    return x_CD, labels_C


def refuse_bad(points: Points) -> None:
    """Raise the error about points that are not finite, naming the first.

    Raises:
        ValueError: always.
    """
    start = 0
    for x_ND in points.pieces():
        bad_N = ~x_ND.isfinite().all(dim=1)
        if bad_N.any():
            row = start + int(bad_N.int().argmax())
            raise ValueError(
                f"point {row} (counted from 0) is NaN or infinite: leave such frames out"
            )
        start += len(x_ND)
    raise ValueError("squares of the points exceed float32: scale the points down")


@contextmanager
def exact_products() -> Iterator[None]:
    """Switch TF32 off inside: it would round the points to three digits."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def _check(chunk_ND: Tensor, width: int | None) -> None:
    if not isinstance(chunk_ND, Tensor) or not chunk_ND.is_floating_point():
        given = chunk_ND.dtype if isinstance(chunk_ND, Tensor) else type(chunk_ND).__name__
        raise TypeError(f"points must be floating tensors, got {given}")
    if chunk_ND.ndim != 2:
        raise ValueError(f"points must be of shape (N, D), got {tuple(chunk_ND.shape)}")
    if width is not None and chunk_ND.shape[1] != width:
        raise ValueError(
            f"all chunks must have {width} columns as the first one has, got {chunk_ND.shape[1]}"
        )
