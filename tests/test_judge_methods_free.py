"""``mynah judge methods`` without ``--sentence``: what is null, what is left, and refusals."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from method_pages import row, value, words
from sayings import PITCHES, RATE, made
from tones import write_tones

from mynah.recipes import cli
from mynah.recipes.conversion.free_pairs import draw_free, tried
from mynah.recipes.conversion.method_lines import NEED_SENTENCE
from mynah.recipes.conversion.method_report import WHY_NONE
from mynah.recipes.conversion.method_scores import Panel
from mynah.recipes.conversion.pairs import witnesses
from mynah.recipes.conversion.systems import COPY, OTHER, OTHER_COPY, UNCHANGED, Recordings
from mynah.tasks.core.contract import DataError
from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.metrics.conversion import analyse
from mynah.tasks.metrics.detection import threshold_at_eer
from mynah.tasks.metrics.intonation import log_f0_correlation, median_f0, semitones_apart


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return made(tmp_path_factory.mktemp("speech") / "audio", parallel=False)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Heads that were hardly trained, on tones: asr, pr, asv, ks."""
    from mynah.recipes.probing import job
    from mynah.recipes.probing.settings import Settings

    folder = tmp_path_factory.mktemp("heads")
    tones = write_tones(folder / "tones", seconds=0.5, takes=2)
    found = {}
    for task in ("asr", "pr", "asv", "ks"):
        settings = Settings(steps=2, learning_rates=(1e-3,), heads="small")
        (result,) = job.run("fbank", task, tones.folder, folder / "runs", settings=settings)
        (name,) = result.heads.values()
        found[task] = folder / "runs" / "fbank-base" / name
    return found


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged(
    corpus: Corpus, heads: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What was written, of four pairs under all judges."""
    pytest.importorskip("pyworld")
    folder = tmp_path_factory.mktemp("out")
    options = {"vocoder": "world", "pairs": 4, "targets": 3, "seed": 1}
    judges = {"asr": heads["asr"], "asv": heads["asv"], "keep": folder / "kept"}
    assert cli.main(words(corpus, folder / "m.json", "stats", **options, **judges)) == 0
    found: dict[str, Any] = json.loads((folder / "m.json").read_text(encoding="utf-8"))
    return found


def test_what_needs_the_sentence_is_null_and_the_rest_is_there(judged: dict[str, Any]) -> None:
    names = [one["method"] for one in judged["rows"]]
    assert names == [UNCHANGED, COPY, OTHER_COPY, OTHER, "stats"]
    assert (judged["sentence"], judged["why_null"]) == (None, WHY_NONE)
    for one in judged["rows"]:
        by_genders = one["by_genders"].values()
        for metrics in (one["metrics"], *by_genders):
            assert {metrics[name] for name in NEED_SENTENCE} == {None}
        own = {"cer", "wer", "accept", "eer", "f0_off", "margin"}
        if one["method"] in (UNCHANGED, COPY, "stats"):
            own |= {"f0_corr_source"}
        if one["method"] in (COPY, OTHER_COPY, "stats"):
            own |= {"rtf"}
        assert {name for name, found in one["metrics"].items() if found is not None} == own
        for conversion in one["conversions"]:
            assert conversion["distance"] is None
            assert conversion["mcd_c1"] is None
    assert {p["target_speaker"] for p in judged["pairs"]} <= set("abcd")  # e is not in test
    assert {p["sentence"] for p in judged["pairs"]} == {None}
    for kind in ("real", "vocoded"):
        assert set(judged["judges"][kind]) == {"cer", "eer"}
    assert "of:others|threshold" in row(judged, "stats")["metrics"]["accept"]["signature"]


def test_anchors_bound_the_methods(judged: dict[str, Any]) -> None:
    assert value(judged, UNCHANGED, "f0_corr_source") == pytest.approx(1)
    assert value(judged, COPY, "f0_corr_source") > 0.9
    assert value(judged, "stats", "f0_corr_source") > 0.8  # pitch is moved, not made anew
    assert value(judged, OTHER, "f0_off") < 1.5
    assert value(judged, OTHER_COPY, "f0_off") < 1.5
    assert value(judged, "stats", "f0_off") < 1.5 < 3 < value(judged, UNCHANGED, "f0_off")
    assert value(judged, UNCHANGED, "margin") < 0 < value(judged, OTHER, "margin")
    assert value(judged, UNCHANGED, "margin") < value(judged, OTHER_COPY, "margin")


def test_pitch_is_what_the_analysis_says(judged: dict[str, Any], corpus: Corpus) -> None:
    by_id = {u.id: u for u in corpus.utterances()}
    pair, found = judged["pairs"][0], row(judged, "stats")["conversions"][0]

    def f0(path: str) -> np.ndarray:
        return analyse(soundfile.read(path)[0], sample_rate=RATE).f0_T

    mine = f0(found["file"])
    kept = log_f0_correlation(mine, f0(by_id[pair["source"]].path))
    assert kept == pytest.approx(found["f0_corr_source"], rel=1e-2)
    target = median_f0([f0(by_id[name].path) for name in pair["references"]])
    assert target == pytest.approx(PITCHES[pair["target_speaker"]], rel=0.1)
    off = semitones_apart(float(median_f0([mine]) or 0), float(target or 0))
    assert off == pytest.approx(found["f0_off"], abs=0.02)


def test_words_of_an_anchor_are_its_own(judged: dict[str, Any], corpus: Corpus) -> None:
    text = {u.id: u.text for u in corpus.utterances()}
    for name, whose in ((OTHER, "target"), (OTHER_COPY, "target"), (COPY, "source")):
        for pair, one in zip(judged["pairs"], row(judged, name)["conversions"], strict=True):
            assert one["text"] == text[pair[whose]]


def test_voices_are_judged_by_recordings_that_made_nothing(
    judged: dict[str, Any], corpus: Corpus, heads: dict[str, Path], tmp_path: Path
) -> None:
    from mynah.tasks.vc import cosines

    chosen = corpus.utterances("test")
    pairs = draw_free(chosen, pairs=4, targets=3, seed=1)
    assert [p.id for p in pairs] == [p["id"] for p in judged["pairs"]]
    real = Recordings(tmp_path / "real")
    known = witnesses(chosen, pairs, seed=1)
    panel = Panel(pairs, real, witnesses=known, tried=tried(pairs, known), asv=heads["asv"])
    assert panel.how == judged["verification"]
    every = {u.id: u for u in (*known, *(u for p in pairs for u in (p.source, p.target)))}
    vector = {name: panel.likeness.vector(real.file(u)) for name, u in every.items()}

    def own(speaker: str | None, barred: set[str]) -> list[np.ndarray]:
        left = [u.id for u in every.values() if u.speaker == speaker and u.id not in barred]
        return [vector[name] for name in left]

    different: list[float] = []
    for pair, one in zip(pairs, row(judged, OTHER)["conversions"], strict=True):
        barred = {u.id for u in (pair.target, *pair.references)}
        found = cosines(vector[pair.target.id], own(pair.target.speaker, barred))
        assert one["accepted"] == pytest.approx(float(np.mean(found > panel.how["threshold"])))
        different += found.tolist()
    same: list[float] = []
    for speaker in {p.target.speaker for p in pairs}:
        voices = own(speaker, set())
        same += [float(cosines(a, [b])[0]) for a, b in combinations(voices, 2)]
    labels = ["target"] * len(same) + ["nontarget"] * len(different)
    eer, _ = threshold_at_eer(np.array(same + different), np.array(labels) == "target")
    assert value(judged, OTHER, "eer") == pytest.approx(eer)


def test_the_table_has_dashes_and_says_why(
    corpus: Corpus, heads: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyworld")
    options = {"vocoder": "griffin_lim", "pairs": 3, "same": "mood", "asr": heads["pr"]}
    out = tmp_path / "p.json"
    assert cli.main(words(corpus, out, "mkl", **options)) == 0
    shown = capsys.readouterr().out
    head = (
        "| method | n | MCD dB | without c(0) | F0 RMSE Hz | F0 corr | F0 corr to source | "
        "F0 off, semitones | PER % | margin | CPU s / s |"
    )
    assert head in shown
    assert shown.count("| 3 | – | – | – | – |") == 5
    assert shown.count(WHY_NONE) == 1
    assert "within gender" in shown
    assert "MCD dB, within gender" not in shown
    assert "errors on real speech: PER" in shown
    found = json.loads(out.read_text(encoding="utf-8"))
    for one in found["rows"]:
        assert {"per"} == {"per", "cer", "wer"} & set(one["metrics"])
        assert (
            heads["pr"].name.removesuffix(".head.safetensors")
            in (one["metrics"]["per"]["signature"])
        )
        for conversion in one["conversions"]:
            assert conversion["transcript"] is None
            assert isinstance(conversion["phones_heard"], str)
    by_id = {u.id: u for u in corpus.utterances()}
    for name, whose in ((OTHER, "target"), ("mkl", "source")):
        for pair, one in zip(found["pairs"], row(found, name)["conversions"], strict=True):
            assert one["phones"] == by_id[pair[whose]].label("phones")


# -- refusals -------------------------------------------------------------------------------------


def relabelled(corpus: Corpus, folder: Path, **changes: object) -> Corpus:
    kept = [dataclasses.replace(u, **changes) for u in corpus.utterances()]
    return write_corpus(folder, kept, name=folder.name)


def test_heads_that_nothing_can_be_compared_with(
    corpus: Corpus,
    heads: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bare = relabelled(corpus, tmp_path / "bare", text=None, labels={})
    foreign = relabelled(corpus, tmp_path / "foreign", labels={"phones": "ʃ ʒ"})
    unknown = relabelled(corpus, tmp_path / "unknown", labels={"phones": "O <oov>"})
    options = {"vocoder": "griffin_lim", "pairs": 2}
    out = tmp_path / "x.json"
    for given, task, status, message in (
        (bare, "asr", 3, "writes words, for CER, and none of 2 sources has a text .*a head of pr"),
        (bare, "pr", 3, "writes phones, for PER, and none of 2 sources has the label 'phones'"),
        (unknown, "pr", 3, "with a pronunciation of every word"),
        (foreign, "pr", 3, "writes other phones .*than the label 'phones' has .ʃ, ʒ."),
        (corpus, "ks", 2, "is a head of ks: --asr needs one that is scored by wer or cer or per"),
    ):
        command = words(given, out, "mkl", **options, asr=heads[task])
        assert cli.main(command) == status
        assert re.search(message, capsys.readouterr().err)
    assert not out.exists()


def test_texts_that_some_sources_lack_are_told(
    corpus: Corpus, heads: dict[str, Path], tmp_path: Path
) -> None:
    from mynah.recipes.conversion.method_report import notes
    from mynah.recipes.conversion.method_scores import Scored
    from mynah.recipes.conversion.systems import System

    pairs = draw_free(corpus.utterances(), pairs=3)
    pairs[0] = dataclasses.replace(pairs[0], source=dataclasses.replace(pairs[0].source, text="."))
    panel = Panel(pairs, Recordings(tmp_path / "real"), asr=heads["asr"])
    nothing = Scored(metrics={}, by_genders={}, perplexity=None, conversions=())
    said = notes([(System(name="x", kind="method", files=()), nothing)], panel, {}, pairs)
    assert "CER is of 2 conversions: the other sources have no text." in said
    mute = [dataclasses.replace(p, source=dataclasses.replace(p.source, text=None)) for p in pairs]
    with pytest.raises(DataError, match="none of 3 sources has a text"):
        Panel(mute, Recordings(tmp_path / "mute"), asr=heads["asr"])


def test_without_world_nothing_is_converted(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pyworld", None)
    options = {"vocoder": "griffin_lim", "pairs": 2, "keep": tmp_path / "kept"}
    assert cli.main(words(corpus, tmp_path / "x.json", "mkl", **options)) == 2
    assert "pip install 'mynah[audio]'" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


def test_arguments_that_name_nothing(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.json"
    for options, status, message in (
        ({"split": "train"}, 3, "one speaker only, e: "),
        ({"same": "modo"}, 3, "has the label 'modo' (--same)"),
        ({"split": "dev"}, 2, "no split 'dev'"),
        ({"pairs": 0}, 2, "pairs and targets must be at least 1"),
        ({"sentence": "text"}, 3, "leave --sentence out"),
    ):
        assert cli.main(words(corpus, out, "stats", **options)) == status
        assert message in capsys.readouterr().err
    assert not out.exists()
