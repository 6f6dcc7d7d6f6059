"""Tasks that share forwards give what they give alone, for fewer forwards."""

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from tones import write_tones

from mynah.recipes import bench, probe, results
from mynah.recipes.probing.job import plan
from mynah.recipes.probing.joint import run_together
from mynah.recipes.probing.settings import Settings

FAST = Settings(steps=30, learning_rates=(1e-2, 1e-3), features="stream")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("data") / "tones").folder


def test_scores_are_those_of_probes_alone(corpus: Path, tmp_path: Path) -> None:
    alone = [
        probe.run("fbank", task, corpus, tmp_path / "alone", settings=FAST)[0]
        for task in ("ks", "pr")
    ]
    plans = [plan("fbank", task, corpus, tmp_path / "both", settings=FAST) for task in ("ks", "pr")]
    both = run_together(plans)
    for one, found in zip(alone, both, strict=True):
        assert not isinstance(found, Exception)
        (result,) = found
        assert result.main.value == pytest.approx(one.main.value)
        assert [p.dev for p in result.sweep] == pytest.approx([p.dev for p in one.sweep])
        assert result.features == "stream"
        assert set(result.shared_with) == {"ks", "pr"} - {result.task}
        assert result.forwards < one.forwards  # memory held the small corpus whole
        assert result.forwards == 54
    assert len(results.load_all(tmp_path / "both")) == 2
    again = run_together(plans)  # made before: the plans say what was missing then
    assert all(not isinstance(found, Exception) for found in again)
    done = [plan("fbank", t, corpus, tmp_path / "both", settings=FAST) for t in ("ks", "pr")]
    assert [p.missing for p in done] == [[], []]
    assert [r.main for (r,) in run_together(done)] == [r.main for (r,) in both]  # type: ignore[misc]


def test_an_epoch_costs_one_forward_of_each_utterance(corpus: Path, tmp_path: Path) -> None:
    """With memory for a part of the corpus only, as with big ones."""

    def forwards(seeds: tuple[int, ...], out: Path) -> int:
        plans = [
            plan(
                "fbank", "pr", corpus, out,
                settings=dataclasses.replace(FAST, learning_rates=(1e-2,), seeds=(seed,)),
            )
            for seed in seeds
        ]  # fmt: skip
        found = run_together(plans, memory=20 * 100 * 240 * 4)
        counts = {r.forwards for one in found if not isinstance(one, Exception) for r in one}
        assert len(counts) == 1
        return counts.pop()

    one = forwards((0,), tmp_path / "one")
    assert forwards((0, 1, 2), tmp_path / "three") <= 1.2 * one


def test_what_fails_does_not_stop_the_others(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = bench.Args(
        specs=("fbank",), corpus=(corpus,), out=tmp_path, tasks=("ks,ic,pr",),
        steps=10, lrs=(1e-2,), features="stream",
    )  # fmt: skip
    assert bench.main(args) == 1
    assert "54 utterances through the upstreams" in capsys.readouterr().out
    assert {r.task for r in results.load_all(tmp_path)} == {"ks", "pr"}


def test_only_one_corpus_at_a_time(corpus: Path, tmp_path: Path) -> None:
    other = write_tones(tmp_path / "others", takes=2).folder
    plans = [plan("fbank", "ks", c, tmp_path, settings=FAST) for c in (corpus, other)]
    with pytest.raises(ValueError, match="one upstream on one corpus"):
        run_together(plans)


def test_frames_come_first_so_that_means_cost_nothing(corpus: Path, tmp_path: Path) -> None:
    args = bench.Args(
        specs=("fbank",), corpus=(corpus,), out=tmp_path, tasks=("ks,pr",), steps=10, lrs=(1e-2,)
    )
    assert bench.main(args) == 0
    found = {r.task: r.forwards for r in results.load_all(tmp_path)}
    assert found == {"pr": 54, "ks": 0}


def test_the_matrix_normalises_frames_where_it_is_asked_to(corpus: Path, tmp_path: Path) -> None:
    args = bench.Args(
        specs=("fbank",), corpus=(corpus,), out=tmp_path, tasks=("ks,pr",),
        steps=10, lrs=(1e-2,), layer_norm=True,
    )  # fmt: skip
    assert bench.main(args) == 0
    found = results.load_all(tmp_path)
    assert {r.task for r in found} == {"ks", "pr"}
    assert {r.settings["layer_norm"] for r in found} == {"true"}
    assert sum(r.forwards for r in found) == 54  # the same frames serve both
