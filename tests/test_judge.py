"""``mynah judge vc``: lists, real heads as judges, conversions that are perfect and that are not."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from tones import write_tones

from mynah.recipes import cli, judge
from mynah.recipes.conversion_list import read_list
from mynah.recipes.errors import BadDataError
from mynah.recipes.probing import job
from mynah.recipes.probing.settings import Settings
from mynah.tasks.corpora.audio import read
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.metrics.conversion import analyse, compare
from mynah.tasks.metrics.detection import threshold_at_eer
from mynah.tasks.vc import real_trials

RATE = 16000
VOICES = {"t1": 210.0, "t2": 160.0, "s1": 120.0, "s2": 95.0}
SENTENCES = ("a", "b")


def voice(pitch: float, sentence: str, *, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A buzz whose pitch and formant move as the sentence says."""
    rng = np.random.RandomState(seed)
    time = np.arange(round(0.4 * rate)) / rate
    melody = 1 + 0.15 * np.sin(2 * np.pi * (2.0 if sentence == "a" else 3.5) * time)
    phase = 2 * np.pi * np.cumsum(pitch * melody) / rate
    formant = 700 + 300 * np.sin(2 * np.pi * (3.0 if sentence == "a" else 1.5) * time)
    wave = sum(
        np.exp(-(((k * pitch * melody - formant) / 400) ** 2)) * np.sin(k * phase)
        for k in range(1, 30)
    )
    return (0.1 * wave + 0.001 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    for i, (speaker, pitch) in enumerate(VOICES.items()):
        for sentence in SENTENCES:
            wave = voice(pitch, sentence, seed=i)
            soundfile.write(folder / f"{speaker}-{sentence}.wav", wave, RATE, subtype="FLOAT")
    return folder


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A recogniser, a verifier and a head that is neither, barely trained."""
    corpus = write_tones(tmp_path_factory.mktemp("data") / "tones", seconds=0.5)
    out = tmp_path_factory.mktemp("out")
    found = {}
    for task in ("asr", "asv", "ks"):
        settings = Settings(steps=4, learning_rates=(1e-3,), heads="small")
        (result,) = job.run("fbank", task, corpus.folder, out, settings=settings)
        (name,) = result.heads.values()
        found[task] = out / "fbank-base" / name
    return found


COLUMNS = ("converted", "source", "target", "reference", "text", "source_audio")


def conversions(audio: Path, *, perfect: bool = True) -> list[dict[str, str]]:
    """All sources to all targets; perfect ones are the target's own recordings."""
    return [
        {
            "converted": f"{target if perfect else source}-{sentence}.wav",
            "source": source,
            "target": target,
            "reference": f"{target}-{sentence}.wav",
            "text": f"Sentence {sentence}!",
            "source_audio": f"{source}-{sentence}.wav",
            "id": f"{source}-{target}-{sentence}",
        }
        for source in ("s1", "s2")
        for target in ("t1", "t2")
        for sentence in SENTENCES
    ]


def write_list(folder: Path, rows: list[dict[str, str]], name: str = "list.tsv") -> Path:
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(path: Path, out: Path, *options: object) -> dict[str, Any]:
    words = ["judge", "vc", str(path), "--out", str(out), *map(str, options)]
    assert cli.main(words) == 0
    page: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return page


def values(page: dict[str, Any]) -> dict[str, float]:
    return {name: score["value"] for name, score in page["metrics"].items()}


# -- judging --------------------------------------------------------------------------------------


def test_perfect_conversions(
    audio: Path, heads: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_list(audio, conversions(audio), "perfect.tsv")
    out = tmp_path / "made" / "here.json"
    page = run(path, out, "--asr", heads["asr"], "--asv", heads["asv"])
    found = values(page)
    assert found["mcd"] == pytest.approx(0)
    assert found["f0_rmse"] == pytest.approx(0)
    assert found["f0_corr"] == pytest.approx(1)
    assert found["ddur"] == 0
    assert found["accept"] == 1
    assert found["wer"] > 0  # four updates teach no words
    assert [row["id"] for row in page["rows"]] == [row["id"] for row in conversions(audio)]
    assert page["rows"][0]["distance"]["mcd"] == pytest.approx(0)
    assert page["rows"][0]["text"] == "Sentence a!"
    assert isinstance(page["rows"][0]["transcript"], str)
    assert page["metrics"]["mcd"]["n"] == 8
    assert set(page["by_target"]) == {"t1", "t2"}
    name = heads["asv"].name.removesuffix(".head.safetensors")
    assert f"asv:{name}-" in page["metrics"]["accept"]["signature"]
    how = page["verification"]
    assert (how["target_trials"], how["other_trials"]) == (4, 24)  # of 8 recordings
    assert page["judges"]["threshold"] == how["threshold"]
    shown = capsys.readouterr().out
    assert shown.count("\n") == 7
    assert "accept    100.000" in shown


def test_unconverted_sources_are_far_away(audio: Path, tmp_path: Path) -> None:
    rows = conversions(audio, perfect=False)
    page = run(write_list(audio, rows, "raw.tsv"), tmp_path / "raw.json")
    found = values(page)
    assert set(found) == {"mcd", "f0_rmse", "f0_corr", "ddur"}
    assert found["mcd"] > 1
    assert found["f0_rmse"] > 30
    # by hand, of one row; no range is known of this target
    pair = [
        analyse(soundfile.read(audio / rows[0][name])[0], sample_rate=RATE, f0_range=(71, 800))
        for name in ("converted", "reference")
    ]
    assert page["rows"][0]["distance"]["mcd"] == pytest.approx(compare(*pair).mcd, rel=1e-6)
    superb = run(audio / "raw.tsv", tmp_path / "s.json", "--protocol", "superb")
    assert superb["rows"][0]["distance"]["mcd"] == pytest.approx(
        compare(*pair, exact=False).mcd, rel=1e-6
    )
    assert "dtw:fastdtw-1" in superb["metrics"]["mcd"]["signature"]


def test_the_threshold_is_that_of_real_trials(
    audio: Path, heads: dict[str, Path], tmp_path: Path
) -> None:
    from mynah.recipes.listening import open_listener, utterance_of

    path = write_list(audio, conversions(audio, perfect=False), "raw2.tsv")
    page = run(path, tmp_path / "a.json", "--asv", heads["asv"])
    listener = open_listener(heads["asv"])
    files = sorted(audio.glob("??-?.wav"))
    vectors = [listener.decoded(utterance_of(f, name=f.stem)) for f in files]
    trials, targets = real_trials(vectors, [f.stem[:2] for f in files])  # type: ignore[arg-type]
    threshold = page["verification"]["threshold"]
    eer = page["verification"]["eer_of_real_trials"]
    assert (eer, threshold) == pytest.approx(threshold_at_eer(trials, targets), rel=1e-6)
    by_hand = []
    for row in conversions(audio, perfect=False):
        a, b = (vectors[files.index(audio / row[name])] for name in ("converted", "reference"))
        by_hand.append(float(np.dot(a, b) > threshold))  # type: ignore[arg-type]
    assert values(page)["accept"] == np.mean(by_hand)
    strict = run(path, tmp_path / "b.json", "--asv", heads["asv"], "--threshold", 2)
    assert values(strict)["accept"] == 0
    assert strict["verification"] == {"threshold": 2.0}
    superb = run(path, tmp_path / "c.json", "--asv", heads["asv"], "--protocol", "superb")
    assert superb["verification"]["target_trials"] == 16


def test_without_references(audio: Path, heads: dict[str, Path], tmp_path: Path) -> None:
    """Words and voice can be judged; real trials come from a corpus."""
    rows = [{**row, "reference": "", "source_audio": ""} for row in conversions(audio)]
    path = write_list(audio, rows, "bare.tsv")
    with pytest.raises(BadDataError, match="nothing to score"):
        judge.main(judge.Args(what="vc", list=path, out=tmp_path / "x.json"))
    with pytest.raises(BadDataError, match="real trials need two recordings"):
        judge.main(judge.Args(what="vc", list=path, out=tmp_path / "x.json", asv=heads["asv"]))
    real = corpus_of(audio, tmp_path / "real")
    page = run(path, tmp_path / "o.json", "--asv", heads["asv"], "--asr", heads["asr"],
               "--real", real.folder)  # fmt: skip
    assert set(values(page)) == {"wer", "cer", "accept"}
    assert {row["accepted"] for row in page["rows"]} <= {0.5, 1.0}  # itself, and one other


def corpus_of(audio: Path, folder: Path) -> Corpus:
    from mynah.tasks.corpora.corpus import write_corpus
    from mynah.tasks.corpora.utterance import Utterance

    found = [
        Utterance(id=f.stem, path=str(f), start=0.0, duration=0.4, sample_rate=RATE,
                  speaker=f.stem[:2])
        for f in sorted(audio.glob("??-?.wav"))
    ]  # fmt: skip
    assert len(read(found[0])) == 6400
    return write_corpus(folder, found, name="real")


def test_given_transcripts(audio: Path, heads: dict[str, Path], tmp_path: Path) -> None:
    rows = [{**row, "transcript": "SENTENCE A"} for row in conversions(audio)]
    path = write_list(audio, rows, "told.tsv")
    page = run(path, tmp_path / "o.json")
    assert values(page)["wer"] == pytest.approx(4 / 16)  # half of them are sentence b
    assert values(page)["cer"] == pytest.approx(4 / (8 * 10))
    assert "asr:given" in page["metrics"]["wer"]["signature"]
    with pytest.raises(ValueError, match="leave one of them out"):
        judge.main(judge.Args(what="vc", list=path, out=tmp_path / "x.json", asr=heads["asr"]))


def test_heads_of_other_tasks_are_refused(
    audio: Path, heads: dict[str, Path], tmp_path: Path
) -> None:
    path = write_list(audio, conversions(audio), "heads.tsv")
    args = judge.Args(what="vc", list=path, out=tmp_path / "x.json")
    with pytest.raises(ValueError, match="a head of ks: --asr needs one that is scored by wer"):
        judge.main(dataclasses.replace(args, asr=heads["ks"]))
    with pytest.raises(ValueError, match="a head of asr: --asv needs one that is scored by eer"):
        judge.main(dataclasses.replace(args, asv=heads["asr"]))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        judge.main(dataclasses.replace(args, asv=tmp_path / "none"))
    assert not args.out.exists()


def test_rates_that_differ(audio: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "fast.wav", voice(200.0, "a", rate=24000), 24000, subtype="FLOAT")
    row = {**conversions(audio)[0], "converted": str(tmp_path / "fast.wav")}
    path = write_list(audio, [row], "fast.tsv")
    args = judge.Args(what="vc", list=path, out=tmp_path / "x.json")
    with pytest.raises(ValueError, match=r"24000 Hz and .*t1-a.wav 16000.*--rate"):
        judge.main(args)
    page = run(path, args.out, "--rate", 16000)
    assert page["rate"] == 16000
    assert page["metrics"]["mcd"]["value"] > 0


def test_audio_that_cannot_be_judged(audio: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(9600, np.float32), RATE)
    for file, why in (("silence.wav", "silence"), ("none.wav", "cannot be opened")):
        row = {**conversions(audio)[0], "converted": str(tmp_path / file)}
        path = write_list(audio, [row], "bad.tsv")
        with pytest.raises(BadDataError, match=f"{file}.*{why}"):
            judge.main(judge.Args(what="vc", list=path, out=tmp_path / "x.json"))
    twice = [conversions(audio)[0]] * 2
    path = write_list(audio, twice, "twice.tsv")
    with pytest.raises(BadDataError, match="given twice: s1-t1-a"):
        judge.main(judge.Args(what="vc", list=path, out=tmp_path / "x.json"))


# -- lists ----------------------------------------------------------------------------------------


def test_a_list_is_read(tmp_path: Path) -> None:
    path = tmp_path / "list.tsv"
    path.write_text(
        "text\ttarget\tsource\treference\tconverted\tf0_min\tf0_max\n"
        "Grüße\tt\ts\t\twav/a.wav\t80\t300.5\n"
        "\n"
        "\tt\ts\tr.wav\t/abs/b.wav\t\t\n",
        encoding="utf-8",
    )
    first, second = read_list(path)
    assert (first.id, first.text, first.reference) == ("wav/a.wav", "Grüße", None)
    assert first.converted == tmp_path / "wav" / "a.wav"
    assert first.f0_range == (80.0, 300.5)
    assert (second.text, second.transcript, second.f0_range) == (None, None, None)
    assert (second.converted, second.reference) == (Path("/abs/b.wav"), tmp_path / "r.wav")


HEADER = "converted\tsource\ttarget\treference\ttext"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name each column once.*missing: converted, source"),
        (HEADER, "lists no conversion"),
        (HEADER + "\tmood\n", "unknown: mood"),
        (HEADER + "\ttext\n", "must name each column once"),
        ("converted\tsource\ttarget\ttext\n", "missing: reference"),
        (HEADER + "\na\tb\tc\td\n", "list.tsv:2: 4 cells, the header has 5"),
        (HEADER + "\n\tb\t\td\te\n", "list.tsv:2: without converted and target"),
        (HEADER + "\tf0_min\tf0_max\na\tb\tc\td\te\t80\t\n", "f0_min and f0_max go together"),
        (HEADER + "\tf0_min\tf0_max\na\tb\tc\td\te\t80\tx\n", "list.tsv:2: could not convert"),
        (HEADER + "\tf0_min\tf0_max\na\tb\tc\td\te\t80\t70\n", "0 < f0_min < f0_max"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadDataError, match=message):
        read_list(path)


def test_a_list_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "list.tsv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadDataError, match="not UTF-8"):
        read_list(path)
    with pytest.raises(FileNotFoundError):
        read_list(tmp_path / "none.tsv")
