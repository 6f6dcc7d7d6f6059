"""``mynah speed kmeans``: our k-means against scikit-learn's and faiss's.

The same points for all, one process, one thread; the contestants take turns, one round for each
seed. What counts is processor time (``time.process_time``), the median of the rounds, next to the
mean squared distance of *all* points to the centroids found, computed in float64 by one function
for everyone. A contestant that is faster and leaves the points farther away has not won: ``equal``
says whether our inertia is at most the peer's, up to a thousandth.

The points are, by default, drawn from a mixture of 1000 Gaussians with unequal weights, strongly
correlated dimensions (the deviation of the i-th principal axis falls as i^-0.7) and a mean far from
zero: clusters that overlap, as frames of speech do, and more of them than are asked for. With
``--corpus`` the 39-dimensional points are the MFCCs (with deltas) of a prepared corpus.

HuBERT's recipe is that of fairseq's ``learn_kmeans.py``: MiniBatchKMeans with k-means++, batches of
10 000, 100 epochs at most, 20 starts, no tolerance, patience of 100 batches, no reassignment.
faiss's default takes a random subset of 256 points per cluster, so it is raced on all points too,
and our k-means on such a subset.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mynah.files import write_text
from mynah.recipes.threads import limited

if TYPE_CHECKING:
    from torch import Tensor

OURS = "ours"
SUBSET = 256  # points per cluster that faiss takes by default
_COMPONENTS = 1000
_SHAPES = 8  # different covariances in the mixture
_EQUAL = 1e-3
Contestant = Callable[[int], "Tensor"]  # seed -> centroids (K, D)


@dataclass(frozen=True, kw_only=True)
class Args:
    """Race our k-means against scikit-learn and faiss, to equal inertia."""

    points: tuple[int, ...] = (500_000, 200_000)
    """Number of points of each problem."""
    widths: tuple[int, ...] = (39, 768)
    """Their dimensions, one for each problem."""
    clusters: int = 100
    """Number of clusters."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One round for each."""
    iterations: int = 20
    """Of scikit-learn's KMeans and of faiss."""
    corpus: Path | None = None
    """Prepared corpus whose MFCCs are the points of width 39."""
    threads: int = 1
    """Processor threads."""
    json: Path | None = None
    """Also write the rows here."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contestant on one problem.

    Attributes:
        problem: points x width, and clusters.
        name: who.
        cpu_seconds: median of the rounds; None where it could not run.
        all_seconds: of every round.
        inertia: mean over the rounds of the mean squared distance of all points.
        excess: that, relative to ours, minus one.
        ratio: its time over ours.
        equal: whether our inertia is at most this one, up to a thousandth.
        note: why it could not run.
    """

    problem: str
    name: str
    cpu_seconds: float | None = None
    all_seconds: tuple[float, ...] = ()
    inertia: float | None = None
    excess: float | None = None
    ratio: float | None = None
    equal: bool | None = None
    note: str = ""


def main(args: Args) -> int:
    """Run the races and print a table for each problem.

    Raises:
        ValueError: settings that make no race, or a corpus without enough frames.
    """
    from mynah.recipes.progress import console

    if len(args.points) != len(args.widths) or not args.points:
        raise ValueError(
            f"give as many widths as points, got {len(args.widths)} and {len(args.points)}"
        )
    counts = (args.threads, args.iterations, args.clusters, *args.points, *args.widths)
    if not args.seeds or min(counts) < 1:
        raise ValueError(
            "give a seed; threads, iterations, clusters, points and widths must be at least 1"
        )
    rows: list[Row] = []
    for count, width in zip(args.points, args.widths, strict=True):
        if args.corpus is not None and width == 39:
            points_ND = mfccs(args.corpus, count)
        else:
            points_ND = mixture(count, width, seed=0)
        found = run(
            points_ND,
            clusters=args.clusters,
            seeds=args.seeds,
            iterations=args.iterations,
            threads=args.threads,
        )
        for line in lines(found):
            console.print(line)
        rows += found
    if args.json is not None:
        write_text(args.json, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


def mixture(count: int, width: int, *, seed: int) -> Tensor:
    """Return float32 points (count, width) of the mixture that the module's docstring describes."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    spread_D = torch.arange(1, width + 1).float().pow(-0.7)
    turn_DD = torch.linalg.qr(normal(width, width)).Q
    means_CD = (normal(_COMPONENTS, width) * spread_D) @ turn_DD
    weights_C = torch.arange(1, _COMPONENTS + 1).float().pow(-0.5)
    of_N = torch.multinomial(weights_C, count, replacement=True, generator=generator)
    points_ND: Tensor = means_CD[of_N] + 3
    for shape in range(_SHAPES):
        rows_n = (of_N % _SHAPES == shape).nonzero().flatten()
        mixing_DD = 0.5 * torch.eye(width) + 0.5 * normal(width, width) / width**0.5
        noise_nD = normal(len(rows_n), width) @ (spread_D[:, None] * turn_DD @ mixing_DD)
        points_ND.index_add_(0, rows_n, noise_nD, alpha=0.8)
    return points_ND


def mfccs(corpus: Path, count: int) -> Tensor:
    """Return the MFCCs (count, 39) of a corpus's utterances in random order.

    Raises:
        ValueError: the corpus has fewer frames.
    """
    import torch

    from mynah.tasks.corpora.audio import read
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.upstream.core.mfcc import Mfcc

    utterances = list(Corpus.open(corpus).utterances())
    generator = torch.Generator().manual_seed(0)
    front, parts, frames = Mfcc(), [], 0
    for index in torch.randperm(len(utterances), generator=generator).tolist():
        x_ND, _ = front([torch.from_numpy(read(utterances[index]))])
        parts.append(x_ND)
        frames += len(x_ND)
        if frames >= count:
            return torch.cat(parts)[:count]
    raise ValueError(f"{corpus} has {frames} frames, {count} are needed: ask for fewer points")


def run(
    points_ND: Tensor,
    *,
    clusters: int,
    seeds: Sequence[int],
    iterations: int = 20,
    threads: int = 1,
) -> list[Row]:
    """Race on float32 points and return one row per contestant, ours last; see :class:`Args`."""
    from mynah.recipes.progress import track

    contestants = _ours(points_ND, clusters)
    contestants |= _sklearn(points_ND, clusters, iterations)
    notes: dict[str, str] = {}
    try:
        contestants |= _faiss(points_ND, clusters, iterations, threads)
    except ImportError as error:
        notes["faiss"] = f"cannot run here: {error}; pip install faiss-cpu"
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    inertias: dict[str, list[float]] = {name: [] for name in contestants}
    turns = [(seed, name) for seed in seeds for name in contestants]
    with limited(threads):
        for seed, name in track(turns, "racing"):
            begin = time.process_time()
            centroids_KD = contestants[name](seed)
            seconds[name].append(time.process_time() - begin)
            inertias[name].append(inertia(points_ND, centroids_KD))
    problem = f"{len(points_ND):,} x {points_ND.shape[1]}, {clusters} clusters".replace(",", " ", 1)
    return _rows(problem, seconds, inertias, notes)


def inertia(points_ND: Tensor, centroids_KD: Tensor) -> float:
    """Return the mean squared distance to the nearest centroid, summed in float64."""
    from mynah.upstream.core.kmeans import assign

    labels_N = assign(points_ND, centroids_KD)
    centroids_KD = centroids_KD.double()
    total = 0.0
    for x_ND, label_N in zip(points_ND.split(10_000), labels_N.split(10_000), strict=True):
        total += float((x_ND.double() - centroids_KD[label_N]).square().sum())
    return total / len(points_ND)


def _ours(points_ND: Tensor, clusters: int) -> dict[str, Contestant]:
    import torch

    from mynah.upstream.core.kmeans import fit

    size = min(len(points_ND), SUBSET * clusters)

    def subset(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        rows_n = torch.randperm(len(points_ND), generator=generator)[:size]
        return fit(points_ND[rows_n], clusters=clusters, seed=seed).centroids_KD

    return {
        OURS: lambda seed: fit(points_ND, clusters=clusters, seed=seed).centroids_KD,
        f"{OURS}, mini-batch": lambda seed: (
            fit(points_ND, clusters=clusters, method="mini-batch", seed=seed).centroids_KD
        ),
        f"{OURS}, {SUBSET} points per cluster": subset,
    }


def _sklearn(points_ND: Tensor, clusters: int, iterations: int) -> dict[str, Contestant]:
    import torch
    from sklearn.cluster import KMeans, MiniBatchKMeans

    points = points_ND.numpy()

    def batches(seed: int, inits: int) -> Tensor:
        model = MiniBatchKMeans(
            clusters,
            init="k-means++",
            batch_size=10_000,
            max_iter=100,
            n_init=inits,
            tol=0.0,
            max_no_improvement=100,
            reassignment_ratio=0.0,
            random_state=seed,
        )
        return torch.from_numpy(model.fit(points).cluster_centers_)

    def lloyd(seed: int) -> Tensor:
        model = KMeans(clusters, n_init=1, max_iter=iterations, random_state=seed)
        return torch.from_numpy(model.fit(points).cluster_centers_)

    return {
        "scikit-learn MiniBatchKMeans, HuBERT's recipe (20 starts)": lambda s: batches(s, 20),
        "scikit-learn MiniBatchKMeans, the same with 1 start": lambda s: batches(s, 1),
        f"scikit-learn KMeans, {iterations} iterations": lloyd,
    }


def _faiss(
    points_ND: Tensor, clusters: int, iterations: int, threads: int
) -> dict[str, Contestant]:
    import faiss
    import torch

    points = points_ND.numpy()
    faiss.omp_set_num_threads(threads)

    def train(seed: int, most: int) -> Tensor:
        model = faiss.Kmeans(
            points.shape[1],
            clusters,
            niter=iterations,
            seed=seed + 1,  # its 0 means something else
            max_points_per_centroid=most,
            min_points_per_centroid=1,
        )
        model.train(points)
        return torch.from_numpy(model.centroids)

    return {
        f"faiss, {iterations} iterations, all points": lambda s: train(s, len(points)),
        f"faiss, {iterations} iterations, {SUBSET} points per cluster": lambda s: train(s, SUBSET),
    }


def _rows(
    problem: str,
    seconds: dict[str, list[float]],
    inertias: dict[str, list[float]],
    notes: dict[str, str],
) -> list[Row]:
    own = statistics.median(seconds[OURS])
    lowest = statistics.mean(inertias[OURS])
    rows = [Row(problem=problem, name=name, note=note) for name, note in notes.items()]
    for name, values in seconds.items():
        level = statistics.mean(inertias[name])
        rows.append(
            Row(
                problem=problem,
                name=name,
                cpu_seconds=statistics.median(values),
                all_seconds=tuple(values),
                inertia=level,
                excess=level / lowest - 1,
                ratio=statistics.median(values) / own,
                equal=lowest <= level * (1 + _EQUAL),
            )
        )
    return sorted(rows, key=lambda row: row.name.startswith(OURS))


def lines(rows: Sequence[Row]) -> list[str]:
    """Return a Markdown table of one problem."""
    found = [
        f"| k-means, {rows[0].problem} | CPU s | inertia | above ours | time / ours "
        "| ours at most this |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.cpu_seconds is None:
            found.append(f"| {row.name} | {row.note} | | | | |")
            continue
        found.append(
            f"| {row.name} | {row.cpu_seconds:.2f} | {row.inertia:.5g} | {row.excess:+.2%} "
            f"| {row.ratio:.2f} | {'yes' if row.equal else 'no'} |"
        )
    return found
