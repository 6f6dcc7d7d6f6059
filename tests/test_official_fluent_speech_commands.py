"""Fluent Speech Commands: three tables, three slots."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, read, sound

from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.utterance import Utterance

HEADER = ",path,speakerId,transcription,action,object,location"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    home = tmp_path / "fluent_speech_commands_dataset"
    for name in ("a1", "a2", "b1", "c1"):
        sound(home / f"wavs/speakers/s{name[0]}/{name}.wav")
    lines(
        home / "data/train_data.csv",
        HEADER,
        "0,wavs/speakers/sa/a1.wav,sa,Change language,change language,none,none",
        '1,wavs/speakers/sa/a2.wav,sa,"Please, more heat",increase,heat,kitchen',
    )
    lines(
        home / "data/valid_data.csv",
        HEADER,
        "0,wavs/speakers/sb/b1.wav,sb,Heat up,increase,heat,none",
    )
    lines(
        home / "data/test_data.csv",
        HEADER,
        "0,wavs/speakers/sc/c1.wav,sc,Kitchen heat,increase,heat,kitchen",
    )
    return home


def test_what_is_read(source: Path) -> None:
    got = read("fluent_speech_commands", source)
    assert got.messages == []
    assert (got.of("train"), got.of("dev"), got.of("test")) == (["a1", "a2"], ["b1"], ["c1"])
    assert got.by_id["a2"] == Utterance(
        id="a2", path=str(source / "wavs/speakers/sa/a2.wav"), start=0.0, duration=0.1,
        sample_rate=16000, speaker="sa", text="Please, more heat", split="train",
        labels={"action": "increase", "object": "heat", "location": "kitchen"},
    )  # fmt: skip
    assert got.by_id["a1"].labels["location"] == "none"  # not said is a class, not a missing label


def test_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("fluent_speech_commands", source, tmp_path / "out") == 0
    shown = capsys.readouterr().err
    assert "test: 1, published 3793" in shown
    assert "distinct object: 2, published 14" in shown
    assert Corpus.open(tmp_path / "out").labels == (
        "action", "location", "object", "speaker", "text",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sc/c1.wav", "sc/gone.wav", "gone.wav': cannot be opened"),
        ("increase,heat", "sing,heat", "test_data.csv:2: error: train has no action 'sing'"),
        ("heat,kitchen", "heat,", "test_data.csv:2: error: no location; a slot that is not said"),
        ("heat,kitchen", "heat", "test_data.csv:2: error: 6 cells, the header has 7"),
        ("sc/c1.wav", "sa/a1.wav", "id 'a1' is there twice, first at train_data.csv:2"),
        ("wavs/speakers/sc/c1.wav", "../../c1.wav", "../../c1.wav leads outside"),
    ],
)
def test_faults(source: Path, old: str, new: str, message: str) -> None:
    path = source / "data/test_data.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    got = read("fluent_speech_commands", source)
    assert [m for m in got.messages if message in m], got.messages
    assert got.of("test") == []
    assert len(got.problems.skipped) == 1


def test_what_is_missing_is_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "data/valid_data.csv").unlink()
    assert prepare("fluent_speech_commands", source, source / "out") == 2
    assert "missing: data/valid_data.csv. It comes from fluent.ai" in capsys.readouterr().err
    lines(source / "data/valid_data.csv", HEADER.replace("speakerId", "speaker"))
    assert prepare("fluent_speech_commands", source, source / "out") == 2
    assert "valid_data.csv:1: wanted one column 'speakerId'" in capsys.readouterr().err
