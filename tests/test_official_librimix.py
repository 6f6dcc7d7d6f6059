"""Libri2Mix: turns of diarisation from rttm, mixtures with their sources, SUPERB's dev subset."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, read, sound

from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.official import librimix
from mynah.tasks.corpora.utterance import Interval, Utterance


@pytest.fixture
def diarisation(tmp_path: Path) -> Path:
    """Kaldi folders whose audio lies elsewhere, one recording each."""
    home = tmp_path / "diarization"
    for split in ("train", "dev", "test"):
        rec = f"{split}-rec"
        audio = sound(tmp_path / "wav" / split / f"{rec}.wav", 1.0)
        lines(home / split / "wav.scp", f"{rec} {audio}")
        lines(home / split / "reco2dur", f"{rec} 1.0")
        lines(
            home / split / "rttm",
            f"SPEAKER {rec} 1 0.4 0.6 <NA> <NA> 1240 <NA>",
            f"SPEAKER {rec} 1 0.0 0.5 <NA> <NA> 61 <NA>",
            f"SPEAKER {rec} 1 0.70 0.30 <NA> <NA> 61 <NA>",
        )
    return home


def test_turns_become_timed_labels(diarisation: Path, tmp_path: Path) -> None:
    got = read("librimix", diarisation, "sd", audio_root=[tmp_path / "wav"])
    assert got.messages == []
    assert got.by_id["dev-rec"] == Utterance(
        id="dev-rec", path=str(tmp_path / "wav/dev/dev-rec.wav"), start=0.0, duration=1.0,
        sample_rate=16000, split="dev",
        intervals={"speakers": (
            Interval("61", 0.0, 0.5), Interval("1240", 0.4, 1.0), Interval("61", 0.7, 1.0),
        )},
    )  # fmt: skip
    root = ["--variant", "sd", "--audio-root", tmp_path / "wav"]
    assert prepare("librimix", diarisation, tmp_path / "out", *root) == 0
    corpus = Corpus.open(tmp_path / "out")
    assert (corpus.name, corpus.splits) == ("librimix-sd", ("dev", "test", "train"))
    kept = corpus.utterances("dev")[0].intervals["speakers"]
    assert [(i.symbol, i.start, i.end) for i in kept] == [("61", 0.0, 0.5), ("1240", 0.4, 1.0), ("61", 0.7, 1.0)]  # fmt: skip


def test_audio_elsewhere_needs_a_root(
    diarisation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare("librimix", diarisation, tmp_path / "out", "--variant", "sd") == 3
    shown = capsys.readouterr().err
    assert "train-rec.wav leads outside the data folder" in shown
    assert f"--audio-root {tmp_path / 'wav'}" in shown


@pytest.mark.parametrize(
    ("file", "rows", "message"),
    [
        ("rttm", ["SPEAKER dev-rec 1 0 1 <NA> <NA> 61 <NA>"], "dev/wav.scp:1: error: the rttm has 1 speakers of it, wanted 2"),
        ("rttm", [";; nothing"], "dev/wav.scp:1: error: the rttm has 0 speakers of it, wanted 2"),
        ("rttm", ["SPEAKER dev-rec 1 0 1 <NA> <NA> a", "SPEAKER dev-rec 1 0.5 0 <NA> <NA> b"], "dev/rttm:2: error: a turn needs a start from 0 on and a length"),
        ("rttm", ["SPEAKER dev-rec 1 0 x <NA> <NA> a"], "dev/rttm:1: error: could not convert string to float: 'x'"),
        ("rttm", ["SPEAKER dev-rec 1 0"], "dev/rttm:1: error: wanted SPEAKER, recording, 1, start, seconds"),
        ("rttm", ["SPEAKER other 1 0 1 <NA> <NA> a"], "dev/rttm:1: error: recording 'other' is not in wav.scp"),
        ("rttm", ["SPEAKER dev-rec 1 0 1 <NA> <NA> a", "SPEAKER dev-rec 1 0.5 0.6 <NA> <NA> b"], "dev/wav.scp:1: error: a turn ends at 1.100 s, the recording at 1.000 s"),
        ("reco2dur", ["dev-rec 2.0"], "but 2 s are declared"),
        ("wav.scp", ["dev-rec touch x |"], "dev/wav.scp:1: error: a pipe is refused"),
        ("wav.scp", ["dev-rec gone.wav"], "gone.wav': cannot be opened"),
    ],
)  # fmt: skip
def test_faults_of_diarisation(
    diarisation: Path, tmp_path: Path, file: str, rows: list[str], message: str
) -> None:
    lines(diarisation / "dev" / file, *rows)
    got = read("librimix", diarisation, "sd", audio_root=[tmp_path / "wav"])
    assert [m for m in got.messages if message in m], got.messages
    assert got.of("dev") == []
    assert (got.of("train"), got.of("test")) == (["train-rec"], ["test-rec"])
    assert "dev-rec" in got.problems.skipped


@pytest.fixture
def separation(tmp_path: Path) -> Path:
    home = tmp_path / "Libri2Mix"
    for part in ("train-100", "dev", "test"):
        for kind in ("mix_clean", "s1", "s2"):
            for take in range(2):
                sound(home / "wav16k/min" / part / kind / f"{part}-{take}_b.wav")
    return home


def test_mixtures_with_their_sources(separation: Path) -> None:
    got = read("librimix", separation, "ss")
    assert got.messages == []
    assert got.of("train") == ["train-100-0_b", "train-100-1_b"]
    assert len(got.by_id) == 6
    part = separation / "wav16k/min/train-100"
    assert got.by_id["train-100-1_b"] == Utterance(
        id="train-100-1_b", path=str(part / "mix_clean/train-100-1_b.wav"), start=0.0,
        duration=0.1, sample_rate=16000, split="train",
        labels={"s1": str(part / "s1/train-100-1_b.wav"), "s2": str(part / "s2/train-100-1_b.wav")},
    )  # fmt: skip


def test_dev_is_the_published_subset(separation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{i:04d}" for i in range(3000)]
    chosen = librimix.dev_subset(names[::-1])
    random.seed(7)
    shuffled = list(names)
    random.shuffle(shuffled)
    assert chosen == set(shuffled[:1000])
    monkeypatch.setattr(librimix, "DEV_SIZE", 1)
    got = read("librimix", separation, "ss")
    assert (len(got.of("dev")), len(got.of("train"))) == (1, 2)
    assert got.found.left_out == {"dev mixtures outside SUPERB's 1": 1}


def test_faults_of_separation(separation: Path, tmp_path: Path) -> None:
    part = separation / "wav16k/min/test"
    (part / "s1/test-0_b.wav").unlink()
    sound(part / "s2/test-1_b.wav", 0.2)
    outside = sound(tmp_path / "elsewhere/x.wav")
    (separation / "wav16k/min/train-100/s2/train-100-0_b.wav").unlink()
    (separation / "wav16k/min/train-100/s2/train-100-0_b.wav").symlink_to(outside)
    got = read("librimix", separation, "ss")
    assert got.problems.skipped.keys() == {"test-0_b", "test-1_b", "train-100-0_b"}
    shown = "\n".join(got.messages)
    assert "s1/test-0_b.wav': cannot be opened" in shown
    assert "s2 has 16000 Hz, 3200 samples, 1 channels; the utterance has 16000 Hz, 1600" in shown
    assert "train-100-0_b.wav leads outside the data folder" in shown
    assert len(read("librimix", separation, "ss", audio_root=[tmp_path]).by_id) == 4


def test_the_kind_must_be_said(separation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("librimix", separation, separation / "out") == 2
    assert "librimix has several kinds; say which: --variant sd | ss" in capsys.readouterr().err
    assert prepare("librimix", separation, separation / "out", "--variant", "sd") == 2
    assert "missing: train/wav.scp, train/rttm, dev/wav.scp" in capsys.readouterr().err
