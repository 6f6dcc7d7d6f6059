"""VCTK: who is held out, which microphone, what a speaker lacks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, read, sound

from mynah.tasks.corpora.official.vctk import held_out
from mynah.tasks.corpora.utterance import Utterance

PLEASE = "Please call Stella."
BELLS = "Ask her to bring these things."
WOMEN = [f"p{n}" for n in range(225, 237)]
MEN = ["p254", "p280", "p315"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve women, and men of whom one lacks a microphone and one the texts."""
    home = tmp_path / "VCTK-Corpus-0.92"
    first = sound(home / "first.flac", 0.05, rate=48000)
    told = ["ID  AGE  GENDER  ACCENTS  REGION COMMENTS"]
    for speaker in (*WOMEN, *MEN):
        told.append(f"{speaker}  23  {'F' if speaker in WOMEN else 'M'}    English    Surrey")
        for number, text in (("001", PLEASE), ("002", BELLS)):
            if speaker != "p315":
                lines(home / f"txt/{speaker}/{speaker}_{number}.txt", text)
                (home / f"txt/{speaker}/._{speaker}_{number}.txt").write_bytes(b"\x00\xff[")
            for microphone in ("mic1", "mic2"):
                if (speaker, microphone) in {("p280", "mic2"), ("p315", "mic2")}:
                    continue
                path = (
                    home / f"wav48_silence_trimmed/{speaker}/{speaker}_{number}_{microphone}.flac"
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(first.read_bytes())
    first.unlink()
    lines(home / "speaker-info.txt", *told)
    return home


def test_what_is_read(source: Path) -> None:
    got = read("vctk", source)
    assert got.messages == []
    assert len(got.by_id) == 2 * 13
    assert got.by_id["p225_001"] == Utterance(
        id="p225_001", path=str(source / "wav48_silence_trimmed/p225/p225_001_mic2.flac"), start=0.0,
        duration=0.05, sample_rate=48000, speaker="p225", text=PLEASE, split="test",
        labels={"gender": "f", "accent": "English", "sentence": "001"},
    )  # fmt: skip
    assert got.found.left_out == {
        "speakers without texts: p315": 1,
        "speakers without mic2: p280": 1,
    }


def test_the_other_microphone(source: Path) -> None:
    got = read("vctk", source, "mic1")
    assert got.by_id["p280_002"].path.endswith("p280/p280_002_mic1.flac")
    assert len(got.by_id) == 2 * 14


def test_speakers_are_held_out_within_each_gender() -> None:
    split = held_out({**dict.fromkeys(WOMEN, "f"), **dict.fromkeys(MEN, "m")})
    assert [s for s in split if split[s] == "test"] == ["p225", "p235", "p254"]
    assert [s for s in split if split[s] == "dev"] == ["p226", "p236", "p280"]


def test_faults(source: Path) -> None:
    (source / "wav48_silence_trimmed/p227/p227_002_mic2.flac").unlink()
    lines(source / "txt/p228/p228_001.txt", " ")
    info = source / "speaker-info.txt"
    info.write_text(info.read_text().replace("p229  23  F ", "p229  23  X "))
    got = read("vctk", source)
    assert got.messages == [
        "speaker-info.txt:6: error: wanted ID AGE F|M ACCENT, got 'p229  23  X    English    Surrey'",
        "wav48_silence_trimmed/p229: error: speaker-info.txt does not say this speaker's gender",
        "txt/p228/p228_001.txt: error: the text is empty",
    ]
    assert got.found.left_out["sentences that were not recorded with mic2"] == 1
    assert "p228_001" in got.problems.skipped


def test_another_layout_is_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "wav48_silence_trimmed").rename(source / "wav48")
    assert prepare("vctk", source, source / "out") == 2
    assert "missing: wav48_silence_trimmed/. It comes from datashare" in capsys.readouterr().err
