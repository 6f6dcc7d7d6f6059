"""CoVoST 2: which pairs are kept, how both sides are written, tables joined or ready-made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, read, sound

from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.official.covost_text import (
    moses,
    source_text,
    target_text,
    why_left_out,
)
from mynah.tasks.corpora.utterance import Utterance

PAIRS = {
    "train": [("c1", "He said: “Go!”", "Er sagte: „Geh!“"), ("c2", "REMOVE this", "Weg")],
    "dev": [("c3", "It’s well-known.", "Das ist bekannt .")],
    "test": [("c4", "Yes", "Ja, das ist ganz und gar richtig so"), ("c5", "Fine", "Gut")],
}
HEADER = "path\tsentence\ttranslation\tclient_id"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    home = tmp_path / "en"
    for split, pairs in PAIRS.items():
        for name, _, _ in pairs:
            sound(home / f"clips/{name}.mp3", 0.3, rate=48000)
        rows = [f"{name}.mp3\t{en}\t{de}\tspeaker-{name}" for name, en, de in pairs]
        lines(home / f"covost_v2.en_de.{split}.tsv", HEADER, *rows)
    return home


def test_what_is_read(source: Path) -> None:
    got = read("covost2", source)
    assert got.messages == []
    assert got.found.left_out == {
        "marked REMOVE": 1, "more than 5 times the words of the other side": 1,
    }  # fmt: skip
    assert (got.of("train"), got.of("dev"), got.of("test")) == (["c1"], ["c3"], ["c5"])
    c1 = got.by_id["c1"]
    assert c1 == Utterance(
        id="c1", path=str(source / "clips/c1.mp3"), start=0.0, duration=c1.duration,
        sample_rate=48000, speaker="speaker-c1", text="he said go", split="train",
        labels={"translation": 'Er sagte: "Geh!"', "language": "en"},
    )  # fmt: skip
    assert got.by_id["c3"].text == "it's well-known"
    assert got.by_id["c3"].labels["translation"] == "Das ist bekannt."


def test_tables_are_joined_where_the_parts_are_not_made(source: Path) -> None:
    for split in PAIRS:
        (source / f"covost_v2.en_de.{split}.tsv").unlink()
    flat = [(split, *pair) for split, pairs in PAIRS.items() for pair in pairs]
    lines(
        source / "validated.tsv",
        "client_id\tpath\tsentence\tup_votes",
        *(f"speaker-{name}\t{name}.mp3\t{en}\t2" for _, name, en, _ in flat),
    )
    named = {"train": "train_covost"}
    lines(
        source / "covost_v2.en_de.tsv",
        "path\ttranslation\tsplit",
        *(f"{name}.mp3\t{de}\t{named.get(split, split)}" for split, name, _, de in flat),
        "c9.mp3\tWer?\tdev",
        "c1.mp3\tnoch einmal\tdev_covost",
    )
    got = read("covost2", source)
    assert got.messages == ["covost_v2.en_de.tsv:7: error: validated.tsv does not name c9.mp3"]
    assert got.found.left_out["split 'dev_covost'"] == 1
    assert (got.of("train"), got.of("dev"), got.of("test")) == (["c1"], ["c3"], ["c5"])
    assert got.by_id["c1"].speaker == "speaker-c1"


def test_clips_elsewhere_and_converted(source: Path, tmp_path: Path) -> None:
    (source / "clips").rename(tmp_path / "mp3")
    (tmp_path / "mp3/c5.mp3").unlink()
    sound(tmp_path / "mp3/c5.wav", 0.3)
    got = read("covost2", source, audio_root=[tmp_path / "mp3"])
    assert got.messages == []
    assert got.by_id["c5"].path == str(tmp_path / "mp3/c5.wav")
    with pytest.raises(FileNotFoundError, match=r"missing: clips/\. It comes from"):
        read("covost2", source)


def test_faults(source: Path) -> None:
    (source / "clips/c3.mp3").unlink()
    with (source / "covost_v2.en_de.test.tsv").open("a") as file:
        file.write("c6.mp3\t...\tGut\tx\n")
        file.write("c5.mp3\tFine\tGut\n")
        file.write("c1.mp3\tFine\tGut\tx\n")
    sound(source / "clips/c6.mp3", 0.3)
    got = read("covost2", source)
    shown = "\n".join(got.messages)
    assert "covost_v2.en_de.dev.tsv:2: error: no clip c3.mp3; looked in" in shown
    assert "covost_v2.en_de.test.tsv:4: error: nothing but punctuation: '...'" in shown
    assert "covost_v2.en_de.test.tsv:5: error: 3 cells, the header has 4" in shown
    assert "id 'c1' is there twice, first at covost_v2.en_de.train.tsv:2" in shown


def test_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("covost2", source, tmp_path / "out") == 0
    shown = capsys.readouterr()
    assert "published" not in shown.err
    assert "left out: 1 (marked REMOVE)" in shown.out
    assert Corpus.open(tmp_path / "out").page["extra"]["left_out"]["marked REMOVE"] == 1
    (source / "covost_v2.en_de.dev.tsv").unlink()
    assert prepare("covost2", source, tmp_path / "out") == 2
    assert "missing: covost_v2.en_de.dev.tsv" in capsys.readouterr().err


# -- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "translation", "reason"),
    [
        ("a b", "c", None),
        ("a", "b c d e f", None),  # five times as many is allowed
        ("a", "b c d e f g", "more than 5 times the words of the other side"),
        ("a b c d e f", "b", "more than 5 times the words of the other side"),
        ("", "b", "no word on one side"),
        ("a", "  ", "no word on one side"),
        ("a REMOVED", "b", "marked REMOVE"),
        ("a", "REMOVE", "marked REMOVE"),
        ("remove", "b", None),
    ],
)
def test_pairs_that_are_left_out(source: str, translation: str, reason: str | None) -> None:
    assert why_left_out(source, translation) == reason


@pytest.mark.parametrize(
    ("text", "language", "wanted"),
    [
        ("a“b”c „d”", "de", 'a"b"c "d"'),
        ("it’s `so` ´x´", "en", "it's 'so' 'x'"),
        ("a – b — c", "en", "a - b - c"),
        ("wait…", "en", "wait..."),
        ("a(b)c", "en", "a (b) c"),
        ("( b ) .", "en", "(b)."),
        ("5 %  of : all ;", "en", "5% of: all;"),
        ("''a''", "en", '" a "'),  # two apostrophes are a quotation mark
        ("«\u00a0a\u00a0» b\u00a0!", "en", '"a" b!'),
        ('"a", b.', "en", '"a," b.'),  # English: commas inside
        ('"a," b', "de", '"a", b'),  # German: outside
        ('a." b', "de", 'a". b'),
        ('a."', "de", 'a."'),  # but not at the end
        ("1\u00a0000", "en", "1.000"),
        ("1\u00a0000", "de", "1,000"),
        ("，１２。 a．", "en", ",12. a."),
        ("a\u200bb\u00ad\tc", "en", "abc"),  # control and format characters, tabs too
        ("a\r b", "en", "a b"),
        ("5\u00a0ºC, nº\u00a03 7\u00a0cm 8\u00a0%", "en", "5 ºC, nº 3 7 cm 8%"),
    ],
)
def test_punctuation_as_moses_writes_it(text: str, language: str, wanted: str) -> None:
    assert moses(text, language) == wanted


def test_both_sides() -> None:
    text = "I do n't know , Mr. O'Neil ( 1999 ) - well-known ?"
    assert target_text(text, "en") == "I don't know, Mr. O'Neil (1999) - well-known?"
    assert source_text(text) == "i don't know mr o'neil 1999 - well-known"
    assert target_text("„Ja“ , sagt er .") == '"Ja", sagt er.'
    assert source_text("?!") == ""
    with pytest.raises(ValueError, match="known of en, de, not of 'fr'"):
        moses("a", "fr")
