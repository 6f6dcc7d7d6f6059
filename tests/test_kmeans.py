"""k-means: scikit-learn as the reference, empty clusters, streams, determinism, bad input."""

import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from mynah.upstream.core import kmeans_steps
from mynah.upstream.core.kmeans import KMeans, Method, assign, fit
from mynah.upstream.core.kmeans_seed import plus_plus, sample
from mynah.upstream.core.kmeans_steps import Points, fill_empty, totals


def cloud(count: int, width: int = 8, *, blobs: int = 60, seed: int = 0) -> Tensor:
    """Overlapping Gaussians away from zero."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(blobs, width, generator=generator)
    of = torch.randint(blobs, (count,), generator=generator)
    return centres[of] + 0.5 * torch.randn(count, width, generator=generator) + 3


def chunked(points: Tensor, size: int) -> Callable[[], Iterator[Tensor]]:
    return lambda: iter(points.split(size))


def inertia(points: Tensor, centroids: Tensor) -> float:
    return float(torch.cdist(points.double(), centroids.double()).amin(dim=1).square().mean())


def equal(a: KMeans, b: KMeans) -> bool:
    return torch.equal(a.centroids_KD, b.centroids_KD) and a.history == b.history


@pytest.mark.parametrize("clusters", [1, 7, 50])
def test_as_low_as_sklearn(clusters: int) -> None:
    points = cloud(30_000, blobs=400)
    found = fit(points, clusters=clusters, inits=2)
    lloyd = SklearnKMeans(clusters, n_init=1, random_state=0).fit(points.numpy())
    batches = MiniBatchKMeans(
        clusters, n_init=3, batch_size=10_000, tol=0.0, max_no_improvement=100, random_state=0
    ).fit(points.numpy())
    assert found.inertia <= 1.01 * lloyd.inertia_ / len(points)
    assert found.inertia <= 1.01 * inertia(points, torch.from_numpy(batches.cluster_centers_))
    assert found.inertia == pytest.approx(inertia(points, found.centroids_KD), rel=1e-5)
    assert found.history[-1] == found.inertia
    assert int(found.counts_K.sum()) == len(points)
    assert (found.counts_K == assign(points, found.centroids_KD).bincount()).all()


def test_mini_batches_as_low_as_sklearns() -> None:
    points = cloud(30_000, blobs=400)
    found = fit(points, clusters=50, method="mini-batch", batch=1000, iterations=10)
    theirs = MiniBatchKMeans(
        50, n_init=3, batch_size=1000, tol=0.0, max_no_improvement=100, random_state=0
    ).fit(points.numpy())
    assert found.inertia <= 1.01 * inertia(points, torch.from_numpy(theirs.cluster_centers_))
    assert found.inertia == pytest.approx(inertia(points, found.centroids_KD), rel=1e-5)
    assert found.iterations == len(found.history) - 1 <= 300


def test_one_step_equals_sklearns() -> None:
    points = cloud(20_000)
    start = points[:40].clone()
    found = fit(points, clusters=40, start_KD=start, iterations=1)
    theirs = SklearnKMeans(40, init=start.numpy(), n_init=1, max_iter=1, tol=0.0)
    theirs.fit(points.numpy())
    assert found.iterations == 1
    np.testing.assert_allclose(found.centroids_KD.numpy(), theirs.cluster_centers_, rtol=1e-5)
    assert found.inertia == pytest.approx(theirs.inertia_ / len(points), rel=1e-5)


def test_empty_cluster_takes_the_farthest_point_as_sklearns_does() -> None:
    points = cloud(3000, 4)
    start = torch.cat([points[:6], torch.full((2, 4), 1e3), points[6:8], torch.full((1, 4), -1e3)])
    found = fit(points, clusters=11, start_KD=start, iterations=1)
    theirs = SklearnKMeans(11, init=start.numpy(), n_init=1, max_iter=1, tol=0.0)
    theirs.fit(points.numpy())
    np.testing.assert_allclose(found.centroids_KD.numpy(), theirs.cluster_centers_, rtol=1e-5)
    assert (found.counts_K > 0).all()


def test_empty_cluster_rule_by_hand() -> None:
    # Clusters 1 and 3 are empty; 9 is farthest but its equal does not leave too; 5 ties with -5.
    points = torch.tensor([[0.0], [9.0], [9.0], [-5.0], [5.0], [40.0]])
    centroids = torch.tensor([[0.0], [1000.0], [50.0], [2000.0]], dtype=torch.float64)
    source = Points(points, clusters=4)
    found = totals(source, centroids)
    assert found.counts_K.tolist() == [5, 0, 1, 0]
    filled = fill_empty(source, centroids, found)
    assert filled.counts_K.tolist() == [3, 1, 1, 1]
    assert filled.sums_KD.flatten().tolist() == [14.0, 9.0, 40.0, -5.0]
    again = fill_empty(source, centroids, found)
    assert torch.equal(again.sums_KD, filled.sums_KD)
    # Where every point lies on its centroid nothing can leave.
    apart = Points(torch.tensor([[1.0], [1.0], [2.0]]), clusters=3)
    start = torch.tensor([[1.0], [2.0], [7.0]], dtype=torch.float64)
    found = totals(apart, start)
    assert fill_empty(apart, start, found) is found


def test_start_with_more_clusters_than_distinct_points_ends() -> None:
    points = torch.tensor([[1.1], [2.3]]).repeat(500, 1)
    found = fit(points, clusters=3, start_KD=torch.tensor([[0.0], [3.0], [9.0]]))
    assert found.inertia == pytest.approx(0, abs=1e-9)
    assert found.iterations < 10


@pytest.mark.parametrize("size", [7, 1000, 12_345, 10**6])
def test_streaming_equals_in_memory(size: int) -> None:
    points = cloud(25_000 if size > 7 else 5000)
    whole = fit(points, clusters=20, largest=4000)
    assert equal(whole, fit(chunked(points, size), clusters=20, largest=4000))
    start = points[:20].clone()
    whole = fit(points, clusters=20, start_KD=start, iterations=2)
    assert equal(whole, fit(chunked(points, size), clusters=20, start_KD=start, iterations=2))


def test_streamed_sample_is_that_of_the_tensor() -> None:
    points = cloud(100_000, 3)
    for size in (1, 500, 20_000, 100_000, 200_000):
        whole = sample(Points(points, clusters=5), size, torch.Generator().manual_seed(1))
        stream = Points(chunked(points, 3000), clusters=5)
        assert torch.equal(whole, sample(stream, size, torch.Generator().manual_seed(1)))
        assert len(whole) == min(size, len(points))
    assert len(whole.unique(dim=0)) == len(points.unique(dim=0))  # without replacement


def test_a_stream_is_never_all_in_memory() -> None:
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def chunks() -> Iterator[Tensor]:
        nonlocal most
        for seed in range(30):
            chunk = cloud(1500, 4, seed=seed)
            alive.append(weakref.ref(chunk))
            yield chunk
            del chunk
            most = max(most, sum(ref() is not None for ref in alive))

    found = fit(chunks, clusters=5, largest=2000, iterations=2, tolerance=0)
    assert int(found.counts_K.sum()) == 45_000
    assert most <= 2


def test_mini_batches_stream() -> None:
    points = cloud(30_000, blobs=400)
    found = fit(
        chunked(points, 777), clusters=20, method="mini-batch", batch=2000, iterations=2, patience=9
    )
    assert found.iterations <= 30
    assert found.inertia <= 1.02 * fit(points, clusters=20).inertia
    assert int(found.counts_K.sum()) == len(points)


@pytest.mark.parametrize("method", ["full", "mini-batch"])
def test_deterministic(method: Method) -> None:
    points = cloud(12_000)

    def found(seed: int | torch.Generator) -> KMeans:
        return fit(points, clusters=9, method=method, seed=seed, iterations=5)

    first = found(3)
    torch.rand(5)
    assert equal(first, found(3))
    assert equal(first, found(torch.Generator().manual_seed(3)))
    assert not equal(first, found(4))


def test_finds_blobs_far_apart() -> None:
    centres = 100 * torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    points = centres.repeat_interleave(300, dim=0) + 0.01 * torch.randn(3600, 5)
    found = fit(points, clusters=12, inits=4)
    assert sorted(found.counts_K.tolist()) == [300] * 12
    assert found.inertia == pytest.approx(inertia(points, found.centroids_KD), rel=1e-4)
    assert torch.cdist(centres, found.centroids_KD).amin(dim=1).max() < 0.01


def test_far_from_zero_and_half_precision() -> None:
    points = cloud(5000)
    near = fit(points, clusters=8)
    far = fit(points + 2000, clusters=8)
    assert far.inertia == pytest.approx(near.inertia, rel=1e-2)
    half = fit(points.half(), clusters=8)
    assert half.centroids_KD.dtype == torch.float32
    assert half.inertia == pytest.approx(near.inertia, rel=1e-2)


def test_history_falls_and_tolerance_stops() -> None:
    points = cloud(10_000)
    found = fit(points, clusters=30, start_KD=points[:30].clone(), tolerance=0, iterations=12)
    assert found.iterations == 12
    assert all(a > b for a, b in zip(found.history, found.history[1:], strict=False))
    loose = fit(points, clusters=30, start_KD=points[:30].clone(), tolerance=0.05)
    assert loose.iterations < 12
    assert loose.history == found.history[: len(loose.history)]


def test_plus_plus_draws_distinct_points() -> None:
    points = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 6.0]]).repeat(50, 1)
    drawn = plus_plus(points, 3, torch.Generator().manual_seed(0))
    assert drawn.unique(dim=0).tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 6.0]]
    # An outlier hides the rest in its rounding: they are told apart all the same.
    hidden = torch.tensor([[0.0], [1e-4], [2e-4], [1e4]])
    assert len(plus_plus(hidden, 4, torch.Generator().manual_seed(0)).unique(dim=0)) == 4


def test_assign() -> None:
    points, centroids = cloud(5000), cloud(33, seed=1)
    labels = assign(points, centroids)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, torch.cdist(points.double(), centroids.double()).argmin(dim=1))
    assert torch.equal(assign(points[:1], centroids), labels[:1])
    assert assign(points[:0], centroids).shape == (0,)
    tied = assign(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [-1.0], [1.0]]))
    assert tied.tolist() == [0, 0]


def test_pieces_do_not_depend_on_chunks() -> None:
    points = cloud(10_000)
    source = Points(points, clusters=8)
    streamed = Points(chunked(points, 911), clusters=8)
    pairs = zip(source.pieces(640), streamed.pieces(640), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert streamed.count == 10_000
    assert kmeans_steps.piece_rows(2000, 39, torch.device("cpu")) * 2000 <= 1 << 19


def test_bad_input() -> None:
    points = cloud(2000, 3)
    with pytest.raises(ValueError, match="5 points cannot make 6 clusters"):
        fit(points[:5], clusters=6)
    with pytest.raises(ValueError, match="only 2 distinct values, too few for 3 clusters"):
        fit(torch.tensor([[1.0], [2.0]]).repeat(40, 1), clusters=3)
    for bad in (float("nan"), float("inf")):
        spoilt = points.clone()
        spoilt[1234, 1] = bad
        for source in (spoilt, chunked(spoilt, 100)):
            with pytest.raises(ValueError, match="point 1234 .* is NaN or infinite"):
                fit(source, clusters=4)
            with pytest.raises(ValueError, match="point 1234 .* is NaN or infinite"):
                fit(source, clusters=4, start_KD=points[:4].clone())
        with pytest.raises(ValueError, match="point 1234"):
            assign(spoilt, points[:4])
    with pytest.raises(ValueError, match=r"of shape \(N, D\), got \(2000,\)"):
        fit(points[:, 0], clusters=4)
    with pytest.raises(TypeError, match="floating tensors, got torch.int64"):
        fit(points.long(), clusters=4)
    with pytest.raises(ValueError, match="no points"):
        fit(points[:0], clusters=4)
    with pytest.raises(ValueError, match="no points"):
        fit(lambda: iter([]), clusters=4)
    with pytest.raises(ValueError, match="3 columns as the first one has, got 2"):
        fit(lambda: iter([points, points[:, :2]]), clusters=4)
    with pytest.raises(ValueError, match="clusters must be at least 1, got 0"):
        fit(points, clusters=0)
    with pytest.raises(ValueError, match="'full' or 'mini-batch', got 'online'"):
        fit(points, clusters=4, method="online")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tolerance"):
        fit(points, clusters=4, tolerance=-1.0)
    with pytest.raises(ValueError, match="4 finite centroids of width 3"):
        fit(points, clusters=4, start_KD=points[:5])
    with pytest.raises(ValueError, match="same layer of the same model"):
        assign(points, torch.zeros(4, 2))
    once = iter(points.split(100))
    with pytest.raises(ValueError, match="no points|must return a new iterable"):
        fit(lambda: once, clusters=4)
