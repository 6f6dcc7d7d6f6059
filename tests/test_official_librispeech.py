"""LibriSpeech as it is unpacked, and what every official corpus shares on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, read, sound

from mynah.tasks.corpora import official
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.official.core.published import Size, compare
from mynah.tasks.corpora.utterance import Utterance

CHAPTERS = {
    "train-clean-100": {"103-1240": ["CHAPTER ONE", "THAT HAD"], "26-495": ["IT WAS"]},
    "dev-clean": {"84-121123": ["GO DO YOU HEAR"]},
    "test-clean": {"61-70968": ["HE BEGAN A CONFUSED COMPLAINT"]},
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    home = tmp_path / "LibriSpeech"
    for part, chapters in CHAPTERS.items():
        for chapter, texts in chapters.items():
            folder = home / part / chapter.replace("-", "/")
            names = [f"{chapter}-{i:04d}" for i in range(len(texts))]
            for name in names:
                sound(folder / f"{name}.flac")
            rows = [f"{n} {t}" for n, t in zip(names, texts, strict=True)]
            lines(folder / f"{chapter}.trans.txt", *rows)
            (folder / f"._{chapter}.trans.txt").write_bytes(b"\x00\xff[")  # made on a Mac
    lines(
        home / "SPEAKERS.TXT",
        ";ID  |SEX| SUBSET           |MINUTES| NAME",
        "26   | M | train-clean-100  | 25.08 | Denny Sayers",
        "61   | M | test-clean       | 8.08  | Paul-Gabriel Wiener",
        "84   | F | dev-clean        | 8.02  | Christie Nowak",
        "103  | F | train-clean-100  | 25.12 | Karen Savage",
    )
    return home


def test_what_is_read(source: Path) -> None:
    got = read("librispeech", source)
    assert got.messages == []
    assert got.of("train") == ["103-1240-0000", "103-1240-0001", "26-495-0000"]
    assert (got.of("dev"), got.of("test")) == (["84-121123-0000"], ["61-70968-0000"])
    assert got.by_id["103-1240-0001"] == Utterance(
        id="103-1240-0001",
        path=str(source / "train-clean-100/103/1240/103-1240-0001.flac"),
        start=0.0, duration=0.1, sample_rate=16000, speaker="103", text="THAT HAD", split="train",
        labels={"gender": "f", "chapter": "1240", "part": "train-clean-100"},
    )  # fmt: skip


def test_what_is_missing_is_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "SPEAKERS.TXT").unlink()
    (source / "dev-clean").rename(source / "dev")
    assert prepare("librispeech", source, source / "out") == 2
    shown = capsys.readouterr().err
    assert "missing: dev-clean/, SPEAKERS.TXT. It comes from openslr.org/12" in shown
    assert prepare("librispeech", source / "nowhere", source / "out") == 2
    assert "nowhere is not a folder; LibriSpeech comes from" in capsys.readouterr().err


def test_faults(source: Path) -> None:
    chapter = source / "train-clean-100/103/1240"
    (chapter / "103-1240-0000.flac").unlink()
    sound(chapter / "103-1240-0007.flac")
    lines(chapter / "103-1240.trans.txt", "103-1240-0000 ONE", "103-1240-0001 A", "103-1240-0001 B")
    (source / "dev-clean/84/121123/84-121123-0000.flac").write_bytes(b"fLaC, not really")
    got = read("librispeech", source)
    assert list(got.by_id) == ["26-495-0000", "61-70968-0000"]
    for message in (
        "103-1240.trans.txt:1: error: no audio 103-1240-0000.flac for this transcript",
        "103-1240.trans.txt:3: error: '103-1240-0001' is there twice, first at 103-1240.trans.txt:2",
        "train-clean-100/103/1240/103-1240-0007.flac: error: no transcript names this audio",
    ):
        assert message in got.messages
    assert [m for m in got.messages if "84-121123-0000.flac: not readable as audio" in m]
    assert got.problems.skipped.keys() == {
        "103-1240-0000", "103-1240-0001", "103-1240-0007", "84-121123-0000",
    }  # fmt: skip


def test_an_unknown_speaker_and_a_wrong_sex(source: Path) -> None:
    lines(source / "SPEAKERS.TXT", "26 | M |", "61 | M |", "84 | X |", "103 | F |")
    got = read("librispeech", source)
    assert got.messages == [
        "SPEAKERS.TXT:3: error: wanted ID | SEX | ..., SEX being F or M, got '84 | X |'",
        "SPEAKERS.TXT: warning: speaker '84' has audio but no line here: no gender",
    ]
    assert "gender" not in got.by_id["84-121123-0000"].labels


# -- what all official corpora share ------------------------------------------------------------


def test_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert prepare("librispeech", source, out) == 0
    shown = capsys.readouterr()
    assert "train: 3, published 28539; dev: 1, published 2703; test: 1, published 2620" in shown.err
    assert "published sizes: 0 of 3 agree" in shown.out
    corpus = Corpus.open(out)
    assert (corpus.name, corpus.splits) == ("librispeech", ("dev", "test", "train"))
    assert corpus.page["extra"]["published"]["dev"] == {"got": 1, "published": 2703}
    assert corpus.page["source"] == f"librispeech:{source}"
    assert corpus.page["validation"]["warnings"] == 1
    assert len(corpus.utterances("train")) == 3


def test_strict_and_none(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("librispeech", source, tmp_path / "out", "--strict") == 3
    assert "not the published corpus (--strict): train: 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert prepare("librispeech", source, tmp_path / "out", "--expect", "none") == 0
    assert "published" not in "".join(capsys.readouterr())
    assert Corpus.open(tmp_path / "out").page["extra"] == {"left_out": {}}


def test_sizes_that_agree(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = {"": (Size(count=3, split="train"), Size(count=9, split="test", recalled=True))}
    monkeypatch.setattr(official.get("librispeech"), "PUBLISHED", mine)
    assert prepare("librispeech", source, tmp_path / "out", "--strict") == 0  # recalled: no error
    shown = capsys.readouterr()
    assert "1 of 2 sizes are not the published ones: test: 1, published 9 (recalled)" in shown.err
    monkeypatch.setattr(official.get("librispeech"), "PUBLISHED", {})
    assert prepare("librispeech", source, tmp_path / "out", "--strict") == 2
    assert "no published sizes to hold librispeech against" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--variant", "es"], "librispeech has one kind only: leave out --variant"),
        (["--split-by", "part"], "--split-by is for kaldi, folder, tsv, lhotse and does nothing"),
        (["--from-path", "x=y"], "--from-path is for folder and does nothing for librispeech"),
        (["--strict", "--expect", "none"], "leave out --expect none"),
    ],
)
def test_wrong_options(
    source: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert prepare("librispeech", source, source / "out", *options) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_name_is_answered_with_the_closest(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare("librspeech", source, source / "out") == 2
    assert "unknown corpus 'librspeech'. Closest: librispeech" in capsys.readouterr().err
    with pytest.raises(LookupError, match="unknown corpus 'covost_text'"):
        official.get("covost_text")


@pytest.mark.parametrize("name", official.available())
def test_every_importer_has_what_is_asked_of_it(name: str) -> None:
    importer = official.get(name)
    assert importer.__doc__
    assert isinstance(importer.ORIGIN, str)
    variants = importer.VARIANTS or ("",)
    assert set(importer.PUBLISHED) <= set(variants)
    if importer.VARIANTS:
        assert importer.DEFAULT in (None, *variants)
    for sizes in importer.PUBLISHED.values():
        assert len({str(size) for size in sizes}) == len(sizes)
        assert all(size.count > 0 for size in sizes)


def test_counting() -> None:
    people = [
        Utterance(id=f"u{i}", path="/x.wav", start=0.0, duration=1.0, sample_rate=16000,
                  speaker=f"s{i % 2}", split="train" if i < 3 else "test", labels={"word": "ab"[i % 2]})
        for i in range(5)
    ]  # fmt: skip
    sizes = {
        Size(count=5): 5,
        Size(count=3, split="train"): 3,
        Size(count=2, split="train", label="word", value="a"): 2,
        Size(count=1, split="test", label="word", value="a"): 1,
        Size(count=2, unit="speakers", split="test"): 2,
        Size(count=2, unit="values", label="word"): 2,
        Size(count=7, unit="trials"): 7,
    }
    assert [c.got for c in compare(sizes, people, 7)] == list(sizes.values())
    assert all(c.agrees for c in compare(sizes, people, 7))
    assert [str(size) for size in sizes] == [
        "all", "train", "train word=a", "test word=a", "speakers of test", "distinct word", "trials",
    ]  # fmt: skip
