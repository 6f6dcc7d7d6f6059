"""Cluster quality: cases worked by hand, scikit-learn, and bootstrap intervals."""

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from mynah.tasks.metrics.bootstrap import bootstrap
from mynah.tasks.metrics.clusters import (
    cluster_purity,
    joint_counts,
    phone_purity,
    pnmi,
    quality,
)


def labels(frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    phones = rng.integers(0, 5, frames)
    clusters = np.where(rng.random(frames) < 0.7, phones * 2, rng.integers(0, 12, frames))
    return phones, clusters


def test_by_hand() -> None:
    # clusters:            0  1  2
    table = np.array([[4, 0, 2], [0, 1, 1]])
    found = quality(table)
    assert found.phone_purity == pytest.approx((4 + 1 + 2) / 8)
    assert found.cluster_purity == pytest.approx((4 + 1) / 8)
    phone = -(6 / 8) * math.log(6 / 8) - (2 / 8) * math.log(2 / 8)
    shared = (
        4 / 8 * math.log((4 / 8) / (6 / 8 * 4 / 8))
        + 2 / 8 * math.log((2 / 8) / (6 / 8 * 3 / 8))
        + 1 / 8 * math.log((1 / 8) / (2 / 8 * 1 / 8))
        + 1 / 8 * math.log((1 / 8) / (2 / 8 * 3 / 8))
    )
    assert found.pnmi == pytest.approx(shared / phone)


def test_extremes() -> None:
    same = quality(np.diag([3, 5, 2]))
    assert (same.phone_purity, same.cluster_purity, same.pnmi) == pytest.approx((1, 1, 1))
    one_cluster = quality(np.array([[3], [1]]))
    assert (one_cluster.phone_purity, one_cluster.cluster_purity) == (0.75, 1.0)
    assert one_cluster.pnmi == 0
    own = quality(np.kron(np.eye(2, dtype=int), np.ones((1, 4), dtype=int)))  # a cluster a frame
    assert (own.phone_purity, own.cluster_purity, own.pnmi) == pytest.approx((1, 0.25, 1))
    independent = quality(np.outer([1, 3], [2, 6]))
    assert independent.pnmi == pytest.approx(0, abs=1e-12)
    assert math.isnan(quality(np.array([[3, 4]])).pnmi)


def test_agrees_with_sklearn() -> None:
    phones, clusters = labels(500, 0)
    table = joint_counts(phones, clusters, phones=5, clusters=12)
    np.testing.assert_array_equal(
        table[:, np.unique(clusters)], sk.cluster.contingency_matrix(phones, clusters)
    )
    phone_entropy = sk.mutual_info_score(phones, phones)
    assert quality(table).pnmi == pytest.approx(
        sk.mutual_info_score(phones, clusters) / phone_entropy
    )


def test_metrics_sum_over_utterances() -> None:
    phones, clusters = labels(400, 1)
    names = [f"p{i}" for i in range(5)]
    refs = [" ".join(f"p{i}" for i in part) for part in phones.reshape(20, 20)]
    hyps = [" ".join(map(str, part)) for part in clusters.reshape(20, 20)]
    whole = quality(joint_counts(phones, clusters, phones=5, clusters=12))
    assert phone_purity(names, 12).score(refs, hyps) == pytest.approx(whole.phone_purity)
    assert cluster_purity(names, 12).score(refs, hyps) == pytest.approx(whole.cluster_purity)
    metric = pnmi(names, 12)
    assert metric.score(refs, hyps) == pytest.approx(whole.pnmi)
    assert metric.signature == "pnmi|phones:5|clusters:12|average:frames|v1"
    speakers = [str(i % 10) for i in range(20)]
    found = bootstrap(metric, refs, hyps, speakers, unit="speaker", resamples=200)
    assert found.value == pytest.approx(whole.pnmi)
    assert 0 < found.low < found.high < 1
    assert found.units == 10


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="one frame rate"):
        joint_counts(np.arange(3), np.arange(4), phones=5, clusters=5)
    with pytest.raises(ValueError, match="a cluster must be between 0 and 2, got 0 to 3"):
        joint_counts(np.arange(4), np.arange(4), phones=5, clusters=3)
    with pytest.raises(ValueError, match="at least one frame"):
        quality(np.zeros((2, 2), dtype=int))
    with pytest.raises(ValueError, match="phone 'z' is not one of the 2"):
        pnmi(["a", "b"], 3).score(["a z"], ["0 1"])
    with pytest.raises(ValueError, match="whole numbers"):
        pnmi(["a", "b"], 3).score(["a b"], ["0 x"])
    with pytest.raises(ValueError, match="pnmi is not defined"):
        pnmi(["a", "b"], 3).score(["a a"], ["0 1"])
