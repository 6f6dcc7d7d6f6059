"""Subsequence DTW of queries against documents: dtw-python on random cases, and cases by hand."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from mynah.tasks.core import dtw
from mynah.tasks.core.dtw import match
from mynah.tasks.core.frame_distances import Distance, compared, distances, prepare, scaling
from mynah.tasks.core.znorm import RunningMoments

DISTANCES: list[Distance] = ["cosine_exp", "cosine", "cosine_neg_log", "cityblock", "euclidean"]


def protocol_distances(query: np.ndarray, doc: np.ndarray, distance: str) -> np.ndarray:
    """The protocol's definitions in float64, by scipy."""
    if not distance.startswith("cosine"):
        return cdist(query, doc, distance)
    far = cdist(query, doc, "cosine")
    if distance == "cosine_neg_log":
        return -np.log(1 - far)
    return np.exp(far) - 1 if distance == "cosine_exp" else far


def protocol_score(
    query: np.ndarray, doc: np.ndarray, distance: str = "cosine_exp", minmax: bool = True
) -> float:
    """The protocol's score by dtw-python."""
    library = pytest.importorskip("dtw")
    far = protocol_distances(query, doc, distance)
    if minmax:
        low, high = far.min(1, keepdims=True), far.max(1, keepdims=True)
        far = (far - low) / np.clip(high - low, 1e-9, None)
    found = library.dtw(
        far, step_pattern="asymmetric", distance_only=True, open_begin=True, open_end=True
    )
    return -float(found.normalizedDistance)


def slow_cost(far: np.ndarray) -> float:
    """The recursion written out, over all frames of the document."""
    rows, columns = far.shape
    cost = far[0].copy()
    for i in range(1, rows):
        cost = np.array([far[i, j] + min(cost[max(0, j - 2) : j + 1]) for j in range(columns)])
    return float(cost.min()) / rows


def speech(rng: np.random.Generator, frames: int, width: int) -> np.ndarray:
    """Features that move slowly, with correlated dimensions and a mean: unlike noise."""
    walk = rng.normal(size=(frames, width)).cumsum(axis=0) * 0.3 + rng.normal(size=(frames, width))
    return (walk @ rng.normal(size=(width, width)) + 2 * rng.normal(size=width)).astype(np.float32)


def cases(count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random pairs of many sizes: short and long, wide and narrow, queries longer than documents."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        width = int(rng.choice([2, 5, 24, 80]))
        query, doc = int(rng.integers(5, 40)), int(rng.choice([1, 2, 3, *range(5, 90)]))
        if index % 2:
            yield (
                rng.normal(size=(query, width)).astype(np.float32),
                rng.normal(size=(doc, width)).astype(np.float32),
            )
        else:
            yield speech(rng, query, width), speech(rng, doc, width)


def tensors(*arrays: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def test_by_hand() -> None:
    """City-block distances of one dimension: query 0 1 2 3 4 against documents with and without."""
    query = torch.arange(5.0, dtype=torch.float64)[:, None]
    inside = torch.tensor([9.0, 9, 0, 1, 2, 3, 4, 9], dtype=torch.float64)[:, None]
    slow = torch.tensor([9.0, 0, 7, 1, 7, 2, 7, 3, 7, 4], dtype=torch.float64)[
        :, None
    ]  # two a step
    slower = torch.tensor([0.0, 7, 7, 1, 7, 7, 2], dtype=torch.float64)[:, None]  # three: too fast
    still = torch.tensor([2.0], dtype=torch.float64)[:, None]
    backwards = torch.tensor([4.0, 3, 2, 1, 0], dtype=torch.float64)[:, None]
    scores = match(
        [query], [inside, slow, slower, still, backwards], distance="cityblock", minmax=False
    )
    # still: 2 + 1 + 0 + 1 + 2; backwards: the best is to stay on 2, which costs the same
    assert scores[0, :2].tolist() == [0, 0]
    assert scores[0, 3:].tolist() == [-6 / 5, -6 / 5]
    far = (query - slower.T).abs().numpy()
    assert scores[0, 2].item() == pytest.approx(-slow_cost(far))
    assert slow_cost(far) > 0


def test_rows_are_scaled_by_hand() -> None:
    """Rows (0 2 4), (4 2 0) x 4 and a constant row: scaled to halves; the constant one is free."""
    far = torch.tensor([[0.0, 2, 4], [4, 2, 0], [7, 7, 7]])[:, None, :]
    low, factor = scaling(far, "cityblock")
    scaled = (far - low) * factor
    assert scaled[:, 0].tolist() == [[0, 0.5, 1], [1, 0.5, 0], [0, 0, 0]]


@pytest.mark.parametrize("normal", [True, False])
def test_equals_dtw_python(normal: bool) -> None:
    """In single precision on features as the protocol normalises them, and in double on any."""
    single, double = [], []
    for query, doc in cases(240, seed=0):
        if normal:
            moments = RunningMoments()
            for x in tensors(query, doc):
                moments.update(x)
            query, doc = (moments.normalise(x).numpy() for x in tensors(query, doc))
        theirs = protocol_score(query, doc)
        ours = match(tensors(query), tensors(doc))
        assert ours.dtype == torch.float32
        single.append(abs(ours.item() - theirs))
        wide = match(tensors(query.astype(np.float64)), tensors(doc.astype(np.float64)))
        double.append(abs(wide.item() - theirs))
    assert len(single) == 240
    assert max(double) < 1e-12
    # without normalisation cosines can differ in their last digits only, and scaling shows those
    assert max(single) < (1e-6 if normal else 1e-5)


@pytest.mark.parametrize("minmax", [True, False])
@pytest.mark.parametrize("distance", DISTANCES)
def test_every_distance_equals_dtw_python(distance: Distance, minmax: bool) -> None:
    for query, doc in cases(60, seed=1):
        if distance == "cosine_neg_log":  # posteriors
            query, doc = np.exp(np.tanh(query)), np.exp(np.tanh(doc))
        theirs = protocol_score(query, doc, distance, minmax)
        ours = match(tensors(query), tensors(doc), distance=distance, minmax=minmax).item()
        assert ours == pytest.approx(theirs, abs=2e-6 if minmax else 1e-6 * (1 + abs(theirs)))
        x_RD, y_ND = (prepare(x.clone(), distance, "x") for x in tensors(query, doc))
        np.testing.assert_allclose(
            distances(compared(x_RD, y_ND, distance, torch.empty(9999)), distance),
            protocol_distances(query, doc, distance),
            rtol=1e-5,
            atol=2e-6,
        )


def test_equals_the_recursion_written_out() -> None:
    for query, doc in cases(60, seed=2):
        far = cdist(query, doc, "cityblock")
        ours = match(
            tensors(query.astype(np.float64)),
            tensors(doc.astype(np.float64)),
            distance="cityblock",
            minmax=False,
        )
        assert ours.item() == pytest.approx(-slow_cost(far), rel=1e-12)


@pytest.mark.parametrize("sizes", [None, (1, 1), (30, 100), (10**6, 10**6)])
@pytest.mark.parametrize("held", [1, 150, 10**6])
def test_blocks_do_not_matter(sizes: tuple[int, int] | None, held: int) -> None:
    """Many queries and documents at once, in blocks of any size, and all layers at once."""
    rng = np.random.default_rng(3)
    queries = [
        torch.from_numpy(np.stack([speech(rng, n, 8) for _ in range(3)])) for n in (7, 4, 19, 5, 7)
    ]
    docs = [
        torch.from_numpy(np.stack([speech(rng, n, 8) for _ in range(3)]))
        for n in (30, 1, 44, 31, 5, 90)
    ]
    scores = match(queries, iter(docs), sizes=sizes, held=held)
    assert scores.shape == (3, 5, 6)
    for layer in range(3):
        for i, query in enumerate(queries):
            for j, doc in enumerate(docs):
                alone = match([query[layer]], [doc[layer]]).item()
                assert scores[layer, i, j].item() == pytest.approx(alone, abs=1e-6)
    assert torch.equal(scores[:, 1], torch.zeros(3, 6))  # 4 frames


def test_documents_are_read_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is compared as soon as the next document would be too many frames."""
    events: list[str] = []
    blocks = dtw._doc_blocks

    def watched(docs: list[Tensor], *rest: Any) -> Iterator[tuple[list[int], Tensor]]:
        events.append(f"compare {len(docs)}")
        return blocks(docs, *rest)

    def stream() -> Iterator[Tensor]:
        for _ in range(7):
            events.append("read")
            yield torch.randn(50, 4)

    monkeypatch.setattr(dtw, "_doc_blocks", watched)
    assert match([torch.randn(6, 4)], stream(), held=150).shape == (1, 7)
    assert events == [*["read"] * 4, "compare 3", *["read"] * 3, "compare 3", "compare 1"]


def test_padding_repeats_the_last_frame_and_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    query, doc = tensors(speech(rng, 12, 6), speech(rng, 25, 6))
    longer = torch.cat([doc, doc[-1:].expand(13, -1)])
    assert match([query], [longer]).item() == pytest.approx(match([query], [doc]).item(), abs=1e-7)


def test_a_query_scores_nothing_lost_in_a_document_that_holds_it() -> None:
    query, doc = torch.randn(20, 16), torch.randn(60, 16)
    doc[23:43] = query
    scores = match([query], [doc, torch.randn(60, 16)])
    assert scores[0, 0].item() == pytest.approx(0, abs=1e-6)
    assert scores[0, 1].item() < -0.05


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_constant_rows_cost_nothing(kind: torch.dtype) -> None:
    """Documents of one frame, or of equal frames: every row is constant, the score is 0."""
    query, frame = torch.randn(9, 32, dtype=kind), torch.randn(1, 32, dtype=kind)
    for distance in ("cosine_exp", "cosine", "cityblock", "euclidean"):
        scores = match([query], [frame, frame.expand(37, -1)], distance=distance)  # type: ignore[arg-type]
        assert scores.tolist() == [[0, 0]]
    assert protocol_score(query.numpy(), frame.numpy()) == 0


def test_half_precision_is_computed_in_single() -> None:
    query, doc = torch.randn(9, 32).half(), torch.randn(30, 32).half()
    scores = match([query], [doc])
    assert scores.dtype == torch.float32
    assert torch.equal(scores, match([query.float()], [doc.float()]))


def test_features_with_gradients_are_taken() -> None:
    query = torch.randn(9, 4, requires_grad=True)
    assert not match([query], [torch.randn(9, 4)]).requires_grad


def test_only_short_queries() -> None:
    assert torch.equal(
        match([torch.randn(4, 3), torch.randn(0, 3)], [torch.randn(9, 3)]), torch.zeros(2, 1)
    )


def test_bad_input() -> None:
    query, doc = torch.randn(6, 4), torch.randn(9, 4)
    for queries, docs, settings, message in (
        ([], [doc], {}, "no queries"),
        ([query], [], {}, "no documents"),
        ([query], [doc, doc[:0]], {}, "document 1 has no frames"),
        ([query], [doc[:, :3]], {}, "document 0 has shape"),
        ([query, query[None]], [doc], {}, "query 1 has shape"),
        ([query.long()], [doc], {}, "must be floats"),
        ([query], [doc[0]], {}, "must be floats"),
        ([query], [doc], {"distance": "cosin"}, "unknown distance 'cosin': one of cosine_exp"),
        ([query], [doc], {"sizes": (0, 5)}, "at least 1"),
        ([query], [doc], {"distance": "cosine_neg_log"}, "take cosine_exp"),
        ([query * torch.nan], [doc], {}, "a query has frames that are not finite"),
        ([query], [doc * torch.inf], {}, "a document has frames that are not finite"),
        ([query * 0], [doc], {}, "a query has a frame of zeros"),
        ([query], [doc * 0], {}, "a document has a frame of zeros"),
    ):
        options: dict[str, Any] = settings
        with pytest.raises(ValueError, match=message):
            match(queries, docs, **options)
    assert match([query], [doc * 0], distance="euclidean").item() == 0


def test_inputs_are_left_alone() -> None:
    query, doc = torch.randn(6, 4), torch.randn(9, 4)
    before = query.clone(), doc.clone()
    match([query], [doc])
    assert torch.equal(query, before[0])
    assert torch.equal(doc, before[1])


@pytest.mark.gpu
def test_same_on_a_gpu() -> None:
    queries = [torch.randn(2, n, 64) for n in (12, 3, 30)]
    docs = [torch.randn(2, n, 64) for n in (70, 1, 200)]
    here = match(queries, docs)
    there = match([query.cuda() for query in queries], docs)
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=2e-6)
