"""Common Voice: rows of an accent, text rules per language, clips."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, read, sound

from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.official.commonvoice_text import normalise
from mynah.tasks.corpora.utterance import Utterance

HEADER = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent\tlocale\tsegment"


def row(name: str, sentence: str, accent: str = "mexicano", locale: str = "es") -> str:
    return f"who-{name}\t{name}.mp3\t{sentence}\t2\t0\t\tfemale\t{accent}\t{locale}\t"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A release with the Spanish folder."""
    home = tmp_path / "cv-corpus-7.0-2021-07-21"
    rows = {
        "train": [row("a1", "¿Qué pasa, señor?"), row("a2", "Otra vez", "andino")],
        "dev": [row("b1", '"Él dijo ""sí"" y se fue."'), row("b2", "消 aqui")],
        "test": [row("c1", "Vámonos — ya")],
    }
    for split, table in rows.items():
        lines(home / f"es/{split}.tsv", HEADER, *table)
        for line in table:
            sound(home / "es/clips" / line.split("\t")[1], 0.3, rate=32000)
    return home


def test_what_is_read(source: Path) -> None:
    got = read("commonvoice", source, "es")
    assert got.messages == []
    assert got.found.left_out == {
        "accent is not mexicano": 1, "the sentence is dropped by the text rules": 1,
    }  # fmt: skip
    a1 = got.by_id["a1"]
    assert a1 == Utterance(
        id="a1", path=str(source / "es/clips/a1.mp3"), start=0.0, duration=a1.duration,
        sample_rate=32000, speaker="who-a1", text="QUÉ PASA SEÑOR", split="train",
        labels={"language": "es", "accent": "mexicano", "gender": "female"},
    )  # fmt: skip
    assert (got.by_id["b1"].text, got.by_id["c1"].text) == ("ÉL DIJO SÍ Y SE FUE", "VÁMONOS YA")
    assert read("commonvoice", source / "es", "es").by_id == got.by_id


def test_converted_clips_and_later_releases(source: Path) -> None:
    (source / "es/clips/c1.mp3").unlink()
    sound(source / "es/clips/c1.wav", 0.3)
    lines(
        source / "es/test.tsv",
        HEADER.replace("accent", "accents"),
        row("c1", "Hola"),
    )
    got = read("commonvoice", source, "es")
    assert got.messages == []
    assert got.by_id["c1"].path.endswith("clips/c1.wav")
    assert got.by_id["c1"].labels["accent"] == "mexicano"


def test_faults(source: Path) -> None:
    (source / "es/clips/c1.mp3").unlink()
    with (source / "es/dev.tsv").open("ab") as file:
        file.write(f"{row('a1', 'Hola')}\n{row('b3', 'Hola', locale='pt')}\nx\ty\n".encode())
        file.write(b"caf\xe9\tb4.mp3\n")
    got = read("commonvoice", source, "es")
    shown = "\n".join(got.messages)
    assert "test.tsv:2: error: no clip c1.mp3; looked in" in shown
    assert "dev.tsv:4: error: id 'a1' is there twice, first at train.tsv:2" in shown
    assert "dev.tsv:5: error: wanted is es, the row is in 'pt'" in shown
    assert "dev.tsv:6: error: 2 cells, the header has 10" in shown
    assert "dev.tsv:7: error: the line is not UTF-8 (byte 4)" in shown
    assert list(got.by_id) == ["b1"]


def test_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("commonvoice", source, tmp_path / "out", "--variant", "es") == 0
    assert Corpus.open(tmp_path / "out").name == "commonvoice-es"
    assert prepare("commonvoice", source, tmp_path / "out") == 2
    assert "say which: --variant es | zh-CN | ar" in capsys.readouterr().err
    assert prepare("commonvoice", source, tmp_path / "out", "--variant", "ar") == 2
    shown = capsys.readouterr().err
    assert "not Common Voice (ar) as it is unpacked; missing: train.tsv, dev.tsv, test.tsv" in shown


def test_the_folder_of_another_language(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare("commonvoice", source / "es", tmp_path / "out", "--variant", "ar") == 3
    assert "train.tsv:2: error: wanted is ar, the row is in 'es'" in capsys.readouterr().err


def test_nothing_that_the_protocol_takes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "dev", "test"):
        file = source / f"es/{part}.tsv"
        file.write_text(file.read_text(encoding="utf-8").replace("mexicano", "andino"))
    assert prepare("commonvoice", source, tmp_path / "out", "--variant", "es") == 3
    shown = capsys.readouterr().err
    assert re.search(r"no utterance is left\n  left out: \d+ \(accent is not mexicano\)", shown)
    for part in ("train", "dev", "test"):
        file = source / f"es/{part}.tsv"
        file.write_text(file.read_text(encoding="utf-8").replace("accent", "region"))
    assert prepare("commonvoice", source, tmp_path / "out", "--variant", "es") == 2
    assert "es is chosen by accent, there is no such column" in capsys.readouterr().err


def test_a_relative_source(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    got = read("commonvoice", Path(source.name), "es")
    assert got.messages == []
    assert got.by_id["a1"].path == str(source / "es/clips/a1.mp3")


# -- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "language", "wanted"),
    [
        ("¿Qué  tal?", "es", "QUÉ TAL"),
        ("l’amor d'ella", "es", "L'AMOR D'ELLA"),
        ("ＡＢ１", "es", "AB1"),  # NFKC makes full width narrow
        ("e\u0301l", "es", "ÉL"),  # and composes accents
        ("a\u0301\u0303b", "es", "Á B"),  # what is left of them goes
        ("uno–dos—tres", "es", "UNO DOS TRES"),
        ("良 día", "es", None),
        ("...", "es", None),
        ("你 好，世界。", "zh-CN", "你好世界"),
        ("ㄧ个", "zh-CN", "一个"),
        ("你好 ok", "zh-CN", None),
        ("你'好", "zh-CN", None),
        ("カ你好", "zh-CN", None),
        ("「你」・好〜", "zh-CN", "你好"),
        ("مرحبا، يا صديقي؟", "ar", "مرحبا يا صديقي"),
        ("مرحبا a", "ar", None),
    ],
)
def test_text(sentence: str, language: str, wanted: str | None) -> None:
    assert normalise(sentence, language) == wanted


def test_rules_of_other_languages_are_not_made_up() -> None:
    with pytest.raises(ValueError, match="rules are known of es, zh-CN, ar, not of 'en'"):
        normalise("Hello", "en")
