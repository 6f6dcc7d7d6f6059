"""The probe end to end on tones: features kept once, choices on dev, results that can be audited."""

import csv
import dataclasses
import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from tones import write_tones

from mynah.recipes import bench, cli, probe, results
from mynah.recipes.errors import BadDataError
from mynah.recipes.probing.settings import Features, Settings
from mynah.tasks.metrics.accuracy import accuracy

FAST = Settings(steps=40, learning_rates=(1e-2, 1e-3))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("data") / "tones").folder


@pytest.fixture(scope="module")
def ks(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[results.Result, Path]:
    out = tmp_path_factory.mktemp("out")
    (result,) = probe.run("fbank", "ks", corpus, out, settings=FAST)
    return result, out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_it_learns_pitch_and_says_how(ks: tuple[results.Result, Path]) -> None:
    result, out = ks
    assert result.main.value > 0.9
    assert result.main.low <= result.main.value <= result.main.high
    assert result.classes == ("high", "low", "mid")
    assert np.array(result.confusion).sum() == result.n_test == result.main.n
    assert result.n_train + result.n_dev + result.n_test == 54
    assert result.skipped == {}
    assert result.features == "pooled"
    assert result.forwards == 54
    assert result.layer_weights == (1.0,)
    assert result.head_params == 1 + 240 * 256 + 256 + 256 * 3 + 3
    assert set(result.costs) == {"extract", "train", "score"}
    assert results.load_all(out) == [result]


def test_predictions_beside_it_give_the_score(ks: tuple[results.Result, Path]) -> None:
    result, out = ks
    found = rows(out / "fbank-base" / result.predictions)
    again = accuracy().score([r["reference"] for r in found], [r["prediction"] for r in found])
    assert again == pytest.approx(result.main.value)
    assert {r["unit"] for r in found} <= {f"s{i}" for i in range(6)}
    with np.load(out / "fbank-base" / str(result.embeddings), allow_pickle=False) as kept:
        assert kept["ids"].tolist() == [r["id"] for r in found]
        assert kept["means"].shape == (result.n_test, 240)


def test_the_choice_is_the_best_of_the_sweep_on_dev(ks: tuple[results.Result, Path]) -> None:
    result, _ = ks
    assert {p.learning_rate for p in result.sweep} == {1e-2, 1e-3}
    assert {p.step for p in result.sweep} == set(range(2, result.steps + 1, 2))
    best = max(p.dev for p in result.sweep if p.dev is not None)
    (choice,) = result.choices
    assert choice.dev == best
    assert any(
        (p.learning_rate, p.step, p.dev) == (choice.learning_rate, choice.step, best)
        for p in result.sweep
    )


def test_rerun_policies(
    ks: tuple[results.Result, Path], corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result, out = ks
    path = results.path_of(out, upstream="fbank-base", task="ks", protocol="fixed", corpus="tones", seed=0)  # fmt: skip
    before = path.stat().st_mtime_ns
    assert probe.run("fbank", "ks", corpus, out, settings=FAST) == [result]
    assert path.stat().st_mtime_ns == before
    seeds = dataclasses.replace(FAST, seeds=(0, 7))
    assert probe.run("fbank", "ks", corpus, out, settings=seeds, rerun="never") == [result]
    both = probe.run("fbank", "ks", corpus, out, settings=seeds)
    assert both[0] == result  # only the missing seed was made
    assert both[1].seed == 7
    assert both[1].forwards == 0  # features were kept
    with caplog.at_level(logging.WARNING):
        (other,) = probe.run(
            "fbank", "ks", corpus, out, settings=dataclasses.replace(FAST, steps=4)
        )
    assert "came of another settings" in caplog.text
    assert other.settings["steps"] == "4"
    (again,) = probe.run("fbank", "ks", corpus, out, settings=FAST, rerun="always")
    assert again.main == result.main  # the same to the last digit
    assert again.sweep == result.sweep


def test_a_seed_alone_is_the_seed_in_company(corpus: Path, tmp_path: Path) -> None:
    alone = probe.run(
        "fbank", "ks", corpus, tmp_path / "a", settings=dataclasses.replace(FAST, seeds=(3,))
    )
    both = probe.run(
        "fbank", "ks", corpus, tmp_path / "b", settings=dataclasses.replace(FAST, seeds=(1, 3))
    )
    mine = [(p.step, p.learning_rate, p.dev) for p in alone[0].sweep]
    theirs = [(p.step, p.learning_rate, p.dev) for p in both[1].sweep if p.step <= alone[0].steps]
    assert mine == theirs[: len(mine)]
    assert alone[0].main == both[1].main


@pytest.mark.parametrize("features", ["frames", "stream"])
def test_means_and_frames_give_the_same_probe(
    ks: tuple[results.Result, Path], corpus: Path, tmp_path: Path, features: str
) -> None:
    short = dataclasses.replace(FAST, steps=6)
    (pooled,) = probe.run("apc/tiny", "ks", corpus, tmp_path, settings=short)
    (other,) = probe.run("apc/tiny", "ks", corpus, tmp_path / features,
                         settings=dataclasses.replace(short, features=features))  # type: ignore[arg-type]  # fmt: skip
    assert other.features == features
    for a, b in zip(pooled.sweep, other.sweep, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=2e-3)
    assert sum(pooled.layer_weights) == pytest.approx(1)
    assert len(pooled.layer_weights) > 1


def test_noise_is_not_learned(tmp_path: Path) -> None:
    """Labels that the audio does not carry: dev is chosen, test stays near chance."""
    folder = write_tones(tmp_path / "noise", speakers=12, takes=3, noise=True).folder
    (result,) = probe.run("fbank", "ks", folder, tmp_path, settings=FAST)
    assert result.main.value < 0.65


@pytest.mark.parametrize("protocol", ["fixed", "superb"])
def test_sid_er_and_pr(corpus: Path, tmp_path: Path, protocol: str) -> None:
    settings = dataclasses.replace(FAST, protocol=protocol, steps=20)  # type: ignore[arg-type]
    (sid,) = probe.run("fbank", "sid", corpus, tmp_path, settings=settings)
    assert len(sid.classes) == 6
    (er,) = probe.run("fbank", "er", corpus, tmp_path, settings=settings)
    assert er.n_test == 54
    assert len({c.fold for c in er.choices}) == 6
    assert len({c.learning_rate for c in er.choices}) == 1
    assert ("uar" in er.metrics) == (protocol == "fixed")
    assert er.main.value > 0.5
    (pr,) = probe.run("fbank", "pr", corpus, tmp_path, settings=settings)
    assert (pr.metric, pr.higher_is_better, pr.confusion) == ("per", False, ())
    assert pr.features == "frames"
    assert 0 <= pr.main.value <= 1.5
    assert len(rows(tmp_path / "fbank-base" / pr.predictions)) == pr.n_test


def test_layer_norm_needs_frames_and_works_with_them(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs every frame"):
        probe.run("apc/tiny", "ks", corpus, tmp_path,
                  settings=dataclasses.replace(FAST, features="pooled", layer_norm=True))  # fmt: skip
    with pytest.raises(ValueError, match="needs every frame"):
        probe.run(
            "fbank", "pr", corpus, tmp_path, settings=dataclasses.replace(FAST, features="pooled")
        )
    short = dataclasses.replace(FAST, steps=4, layer_norm=True, layer=-1)
    (result,) = probe.run("apc/tiny", "ks", corpus, tmp_path, settings=short)
    assert result.features == "frames"
    assert result.layer_weights[-1] == 1.0
    assert result.settings["layer"] == "-1"


def test_bad_data_and_bad_settings(corpus: Path, tmp_path: Path) -> None:
    small = write_tones(tmp_path / "two", speakers=2, takes=1).folder
    with pytest.raises(
        BadDataError, match=r"corpus two: train, dev and test must not share a speaker"
    ):
        probe.run("fbank", "ks", small, tmp_path, settings=FAST)
    with pytest.raises(ValueError, match="seeds must be distinct"):
        probe.run("fbank", "ks", corpus, tmp_path, settings=Settings(seeds=(1, 1)))
    with pytest.raises(ValueError, match="steps must be at least 1"):
        probe.run("fbank", "ks", corpus, tmp_path, settings=Settings(steps=0))
    with pytest.raises(LookupError, match="unknown task"):
        probe.run("fbank", "kws", corpus, tmp_path, settings=FAST)


def test_targets_that_do_not_fit_are_skipped_and_counted(tmp_path: Path) -> None:
    """wav2vec2-like strides: 0.012 s of audio cannot spell two phones twice."""
    corpus = write_tones(tmp_path / "short", speakers=6, takes=1, seconds=0.012)
    with pytest.raises(BadDataError, match="no training utterance is long enough.*needs 2"):
        probe.run("fbank", "pr", corpus.folder, tmp_path, settings=FAST)


def test_an_upstream_that_changes_is_found_out(corpus: Path, tmp_path: Path) -> None:
    from cheap_upstream import Cheap

    class Drifting(Cheap):
        def hidden_states(self, wavs):  # type: ignore[no-untyped-def]
            self.weight.data += 1e-3
            return super().hidden_states(wavs)

    with pytest.raises(RuntimeError, match="weights of fbank changed during its probe"):
        probe.run("fbank", "ks", corpus, tmp_path, settings=Settings(steps=2, features="stream"),
                  upstream=Drifting().freeze())  # fmt: skip
    assert not list(results.walk(tmp_path))
    (same,) = probe.run(
        "fbank", "ks", corpus, tmp_path, settings=Settings(steps=2), upstream=Cheap().freeze()
    )
    assert same.fingerprint == Cheap().freeze().fingerprint()


# -- bench ----------------------------------------------------------------------------------------


def test_bench_goes_on_keeps_and_says_what_is_missing(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = bench.Args(
        specs=("fbank", f"hf:{tmp_path}/gone"), corpus=(corpus,), out=tmp_path, tasks=("ks,sid",), steps=4,
        lrs=(1e-2,),
    )  # fmt: skip
    assert bench.main(args) == 1
    said = capsys.readouterr().out
    assert f"missing: hf:{tmp_path}/gone ks" in said
    assert {r.task for r in results.load_all(tmp_path)} == {"ks", "sid"}
    before = {p: p.stat().st_mtime_ns for p in results.walk(tmp_path)}
    assert bench.main(dataclasses.replace(args, specs=("fbank",))) == 0
    assert before == {p: p.stat().st_mtime_ns for p in results.walk(tmp_path)}
    assert (
        bench.main(dataclasses.replace(args, specs=("fbank",), tasks=("er",), rerun="never")) == 1
    )
    with pytest.raises(LookupError, match="unknown task"):
        bench.main(dataclasses.replace(args, tasks=("karaoke",)))
    with pytest.raises(LookupError, match="unknown upstream 'fbnk'"):
        bench.main(dataclasses.replace(args, specs=("fbank", "fbnk")))
    with pytest.raises(FileNotFoundError, match="no such file: .*lexicon"):
        bench.main(dataclasses.replace(args, lexicon=tmp_path / "lexicon.txt"))


def test_bench_says_what_is_missing_whatever_lies_in_the_folder(
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    args = bench.Args(
        specs=("fbank", f"hf:{tmp_path}/gone"), corpus=(corpus,), out=tmp_path / "out",
        tasks=("ks",), steps=4, lrs=(1e-2,),
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old-seed0.json").write_text("{")
    assert bench.main(args) == 1
    said = capsys.readouterr().out
    assert "ks tones" in said  # the table of what is whole
    assert f"missing: hf:{tmp_path}/gone ks" in said
    assert "old-seed0.json is not a result" in caplog.text
    assert bench.main(dataclasses.replace(args, specs=("fbank",))) == 1  # a file is still damaged
    assert bench.main(dataclasses.replace(args, specs=("fbank",), table=False)) == 0


@pytest.mark.parametrize("features", ["auto", "stream"])
def test_bench_and_extract_draw_the_weights_of_a_probe(
    features: Features, corpus: Path, tmp_path: Path
) -> None:
    options = ["--corpus", str(corpus), "--upstream-seed", "3", "--store", str(tmp_path / "store")]
    where = ["--out", str(tmp_path), "--steps", "2", "--lrs", "1e-2", "--tasks", "ks,sid"]
    if features == "auto":
        assert cli.main(["extract", "apc/tiny", *options, "--kind", "pooled"]) == 0
    assert cli.main(["bench", "apc/tiny", *options, *where, "--features", features]) == 0
    settings = Settings(steps=2, learning_rates=(1e-2,), features=features)
    for made in results.load_all(tmp_path):
        assert made.upstream == "apc-tiny-untrained-seed3"
        assert (made.forwards == 0) == (features == "auto")  # what was extracted is of seed 3
        same = {"settings": settings, "upstream_seed": 3, "rerun": "never"}
        assert probe.run("apc/tiny", made.task, corpus, tmp_path, **same) == [made]  # type: ignore[arg-type]


def test_another_file_of_the_same_name_is_another_setting(corpus: Path, tmp_path: Path) -> None:
    lexicon, elsewhere = tmp_path / "a" / "words.txt", tmp_path / "b" / "words.txt"
    for path in (lexicon, elsewhere):
        path.parent.mkdir()
        path.write_text("LOW L OW\nMID M IH D\nHIGH HH AY\n")
    settings = Settings(steps=2, learning_rates=(1e-2,), heads="small", lexicon=lexicon)
    (first,) = probe.run("fbank", "pr", corpus, tmp_path, settings=settings)
    assert re.fullmatch(r"words\.txt#[0-9a-f]{8}", first.settings["lexicon"])
    assert first.settings["lm"] == ""
    moved = dataclasses.replace(settings, lexicon=elsewhere)
    assert probe.run("fbank", "pr", corpus, tmp_path, settings=moved, rerun="never") == [first]
    lexicon.write_text("LOW L UH\nMID M AE D\nHIGH HH AY\n")
    assert probe.run("fbank", "pr", corpus, tmp_path, settings=settings, rerun="never") == []
    old = first.model_copy(update={"settings": {**first.settings, "lexicon": "words.txt"}})
    results.save(old, tmp_path)  # which says no content: it may have been any
    assert probe.run("fbank", "pr", corpus, tmp_path, settings=moved, rerun="never") == []


def test_the_command_line_prints_scores(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = probe.Args(
        spec="fbank", task="ks", corpus=corpus, out=tmp_path, steps=4, lrs=(1e-2,), seeds=(0, 1)
    )
    assert probe.main(args) == 0
    assert capsys.readouterr().out.count("fbank-base  ks fixed tones seed") == 2
    assert probe.main(dataclasses.replace(args, seeds=(9,), rerun="never")) == 1
