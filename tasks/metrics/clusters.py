"""How well clusters of frames match phones: phone purity, cluster purity and PNMI.

Hsu et al. 2021, "HuBERT" (arXiv 2106.07447), section IV-C. With p_ij the share of frames that have
phone i and cluster j:

* phone purity: sum_j max_i p_ij, the accuracy of frames if each cluster is read as its most
  frequent phone; it grows with the number of clusters and is 1 where each frame has its own;
* cluster purity: sum_i max_j p_ij, the same with the parts exchanged; it falls with their number;
* PNMI: I(phone; cluster) / H(phone), the part of what is uncertain about the phone that the cluster
  tells. It grows with the number of clusters too: compare equal numbers only.

All are functions of the joint counts, so they can be resampled like every other metric; a resample
of few frames has a higher mutual information than the whole, as any estimate from counts has.

Shape suffixes: P phones, K clusters, T frames, n utterances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mynah.tasks.metrics.metric import Floats, Metric, ratio


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The three measures of one joint table.

    Attributes:
        phone_purity: between 0 and 1.
        cluster_purity: likewise.
        pnmi: likewise; NaN where all frames have the same phone.
    """

    phone_purity: float
    cluster_purity: float
    pnmi: float


def joint_counts(
    phones_T: NDArray[np.integer], clusters_T: NDArray[np.integer], *, phones: int, clusters: int
) -> NDArray[np.int64]:
    """Return how many frames have each phone and cluster, int64 (P, K).

    Args:
        phones_T: index of the phone of each frame, 0 to P - 1.
        clusters_T: index of the cluster of each frame, 0 to K - 1.
        phones: P.
        clusters: K.

    Raises:
        ValueError: not one phone for each cluster label, or an index out of range.
    """
    if phones_T.ndim != 1 or phones_T.shape != clusters_T.shape:
        raise ValueError(
            "expected one phone and one cluster for each frame, got shapes "
            f"{phones_T.shape} and {clusters_T.shape}: bring both to one frame rate first"
        )
    for name, index_T, size in (("phone", phones_T, phones), ("cluster", clusters_T, clusters)):
        if index_T.size and not 0 <= index_T.min() <= index_T.max() < size:
            raise ValueError(
                f"a {name} must be between 0 and {size - 1}, got {index_T.min()} to {index_T.max()}"
            )
    flat_T = phones_T.astype(np.int64) * clusters + clusters_T.astype(np.int64)
    return np.bincount(flat_T, minlength=phones * clusters).reshape(phones, clusters)


def quality(joint_PK: NDArray[np.integer]) -> Quality:
    """Return the three measures of a table of joint counts.

    Raises:
        ValueError: not a table of counts, or no frames.
    """
    if joint_PK.ndim != 2 or not joint_PK.sum() or joint_PK.min() < 0:
        raise ValueError(f"expected counts of at least one frame (P, K), got {joint_PK.shape}")
    table_PK = joint_PK.astype(np.float64)
    return Quality(
        phone_purity=float(_purity(table_PK, axis=-2)),
        cluster_purity=float(_purity(table_PK, axis=-1)),
        pnmi=float(_pnmi(table_PK)),
    )


def phone_purity(phones: Sequence[str], clusters: int) -> Metric:
    """Share of frames whose phone is the most frequent one of their cluster.

    References and predictions of this and the other two metrics are the labels of an utterance's
    frames, separated by spaces: phones, and clusters as numbers.

    Args:
        phones: all phones.
        clusters: K.
    """
    return _metric("phone_purity", phones, clusters, lambda t: _purity(t, axis=-2))


def cluster_purity(phones: Sequence[str], clusters: int) -> Metric:
    """Share of frames whose cluster is the most frequent one of their phone."""
    return _metric("cluster_purity", phones, clusters, lambda t: _purity(t, axis=-1))


def pnmi(phones: Sequence[str], clusters: int) -> Metric:
    """Mutual information of phone and cluster over the entropy of the phone."""
    return _metric("pnmi", phones, clusters, _pnmi)


def _metric(
    name: str, phones: Sequence[str], clusters: int, value: Callable[[Floats], Floats]
) -> Metric:
    index = {phone: i for i, phone in enumerate(phones)}
    size = len(index)

    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        table = np.zeros((len(refs), size * clusters))
        for row, (ref, hyp) in enumerate(zip(refs, hyps, strict=True)):
            phones_T, clusters_T = _phones(ref, index), _numbers(hyp)
            joint_PK = joint_counts(phones_T, clusters_T, phones=size, clusters=clusters)
            table[row] = joint_PK.ravel()
        return table

    return Metric(
        name=name,
        signature=f"{name}|phones:{size}|clusters:{clusters}|average:frames|v1",
        higher_is_better=True,
        counts=counts,
        value=lambda sums: value(sums.reshape(*sums.shape[:-1], size, clusters)),
    )


def _phones(text: str, index: Mapping[str, int]) -> NDArray[np.int64]:
    try:
        return np.array([index[phone] for phone in text.split()], dtype=np.int64)
    except KeyError as error:
        raise ValueError(f"phone {error} is not one of the {len(index)} that were named") from None


def _numbers(text: str) -> NDArray[np.int64]:
    try:
        return np.array([int(cluster) for cluster in text.split()], dtype=np.int64)
    except ValueError as error:
        raise ValueError(f"clusters must be whole numbers: {error}") from None


def _purity(table_PK: Floats, *, axis: int) -> Floats:
    return ratio(table_PK.max(axis=axis).sum(axis=-1), table_PK.sum(axis=(-2, -1)))


def _pnmi(table_PK: Floats) -> Floats:
    """Return I / H from (..., P, K) counts, as H(phone) + H(cluster) - H(both), over H(phone)."""
    phone = _entropy(table_PK.sum(axis=-1))
    cluster = _entropy(table_PK.sum(axis=-2))
    both = _entropy(table_PK.reshape(*table_PK.shape[:-2], -1))
    shared: Floats = np.clip(phone + cluster - both, 0.0, phone)  # beyond these is rounding
    return ratio(shared, phone)


def _entropy(counts_X: Floats) -> Floats:
    """Return the entropy in nats along the last axis."""
    share_X = ratio(counts_X, counts_X.sum(axis=-1, keepdims=True))
    logs_X = np.log(share_X, out=np.zeros_like(share_X), where=share_X > 0)
    entropy: Floats = -(share_X * logs_X).sum(axis=-1)
    return entropy
