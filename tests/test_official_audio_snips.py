"""Audio SNIPS: parts by voice, slots of words, words as SUPERB encodes them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, read, sound

from mynah.tasks.corpora.official.audio_snips import VOICES, bio
from mynah.tasks.corpora.utterance import Utterance

SENTENCES = [
    "Ivy-snips-train-0 BOS PLAY THE BEATLES EOS\tO O artist artist PlayMusic",
    "Ivy-snips-train-1 BOS BOOK A TABLE FOR TWO EOS\tO O O O O party_size BookRestaurant",
    "Amy-snips-train-0 BOS PLAY THE BEATLES EOS\tO O artist artist PlayMusic",
    "Amy-snips-valid-0 BOS WEATHER IN PARIS EOS\tO O O city GetWeather",
    "Emma-snips-test-0 BOS R & B EOS\tO genre genre genre PlayMusic",
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    home = tmp_path / "SNIPS"
    for row in SENTENCES:
        name = row.partition(" ")[0]
        sound(home / name.split("-")[2] / f"{name}.wav")
    lines(home / "slots.txt", "O", "artist", "party_size", "city", "genre")
    lines(home / "all.iob.snips.txt", *SENTENCES)
    return home


def test_what_is_read(source: Path) -> None:
    got = read("audio_snips", source)
    assert got.messages == []
    assert got.found.left_out == {"what other voices say of a part": 1}
    assert got.of("train") == ["Ivy-snips-train-0", "Ivy-snips-train-1"]
    assert (got.of("dev"), got.of("test")) == (["Amy-snips-valid-0"], ["Emma-snips-test-0"])
    assert got.by_id["Ivy-snips-train-0"] == Utterance(
        id="Ivy-snips-train-0", path=str(source / "train/Ivy-snips-train-0.wav"), start=0.0,
        duration=0.1, sample_rate=16000, speaker="Ivy", text="PLAY THE BEATLES", split="train",
        labels={"slots": "O B-artist I-artist", "intent": "PlayMusic"},
    )  # fmt: skip
    test = got.by_id["Emma-snips-test-0"]
    assert (test.text, test.labels["slots"]) == ("R AND B", "B-genre I-genre I-genre")


def test_mp3_as_the_voices_come(source: Path) -> None:
    (source / "test/Emma-snips-test-0.wav").unlink()
    sound(source / "test/Emma-snips-test-0.mp3", 0.5, rate=22050)
    got = read("audio_snips", source)
    assert got.messages == []
    assert got.by_id["Emma-snips-test-0"].sample_rate == 22050


@pytest.mark.parametrize(
    ("words", "slots", "kept", "tags"),
    [
        ("A B C", "x x y", "A B C", "B-x I-x B-y"),
        ("A B C", "x O x", "A B C", "B-x O B-x"),
        ("A , B .", "x x x O", "A B", "B-x I-x"),  # a mark inside a span does not break it
        ("A - B", "x O x", "A B", "B-x I-x"),  # but what stands between two of a slot is dropped
        ("& -- !", "O O O", "AND --", "O O"),
    ],
)
def test_words_and_tags(words: str, slots: str, kept: str, tags: str) -> None:
    assert bio(words.split(), slots.split()) == (kept.split(), tags.split())


def test_the_voices_are_sixteen_and_in_one_part_each() -> None:
    everyone = [voice for voices in VOICES.values() for voice in voices]
    assert len(everyone) == len(set(everyone)) == 16
    assert len(VOICES["train"]) * 13084 == 104672
    assert len(VOICES["dev"]) * 700 == len(VOICES["test"]) * 700 == 2800


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Emma-snips-test-0 BOS R B EOS\tO genre genre genre PlayMusic", "2 words, but 3 slots"),
        ("Emma-snips-test-0 BOS R EOS\tO tempo PlayMusic", "slots.txt does not have the slot 'tempo'"),
        ("Emma-snips-test-0 R B\tO O PlayMusic", "wanted BOS words EOS, a tab and the slots"),
        ("Emma-snips-test-0 BOS . EOS\tO O PlayMusic", "nothing but punctuation is said"),
        ("Emma-snips-test-9 BOS R EOS\tO O PlayMusic", "no audio Emma-snips-test-9.wav for this sentence"),
        ("Siri-snips-test-0 BOS R EOS\tO O PlayMusic", "'Siri' is none of the sixteen voices"),
        ("Emma-0 BOS R EOS\tO O PlayMusic", "wanted an id VOICE-snips-PART-NUMBER"),
        (SENTENCES[0], "'Ivy-snips-train-0' is there twice, first at all.iob.snips.txt:1"),
    ],
)  # fmt: skip
def test_faults(source: Path, row: str, message: str) -> None:
    lines(source / "all.iob.snips.txt", *SENTENCES[:4], row)
    got = read("audio_snips", source)
    assert [
        m for m in got.messages if m.startswith("all.iob.snips.txt:5: error: ") and message in m
    ]
    assert got.of("test") == []
    assert row.partition(" ")[0] in got.problems.skipped


def test_audio_without_a_sentence(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound(source / "train/Joey-snips-train-7.wav")
    got = read("audio_snips", source)
    assert got.messages == [
        "train/Joey-snips-train-7.wav: error: all.iob.snips.txt has no sentence for this audio"
    ]
    (source / "slots.txt").unlink()
    assert prepare("audio_snips", source, source / "out") == 2
    assert "missing: slots.txt. It comes from github.com/aws-samples" in capsys.readouterr().err
