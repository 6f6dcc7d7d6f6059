"""``mynah judge methods``: which pairs are drawn, what bounds what, intervals by hand, and refusals."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from method_pages import row, value, words
from sayings import RATE, made
from tones import write_tones

from mynah.downstream import conversion
from mynah.downstream.conversion.core.contract import Heard, Sizes
from mynah.downstream.core.melspec import MelSpec
from mynah.recipes import cli, judge_methods
from mynah.recipes.conversion.checks import SHORTEST
from mynah.recipes.conversion.method_scores import Panel, perplexity
from mynah.recipes.conversion.pair_intervals import interval
from mynah.recipes.conversion.pairs import ENOUGH, draw, witnesses
from mynah.recipes.conversion.systems import (
    COPY,
    ITSELF,
    TAKE,
    TARGET_COPY,
    UNCHANGED,
    Recordings,
    System,
    code_ids,
)
from mynah.recipes.errors import BadDataError
from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.metrics import detection
from mynah.tasks.metrics.mean import mean_metric

SAME = {"sentence": "text"}  # the label of sentences that speakers share


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return made(tmp_path_factory.mktemp("speech") / "audio")


# -- pairs ----------------------------------------------------------------------------------------


def test_pairs_are_deterministic_and_even(corpus: Corpus) -> None:
    utterances = corpus.utterances()
    found = draw(utterances, sentence="text", pairs=40, seed=3)
    assert found == draw(list(reversed(utterances)), sentence="text", pairs=40, seed=3)
    assert found != draw(utterances, sentence="text", pairs=40, seed=4)
    assert len({p.id for p in found}) == 40
    two = [(p.source.speaker, p.target.speaker) for p in found]
    # 20 of two speakers: 8 within (ab, ba, and 6 of cde) and 12 across, three sentences each
    assert {two.count(one) for one in two} <= {1, 2, 3}
    assert len(set(two)) == 20
    assert [p.genders for p in found[:6]] == ["across", "within"] * 3
    assert draw(utterances, sentence="text", pairs=5, seed=3) == found[:5]
    every = draw(utterances, sentence="text", pairs=1000)
    assert len(every) == 20 * 3 * 2  # of two takes of each sentence
    for one in set(two):  # every sentence before the second take of any
        own = [p for p in every if (p.source.speaker, p.target.speaker) == one]
        assert [len({p.source.text for p in part}) for part in (own[:3], own[3:])] == [3, 3]
        assert len({p.source.id for p in own}) == len({p.target.id for p in own}) == 6


def test_pairs_are_what_they_are_said_to_be(corpus: Corpus) -> None:
    for pair in draw(corpus.utterances(), sentence="text", pairs=1000, targets=1, own=2):
        source, target = pair.source, pair.target
        assert source.speaker != target.speaker
        assert source.text == target.text
        assert {u.speaker for u in pair.references} == {target.speaker}
        assert {u.speaker for u in pair.own} == {source.speaker}
        assert source.text not in {u.text for u in (*pair.references, *pair.own)}
        assert sum(u.duration for u in pair.references) >= ENOUGH  # one reference is not enough
        assert len({u.id for u in pair.references}) == len(pair.references) == 4
        assert len(pair.own) == 2
        assert pair.again is not None
        assert pair.again.id != target.id
        assert (pair.again.speaker, pair.again.text) == (target.speaker, target.text)
        assert (source.label("gender") == target.label("gender")) == (pair.genders == "within")


def test_labels_that_pairs_share(corpus: Corpus) -> None:
    for pair in draw(corpus.utterances(), sentence="text", same=("mood",), pairs=100, own=1):
        shared = {u.label("mood") for u in (pair.target, *pair.references, *pair.own)}
        assert shared == {pair.source.label("mood")}
        assert pair.again is None  # the other take is of another mood


def test_short_recordings_are_left_out_and_genders_may_be_unknown(corpus: Corpus) -> None:
    short = [
        dataclasses.replace(u, labels={}, duration=0.9 * SHORTEST if u.speaker == "a" else 1.0)
        for u in corpus.utterances()
    ]
    found = draw(short, sentence="text", pairs=100)
    assert {p.source.speaker for p in found} == set("bcde")
    assert {p.target.speaker for p in found} == set("bcde")  # it is copied as well
    assert {p.genders for p in found} == {None}


def test_witnesses_are_first_those_that_no_converter_hears(corpus: Corpus) -> None:
    utterances = corpus.utterances()
    pairs = draw(utterances, sentence="text", pairs=2, targets=1)
    found = witnesses(utterances, pairs, count=3)
    assert found == witnesses(utterances, pairs, count=3)
    speakers = {u.speaker for p in pairs for u in (p.source, p.target)}
    heard = {u.id for p in pairs for u in (p.source, *p.references)}
    for speaker in speakers:
        own = [u for u in found if u.speaker == speaker]
        free = [u for u in utterances if u.speaker == speaker and u.id not in heard]
        assert len(own) == 3
        assert sum(u.id not in heard for u in own) == min(3, len(free))


def test_corpora_without_pairs(corpus: Corpus) -> None:
    utterances = corpus.utterances()
    one = [u for u in utterances if u.speaker == "a"]
    apart = [dataclasses.replace(u, text=f"{u.speaker} {u.text}") for u in utterances]
    only = [u for u in utterances if u.text == "one"]
    for given, message in (
        (utterances[:0], "none of 0 utterances"),
        (one, "one speaker only, a: .*--split"),
        (apart, "no two speakers share a 'text' and say others.*30 utterances of 5 speakers"),
        (only, "no two speakers share"),  # nothing is left to know a target by
    ):
        with pytest.raises(ValueError, match=message):
            draw(given, sentence="text")
    with pytest.raises(ValueError, match="both a speaker and the label 'words'.*--sentence"):
        draw(utterances, sentence="words")
    with pytest.raises(ValueError, match="at least 1"):
        draw(utterances, sentence="text", pairs=0)


# -- scores ---------------------------------------------------------------------------------------


def test_intervals_draw_speakers_and_a_pair_needs_both() -> None:
    metric = mean_metric("x", higher_is_better=False)
    names = "abcde"
    speakers = [(a, b) for a in names for b in names if a != b]
    # a conversion is as bad as its target: by hand, the mean of a draw is a sum of products
    values = [float(names.index(b)) for _, b in speakers]
    found = interval(metric, [""] * 20, list(map(repr, values)), speakers, resamples=500, seed=7)
    counts_RS = np.random.default_rng(7).multinomial(5, np.full(5, 0.2), size=500)
    by_hand = []
    for counts in counts_RS:
        weights = [counts[names.index(a)] * counts[names.index(b)] for a, b in speakers]
        if sum(weights):
            by_hand.append(np.dot(weights, values) / sum(weights))
    assert found.value == 2.0
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])))
    assert (found.n, found.units, found.unit) == (20, 5, "speaker")
    assert "ci:speaker-pair-bootstrap-500" in found.signature
    few = interval(metric, [""] * 2, ["1.0", "2.0"], [("a", "b"), ("b", "a")])
    assert (few.value, few.low, few.high, few.unit) == (1.5, 1.0, 2.0, "conversion")


def test_intervals_of_a_ranking() -> None:
    labels = [detection.TARGET] * 3 + [detection.NONTARGET] * 3
    scores = ["0.9", "0.8", "0.3", "0.5", "0.2", "0.1"]
    speakers = [(c, c) for c in "abc"] + [("d", "a"), ("e", "b"), ("d", "c")]
    found = interval(detection.eer(), labels, scores, speakers)
    assert found.value == pytest.approx(1 / 3)
    assert found.low <= found.value <= found.high


def test_perplexity() -> None:
    assert perplexity([5, 5, 5, 5]) == pytest.approx(4)
    assert perplexity([3, 1]) == pytest.approx(
        math.exp(-(0.75 * math.log(0.75)) - 0.25 * math.log(0.25))
    )
    assert perplexity([]) is None


@pytest.mark.parametrize("method", ["vq", "gumbel", "binary", "autoencoder"])
def test_codes_are_told_apart(method: str) -> None:
    module = conversion.get(method)
    sizes = Sizes(dim=12, spec=MelSpec(num_mels=12), speakers=2)
    options = {"codes": 8} if method in ("vq", "gumbel") else {}
    config = module.Config(hidden=8, code=3, voice=4, **options)
    torch.manual_seed(0)
    converter = module.CONVERTER(config, sizes).eval()
    mel_TM = torch.randn(60, 12)
    code_TC = converter.encode_content(Heard(x_TD=mel_TM, mel_TM=mel_TM)).detach()
    found = code_ids(converter, code_TC)
    if method == "autoencoder":
        assert found == []
        return
    assert len(found) == 60
    apart = torch.cdist(code_TC, code_TC) > 1e-3
    for i, j in pairwise(range(60)):
        assert (found[i] != found[j]) == bool(apart[i, j])


# -- the command ----------------------------------------------------------------------------------


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
