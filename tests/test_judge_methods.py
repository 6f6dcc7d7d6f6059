"""``mynah judge methods``: what bounds what, what is written and kept, and refusals."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from method_pages import row, value, words
from sayings import RATE, made
from tones import write_tones

from mynah.recipes import cli, judge_methods
from mynah.recipes.conversion.method_scores import Panel
from mynah.recipes.conversion.pairs import draw, witnesses
from mynah.recipes.conversion.systems import (
    COPY,
    ITSELF,
    TAKE,
    TARGET_COPY,
    UNCHANGED,
    Recordings,
    System,
)
from mynah.recipes.errors import BadDataError
from mynah.tasks.corpora.corpus import Corpus, write_corpus

SAME = {"sentence": "text"}  # the label of sentences that speakers share


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return made(tmp_path_factory.mktemp("speech") / "audio")


@pytest.fixture(scope="module")
def page(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pytest.importorskip("pyworld")
    folder = tmp_path_factory.mktemp("out")
    options = {
        **SAME,
        "vocoder": "world",
        "split": "all",
        "pairs": 2,
        "targets": 3,
        "own": 1,
        "seed": 1,
    }
    command = words(corpus, folder / "m.json", "stats", "copy", **options)
    assert cli.main([*command, "--keep", str(folder / "kept")]) == 0
    found: dict[str, Any] = json.loads((folder / "m.json").read_text(encoding="utf-8"))
    found["folder"] = folder
    return found


def test_anchors_bound_the_methods(page: dict[str, Any]) -> None:
    names = [one["method"] for one in page["rows"]]
    assert names == [UNCHANGED, COPY, TARGET_COPY, TAKE, "stats"]  # copy is there once
    assert [one["kind"] for one in page["rows"]] == ["anchor"] * 4 + ["method"]
    assert "rtf" not in row(page, UNCHANGED)["metrics"]
    assert "rtf" not in row(page, TAKE)["metrics"]
    assert value(page, "stats", "rtf") > 0
    assert value(page, UNCHANGED, "f0_rmse") > 30  # voices of 95 to 260 Hz
    assert value(page, "stats", "f0_rmse") < 0.5 * value(page, UNCHANGED, "f0_rmse")
    assert value(page, "stats", "margin") > value(page, COPY, "margin")
    assert value(page, UNCHANGED, "margin") < 0 < value(page, TARGET_COPY, "margin")
    for metric in ("mcd", "mcd_c1"):
        assert value(page, TAKE, metric) < value(page, TARGET_COPY, metric) + 2
        assert value(page, TARGET_COPY, metric) < value(page, "stats", metric)
        assert value(page, TARGET_COPY, metric) < value(page, COPY, metric)


def test_the_json_holds_every_pair(page: dict[str, Any], corpus: Corpus) -> None:
    ids = [pair["id"] for pair in page["pairs"]]
    assert len(ids) == 2
    assert sorted({pair["genders"] for pair in page["pairs"]}) == ["across", "within"]
    by_id = {u.id: u for u in corpus.utterances()}
    for pair in page["pairs"]:
        source, target = by_id[pair["source"]], by_id[pair["target"]]
        assert pair["source_speaker"] == source.speaker != target.speaker
        assert all(by_id[name].text != source.text for name in pair["references"])
    for one in page["rows"]:
        assert one["n"] == 2
        assert [c["id"] for c in one["conversions"]] == ids
        assert set(one["by_genders"]) == {"within", "across"}
        mean = np.mean([c["distance"]["mcd"] for c in one["conversions"]])
        assert one["metrics"]["mcd"]["value"] == pytest.approx(mean)
        assert one["metrics"]["mcd"]["n"] == 2
    assert "world" in page["vocoders"]["stats"]
    assert 0 <= page["judges"]["real"]["eer"]["value"] <= 1
    assert set(page["judges"]["vocoded"]) == {"eer"}


def test_what_is_kept_can_be_judged_alone_and_says_what_it_is(
    page: dict[str, Any], corpus: Corpus
) -> None:
    from mynah.recipes.conversion import watermark
    from mynah.tasks.metrics.conversion import analyse, compare

    found = row(page, "stats")["conversions"][0]
    with soundfile.SoundFile(found["file"]) as file:
        assert "synthetic voice" in file.comment
        assert file.samplerate == watermark.RATE
    (target,) = (u for u in corpus.utterances() if u.id == page["pairs"][0]["target"])
    voices = [
        analyse(soundfile.read(path)[0], sample_rate=RATE) for path in (found["file"], target.path)
    ]
    assert compare(*voices).mcd == pytest.approx(found["distance"]["mcd"], rel=1e-6)
    assert compare(*voices, with_c0=False).mcd == pytest.approx(found["mcd_c1"], rel=1e-6)


def test_heads_add_words_and_voices(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mynah.recipes.probing import job
    from mynah.recipes.probing.settings import Settings

    tones = write_tones(tmp_path / "tones", seconds=0.5, takes=2)
    heads = {}
    for task in ("asr", "asv"):
        settings = Settings(steps=2, learning_rates=(1e-3,), heads="small")
        (result,) = job.run("fbank", task, tones.folder, tmp_path / "runs", settings=settings)
        (name,) = result.heads.values()
        heads[task] = tmp_path / "runs" / "fbank-base" / name
    options = {**SAME, "vocoder": "griffin_lim", "pairs": 3, "same": "mood"}
    out = tmp_path / "h.json"
    assert cli.main(words(corpus, out, "mkl", **options, **heads)) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert {one["method"] for one in found["rows"]} == {UNCHANGED, COPY, TARGET_COPY, ITSELF, "mkl"}
    for one in found["rows"]:
        wanted = {"cer", "wer", "eer", "margin", "f0_off", "accept"}
        if one["method"] != ITSELF:  # its distance to itself says nothing
            wanted |= {"mcd", "mcd_c1", "f0_rmse", "f0_corr", "ddur"}
        if one["method"] in (UNCHANGED, COPY, "mkl"):  # the others have a timing of their own
            wanted |= {"f0_corr_source"}
        assert set(one["metrics"]) - {"rtf"} == wanted
    assert found["verification"]["threshold"] <= 1
    for kind in ("real", "vocoded"):
        assert set(found["judges"][kind]) == {"cer", "eer"}
    assert (
        f"voice:{heads['asv'].name.removesuffix('.head.safetensors')}"
        in (found["rows"][0]["metrics"]["margin"]["signature"])
    )
    real = found["judges"]["real"]["eer"]["value"]
    assert real == pytest.approx(found["verification"]["eer_of_real_trials"])
    chosen = corpus.utterances("test")
    pairs = draw(chosen, sentence="text", same=("mood",), pairs=3, targets=8, own=0, seed=0)
    real = Recordings(tmp_path / "real")
    known = witnesses(chosen, pairs, seed=0)
    panel = Panel(pairs, real, witnesses=known, asv=heads["asv"])
    alone = System(name=TAKE, kind="anchor", files=[real.file(pairs[0].target), None, None])
    assert panel.score(alone).metrics["accept"].n == 1  # one file is enough: all have one threshold
    assert panel.how["threshold"] == found["verification"]["threshold"]
    shown = capsys.readouterr().out
    assert "| method | n | MCD dB |" in shown
    assert "| *target, the parallel recording itself* | 3 | – | – | – | – |" in shown
    assert "errors on real speech: CER" in shown
    assert f"accept: {heads['asv'].name.removesuffix('.head.safetensors')}" in shown
    assert "are dashes" not in shown
    assert not list(tmp_path.glob("**/*.wav.json"))


def test_arguments_that_name_nothing(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.json"
    for methods, options, status, message in (
        (("stats",), {"sentence": "mood", "split": "train"}, 3, "one speaker only, e"),
        (("stats",), {"sentence": "nothing"}, 3, "the label 'nothing'"),
        (("stats",), {"split": "dev"}, 2, "no split 'dev'"),
        (("stat",), {}, 2, "stats"),
        (("adain",), {}, 2, "must be trained first"),
        (("mkl", "mkl"), {}, 2, "every method once"),
        (("mkl",), {"upstream": "fbank"}, 2, "knn is not among the methods"),
        (("mkl",), {"vocoder": "worlds"}, 2, "world"),
        (("mkl",), {"asv": tmp_path / "none"}, 2, "does not exist"),
        (("mkl",), {"keep": corpus.folder}, 2, "not empty"),
    ):
        assert cli.main(words(corpus, out, *methods, **(SAME | options))) == status
        assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_refused_recording_is_named(corpus: Corpus, tmp_path: Path) -> None:
    silent = [dataclasses.replace(u) for u in corpus.utterances()]
    for i, u in enumerate(silent):
        if u.speaker == "b":
            path = tmp_path / f"{i}.wav"
            soundfile.write(path, np.zeros(RATE, np.float32), RATE, subtype="PCM_16")
            silent[i] = dataclasses.replace(u, path=str(path), duration=1.0)
    broken = write_corpus(tmp_path / "broken", silent, name="broken")
    args = judge_methods.Args(
        methods=("stats",),
        corpus=broken.folder,
        out=tmp_path / "x.json",
        vocoder="griffin_lim",
        sentence="text",
    )
    with pytest.raises(BadDataError, match="pair .*silent"):
        judge_methods.main(args)
