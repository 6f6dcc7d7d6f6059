"""SBCSAE as its preprocessing leaves it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, read, sound

from mynah.tasks.corpora.utterance import Utterance

ROWS = {
    "train": ("SBC009_000000-000020", "AM I DOING THAT RIGHT"),
    "dev": ("SBC047_020175-020190", "ALL I NEED"),
    "test": ("SBC060_081976-081990", "WELL THAT'S IT"),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for split, (name, sentence) in ROWS.items():
        hundredths = int(name[-6:]) - int(name[7:13])
        sound(tmp_path / f"SBCSAE/wav/{name}.wav", hundredths / 100 + 1 / 16000)
        lines(tmp_path / f"SBCSAE/{split}.tsv", "path\tsentence", f"{name}.wav\t{sentence}")
    return tmp_path / "SBCSAE"


def test_what_is_read(source: Path) -> None:
    got = read("sbcsae", source)
    assert got.messages == []
    assert got.by_id["SBC009_000000-000020"] == Utterance(
        id="SBC009_000000-000020", path=str(source / "wav/SBC009_000000-000020.wav"), start=0.0,
        duration=3201 / 16000, sample_rate=16000, text="AM I DOING THAT RIGHT", split="train",
        labels={"session": "SBC009", "language": "en"},
    )  # fmt: skip
    assert [u.split for u in got.by_id.values()] == ["train", "dev", "test"]


def test_tables_with_crlf_in_a_folder_of_their_own(source: Path) -> None:
    (source / "tsv").mkdir()
    for split in ROWS:
        text = (source / f"{split}.tsv").read_bytes().replace(b"\n", b"\r\n")  # as csv writes them
        (source / "tsv" / f"{split}.tsv").write_bytes(text)
        (source / f"{split}.tsv").unlink()
    got = read("sbcsae", source)
    assert len(got.by_id) == 3
    assert len(got.problems.errors) == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("SBC047_020175-020190.wav\tALL I NEED", "recording 047 does not belong to test"),
        ("SBC060_081976-081990.wav\tWell", "wanted upper-case letters, ' and spaces, got 'Well'"),
        ("SBC060_081976-081990.wav\t", "wanted upper-case letters"),
        ("SBC60.wav\tWELL", "wanted SBCnnn_START-END.wav, got 'SBC60.wav'"),
        ("SBC060_081976-081990.wav", "1 cells, the header has 2"),
        ("SBC060_000000-000100.wav\tWELL", "cannot be opened"),
        ("SBC060_081900-081990.wav\tWELL", "but 0.9 s are declared"),
    ],
)
def test_faults(source: Path, row: str, message: str) -> None:
    if "0.9 s" in message:
        (source / "wav/SBC060_081976-081990.wav").rename(source / "wav/SBC060_081900-081990.wav")
    lines(source / "test.tsv", "path\tsentence", row)
    got = read("sbcsae", source)
    assert [m for m in got.messages if m.startswith("test.tsv:2: error: ") and message in m]
    assert got.of("test") == []


def test_a_clip_listed_twice(source: Path) -> None:
    name, sentence = ROWS["test"]
    lines(source / "test.tsv", "path\tsentence", *[f"{name}.wav\t{sentence}"] * 2)
    got = read("sbcsae", source)
    assert got.messages == [f"test.tsv:3: error: id '{name}' is there twice, first at test.tsv:2"]


def test_what_is_missing_is_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "dev.tsv").unlink()
    assert prepare("sbcsae", source, source / "out") == 2
    assert "missing: dev.tsv or tsv/dev.tsv. It comes from linguistics" in capsys.readouterr().err
    assert prepare("sbcsae", source, source / "out", "--strict") == 2
