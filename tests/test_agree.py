"""The order of upstreams in two folders of results."""

from pathlib import Path

import pytest

from mynah.recipes import agree, results


def result(
    upstream: str, value: float, *, task: str = "ks", seed: int = 0, **more: object
) -> results.Result:
    metric = results.Metric(
        value=value, low=value, high=value, n=9, units=9, unit="speaker", signature="accuracy|v1"
    )
    made = results.Result(
        upstream=upstream, spec=upstream, fingerprint="0" * 64, upstream_params=1, task=task,
        task_version=1, protocol="fixed", corpus="tones", corpus_version="1", seed=seed,
        metric="accuracy", higher_is_better=True, metrics={"accuracy": metric}, choices=(), sweep=(),
        layer_weights=(1.0,), n_train=1, n_dev=1, n_test=9, head_params=1, steps=1, passes=1.0,
        features="pooled", forwards=0, environment={}, command="", predictions="x.tsv",
        costs={"extract": results.Cost(cpu=5, wall=5), "train": results.Cost(cpu=2, wall=2)},
    )  # fmt: skip
    return made.model_copy(update=more)


def side(values: list[float], task: str = "ks", **more: object) -> list[results.Result]:
    return [result(f"u{i}", value, task=task, **more) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("second", "expected"),
    [([0.1, 0.2, 0.3, 0.4], 1.0), ([0.4, 0.3, 0.2, 0.1], -1.0), ([0.1, 0.3, 0.2, 0.4], 0.8)],
)
def test_rank_correlation(second: list[float], expected: float) -> None:
    (one,) = agree.compare(side([0.5, 0.6, 0.7, 0.8]), side(second))
    assert one.correlation == pytest.approx(expected)
    assert (one.upstreams, one.first, one.second) == (4, 8.0, 8.0)


def test_seeds_are_averaged_and_what_only_one_has_is_left_out() -> None:
    first = [*side([0.1, 0.2, 0.9]), result("u0", 0.9, seed=1), result("alone", 0.5)]
    (one,) = agree.compare(first, side([0.3, 0.1, 0.9]))
    assert one.upstreams == 3
    assert one.correlation == 1.0  # u0 has a mean of 0.5
    assert agree.compare(side([0.1, 0.2]), side([0.1, 0.2])) == []
    assert agree.compare(side([0.1, 0.2, 0.3]), side([0.1, 0.2, 0.3], task="pr")) == []


SMALL, UP, DOWN = {"heads": "small"}, [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]


def test_what_makes_another_number_is_not_averaged() -> None:
    first = [
        *side(UP, "asr"),
        *side(DOWN, "asr", settings={"lm": "x"}),
        *side(DOWN, "asr", protocol="superb"),
        *side(DOWN, "asr", settings={"layer": "-1"}),
    ]
    found = agree.compare(first, [*side(UP, "asr", settings=SMALL), *first])
    assert {one.task: one.correlation for one in found} == {
        "asr": 1.0, "asr layer -1": 1.0, "asr superb": 1.0, "asr+lm": 1.0,
    }  # fmt: skip
    rows = agree.compare(side(UP, "asr"), side(DOWN, "asr", settings={"lm": "x"}))
    assert rows == []


def test_small_heads_and_protocols_against_each_other_where_none_is_shared() -> None:
    (one,) = agree.compare(side(UP, "pr", settings=SMALL), side(DOWN, "pr"))
    assert (one.task, one.correlation) == ("pr (small head) against pr", -1.0)
    (one,) = agree.compare(side(UP), side(UP, protocol="superb"))
    assert (one.task, one.correlation) == ("ks against ks superb", 1.0)


def test_one_score_for_all_has_no_order() -> None:
    (one,) = agree.compare(side([0.1, 0.1, 0.1]), side([0.1, 0.2, 0.3]))
    assert one.correlation is None
    assert "one score for all" in agree.lines([one])[2]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, values in (("a", [0.1, 0.2, 0.3]), ("b", [0.3, 0.2, 0.1])):
        for one in side(values):
            results.save(one, tmp_path / name)
    assert agree.main(agree.Args(first=tmp_path / "a", second=tmp_path / "b")) == 0
    assert "| ks, tones | 3 | -1.00 | 6 | 6 |" in capsys.readouterr().out
    results.save(result("u0", 0.1), tmp_path / "c")
    assert agree.main(agree.Args(first=tmp_path / "a", second=tmp_path / "c")) == 1
