"""Term-weighted value, MAP and EER of a search: by hand, by explicit loops, against scikit-learn."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mynah.tasks.metrics import metric as metric_module
from mynah.tasks.metrics.bootstrap import bootstrap
from mynah.tasks.metrics.detection import equal_error_rate
from mynah.tasks.metrics.metric import Measure
from mynah.tasks.metrics.term_detection import (
    atwv,
    average_precision,
    mtwv,
    pair_eer,
)
from mynah.tasks.metrics.term_search import (
    BETA,
    Search,
    decode_scores,
    encode_docs,
    encode_scores,
    from_text,
)

Make = Callable[..., Measure]

DOCS = [f"doc:{i}" for i in range(12)]


def random_search(seed: int, *, queries: int = 8) -> Search:
    """Return a search in which a pair is true with some chance, half of them with tied scores."""
    rng = np.random.default_rng(seed)
    true = rng.random((queries, len(DOCS))) < rng.uniform(0.05, 0.4)
    true[0, :2] = True, False
    scores = rng.normal(true * rng.uniform(0, 4), 1.0)
    scores = np.round(scores * 2) / 2 if seed % 2 else scores
    names = tuple(f"q{i}" for i in range(queries))
    return Search(queries=names, docs=tuple(DOCS), scores_QD=scores, true_QD=true)


def text(found: Search) -> tuple[list[str], list[str]]:
    refs = [encode_docs(np.array(found.docs)[true].tolist()) for true in found.true_QD]
    hyps = [encode_scores(dict(zip(found.docs, row, strict=True))) for row in found.scores_QD]
    return refs, hyps


def slow_twv(found: Search, accepted: np.ndarray) -> float:
    """Return the definition, query by query."""
    losses = []
    for true, yes in zip(found.true_QD, accepted, strict=True):
        if not true.any():
            continue
        miss = (true & ~yes).sum() / true.sum()
        alarm = (yes & ~true).sum() / (~true).sum() if not true.all() else 0.0
        losses.append(miss + BETA * alarm)
    return 1 - float(np.mean(losses))


def slow_mtwv(found: Search) -> float:
    thresholds = [np.inf, *np.unique(found.scores_QD)]
    return max(slow_twv(found, found.scores_QD >= threshold) for threshold in thresholds)


def repeated(found: Search, times: np.ndarray) -> Search:
    rows = np.repeat(np.arange(len(found.queries)), times)
    return Search(
        queries=tuple(f"{i}" for i in range(len(rows))),
        docs=found.docs,
        scores_QD=found.scores_QD[rows],
        true_QD=found.true_QD[rows],
    )


def test_beta() -> None:
    assert pytest.approx(12.49) == BETA
    # the same trade as the effective prior of the scoring tool, 0.0741289
    assert pytest.approx((1 - 0.0741289) / 0.0741289, rel=1e-5) == BETA


def score(make: Make, found: Search) -> float:
    """Return a metric of a search."""
    return make(found.docs).score(*text(found))


def test_by_hand() -> None:
    docs = ["x", "y", "z"]
    found = from_text(["x z", "y"], ["x:3 y:1 z:0.5", "x:2.5 y:2"], docs, -10)
    assert found.docs == ("x", "y", "z")
    assert found.scores_QD.tolist() == [[3.0, 1.0, 0.5], [2.5, 2.0, -10.0]]
    # above 2: the first finds one of two; the second nothing, and takes one of its two others
    assert score(atwv, found) == pytest.approx(1 - (0.5 + (1 + BETA / 2)) / 2)
    # only the first's x pays: 1 - (1/2 + 1) / 2
    assert score(mtwv, found) == pytest.approx(0.25)
    assert score(average_precision, found) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    # pairs by score: T F T F T F; with the best 3: miss 1/3 and false alarm 1/3
    assert score(pair_eer, found) == pytest.approx(1 / 3)


def test_nothing_is_worth_accepting() -> None:
    assert mtwv(["x", "y"]).score(["y"], ["x:1 y:0"]) == 0.0
    assert mtwv(["x", "y"]).score(["x y"], ["x:1 y:0"]) == 1.0  # no document can be a false alarm


def test_equals_the_definition() -> None:
    for seed in range(60):
        found = random_search(seed)
        best = score(mtwv, found)
        assert best == pytest.approx(slow_mtwv(found), abs=1e-12), seed
        for at in (-1.0, 0.5, 2.0):
            slow = slow_twv(found, found.scores_QD > at)
            assert atwv(DOCS, threshold=at).score(*text(found)) == pytest.approx(slow, abs=1e-12)
            assert slow <= best + 1e-12
        kept = found.true_QD.any(axis=1)
        precisions = [
            average_precision_score(true, scores)
            for true, scores in zip(found.true_QD[kept], found.scores_QD[kept], strict=True)
        ]
        assert score(average_precision, found) == pytest.approx(np.mean(precisions)), seed
        pairs = found.scores_QD[kept].ravel(), found.true_QD[kept].ravel()
        assert score(pair_eer, found) == pytest.approx(equal_error_rate(*pairs))


def test_names_and_signatures() -> None:
    names = [m.name for m in (mtwv(DOCS), atwv(DOCS), average_precision(DOCS), pair_eer(DOCS))]
    assert names == ["mtwv", "atwv", "map", "eer"]
    expected = "mtwv|beta:12.49|default:-10|queries-without-target:left-out|v1"
    assert mtwv(DOCS).signature == expected


@pytest.mark.parametrize("make", [mtwv, atwv, average_precision, pair_eer])
def test_bootstrap_equals_repeated_queries(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectorised draws against searches in which queries are there as often as drawn."""
    metric: Measure = make(DOCS)  # type: ignore[operator]
    found = random_search(18)
    assert 0 < found.left_out < 3  # some draws have queries that are left out
    refs, hyps = text(found)
    drawn = np.random.default_rng(2).multinomial(8, np.full(8, 1 / 8), size=40)
    values = [metric.score(*text(repeated(found, times))) for times in drawn]
    interval = bootstrap(metric, refs, hyps, found.queries, unit="query", resamples=40, seed=2)
    low, high = np.quantile(values, [0.025, 0.975])
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))
    assert (interval.n, interval.units, interval.unit) == (8, 8, "query")
    monkeypatch.setattr(metric_module, "BLOCK", 2 * 8 * len(DOCS))  # two draws at a time
    again = bootstrap(metric, refs, hyps, found.queries, unit="query", resamples=40, seed=2)
    assert again == interval


def test_queries_without_target_are_left_out_and_counted() -> None:
    refs, hyps, docs = ["x", ""], ["x:3 y:1", "x:9"], ["x", "y"]
    assert [from_text(refs[:n], hyps[:n], docs, -10).left_out for n in (1, 2)] == [0, 1]
    for make in (atwv, mtwv, average_precision, pair_eer):
        assert make(docs).score(refs, hyps) == make(docs).score(refs[:1], hyps[:1])
    for metric in (mtwv(docs), pair_eer(docs)):
        with pytest.raises(ValueError, match="none of the 1 queries has a true document"):
            metric.score(refs[1:], hyps[1:])
    for additive in (atwv(docs), average_precision(docs)):
        with pytest.raises(ValueError, match="not defined"):
            additive.score(refs[1:], hyps[1:])


def test_missing_pairs_have_the_default_score() -> None:
    found = from_text(["x", "y"], ["x:1.5", ""], ["x", "y"], -10)
    assert found.scores_QD.tolist() == [[1.5, -10], [-10, -10]]
    assert found.true_QD.tolist() == [[True, False], [False, True]]
    # accepting at -10 takes everything, at 1.5 one of two: 1 - (0 + 1) / 2
    assert mtwv(["x", "y"]).score(["x", "y"], ["x:1.5", ""]) == pytest.approx(0.5)
    # a default above the score of the true pair: accepting it first costs a false alarm
    assert mtwv(["x", "y"], default=2).score(["x"], ["x:1.5"]) == 0


def test_text_is_reversible() -> None:
    scores = {"a:b": 0.1 + 0.2, "c": -10.0, "d": 1e-17}
    assert decode_scores(encode_scores(scores)) == scores
    assert decode_scores("") == {}
    assert encode_docs(["a:b", "c"]).split() == ["a:b", "c"]


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="must have no white space, got 'a b'"):
        encode_docs(["a b"])
    with pytest.raises(ValueError, match="must have no white space, got ''"):
        encode_scores({"": 1.0})
    for part in ("x", "x:", ":1", "x:y"):
        with pytest.raises(ValueError, match=f"expected document:score, got '{part}'"):
            decode_scores(f"a:1 {part}")
    with pytest.raises(ValueError, match="scored twice"):
        decode_scores("a:1 a:2")
    with pytest.raises(ValueError, match="query 0: 'z' is not one of the 1 documents"):
        mtwv(["x"]).score(["x"], ["z:1"])
    with pytest.raises(ValueError, match="'z' is not one of the 1 documents"):
        mtwv(["x"]).score(["z"], ["x:1"])
    with pytest.raises(ValueError, match="not a finite score: nan"):
        mtwv(["x"]).score(["x"], ["x:nan"])
    with pytest.raises(ValueError, match="nothing was searched"):
        from_text([], [], ["x"], -10)
    with pytest.raises(ValueError, match="1 of 2 documents are named twice"):
        mtwv(["x", "x"]).score(["x"], ["x:1"])
    with pytest.raises(ValueError, match="default score must be a finite"):
        mtwv(["x"], default=float("nan")).score(["x"], ["x:1"])
