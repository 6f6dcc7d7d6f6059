"""Parts that ``mynah prepare`` makes: by a column, by who is held out, by proportion, and stretches."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from preparing import run, write_words

from mynah.tasks.corpora import splits, stretches
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.utterance import Interval, Utterance


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_words(tmp_path / "words")


def parts(corpus: Corpus) -> dict[str, set[str]]:
    return {s: {u.speaker or "" for u in corpus.utterances(s)} for s in corpus.splits}


def test_split_by_a_column(source: Path, tmp_path: Path) -> None:
    assert run("tsv", source, tmp_path / "out", "--split-by", "official") == 0
    corpus = Corpus.open(tmp_path / "out")
    assert {s: len(corpus.utterances(s)) for s in corpus.splits} == {"test": 4, "train": 8}
    assert run("tsv", source, tmp_path / "out", "--rename", "official=split") == 0
    assert Corpus.open(tmp_path / "out").splits == ("test", "train")


def test_split_by_who_is_held_out(source: Path, tmp_path: Path) -> None:
    args = ["--held-out", "speaker=ann,bob", "--dev-held-out", "speaker=dan"]
    assert run("tsv", source, tmp_path / "out", *args) == 0
    assert parts(Corpus.open(tmp_path / "out")) == {
        "train": {"cleo"}, "dev": {"dan"}, "test": {"ann", "bob"},
    }  # fmt: skip


def test_split_by_proportion(source: Path, tmp_path: Path) -> None:
    assert run("tsv", source, tmp_path / "out", "--splits", "0.5,0.25,0.25", "--seed", "1") == 0
    found = parts(Corpus.open(tmp_path / "out"))
    assert {name: len(speakers) for name, speakers in found.items()} == {
        "train": 2, "dev": 1, "test": 1,
    }  # fmt: skip
    assert set.union(*found.values()) == {"ann", "bob", "cleo", "dan"}
    seen = set()
    for seed in range(8):
        run("tsv", source, tmp_path / "out", "--splits", "0.5,0.25,0.25", "--seed", seed)
        seen.add(str(sorted(Corpus.open(tmp_path / "out").utterances("test"), key=lambda u: u.id)))
    assert len(seen) > 1  # the seed draws


def crowd(count: int) -> list[Utterance]:
    stream = np.random.default_rng(0)
    return [
        Utterance(id=f"u{n}", path="/x.wav", start=0.0, duration=float(stream.uniform(1, 15)),
                  sample_rate=16000, speaker=f"s{stream.integers(count // 10)}")
        for n in range(count)
    ]  # fmt: skip


def test_proportions_are_kept_and_speakers_too() -> None:
    people = crowd(1000)
    shared = splits.by_proportion(people, [0.8, 0.1, 0.1])
    total = sum(u.duration for u in people)
    speakers: dict[str, set[str | None]] = {}
    for name, share in zip(splits.SPLITS, (0.8, 0.1, 0.1), strict=True):
        mine = [u for u in shared if u.split == name]
        assert sum(u.duration for u in mine) / total == pytest.approx(share, abs=0.02)
        speakers[name] = {u.speaker for u in mine}
    assert not speakers["train"] & speakers["test"]
    assert not speakers["train"] & speakers["dev"]
    assert not speakers["dev"] & speakers["test"]
    assert splits.by_proportion(people, [0.8, 0.1, 0.1]) == shared
    shuffled = splits.by_proportion(people[::-1], [0.8, 0.1, 0.1])
    assert {u.id: u.split for u in shuffled} == {u.id: u.split for u in shared}
    two = splits.by_proportion(people, [0.9, 0, 0.1], unit="utterance")
    assert {u.split for u in two} == {"train", "test"}


def test_parts_within_speakers() -> None:
    people = sorted(crowd(300), key=lambda u: u.id)
    shared = splits.by_order(people, [0.5, 0.1, 0.4])
    for name in {u.speaker for u in people}:
        mine = [u.split for u in shared if u.speaker == name]
        order = [splits.SPLITS.index(str(part)) for part in mine]
        assert order == sorted(order)  # in the corpus' order
        assert set(mine) == set(splits.SPLITS)
        assert mine.count("train") == pytest.approx(0.5 * len(mine), abs=1)
        assert mine.count("test") == pytest.approx(0.4 * len(mine), abs=1)
    assert [u.split for u in splits.by_order(people[:1], [0.5, 0.1, 0.4])] == ["train"]
    few = [replace(u, speaker="s") for u in people[:2]]
    assert [u.split for u in splits.by_order(few, [0.5, 0.1, 0.4])] == ["train", "dev"]
    assert {u.split for u in splits.by_order(people, [0.5, 0, 0.5])} == {"train", "test"}
    with pytest.raises(ValueError, match="has no 'session', within which"):
        splits.by_order(people, [0.5, 0.1, 0.4], label="session")


def test_stretches() -> None:
    whole = Utterance(
        id="u", path="/x.wav", start=0.5, duration=3.0 - 1e-9, sample_rate=16000, speaker="s",
        text="words", labels={"gender": "f", "phones": "a b", "phones_cmudict": "A B", "slot_size": "big"},
        intervals={"phones": (Interval("a", 0.0, 0.4), Interval("b", 0.4, 1.6), Interval("c", 1.6, 3.0))},
    )  # fmt: skip
    short = replace(whole, id="v", duration=0.9, intervals={})
    first, second, third = stretches.cut([whole, short], 1.0)
    assert [u.id for u in (first, second, third)] == ["u-0000", "u-0001", "u-0002"]
    assert [u.start for u in (first, second, third)] == [0.5, 1.5, 2.5]
    assert third.start + third.duration <= whole.start + whole.duration
    assert first.text is None
    assert dict(first.labels) == {"gender": "f"}
    assert first.intervals["phones"] == (Interval("a", 0.0, 0.4), Interval("b", 0.4, 1.0))
    assert second.intervals["phones"][0] == pytest.approx(("b", 0.0, 0.6))
    with pytest.raises(ValueError, match=r"stretches of 4 s were asked for, the longest.*3\.000 s"):
        stretches.cut([whole, short], 4.0)
    with pytest.raises(ValueError, match="longer than 0 seconds"):
        stretches.cut([whole], 0.0)


def test_stretches_by_command_line(source: Path, tmp_path: Path) -> None:
    more = ("--stretch", "0.1", "--splits", "0.5,0.1,0.4", "--split-within", "speaker")
    assert run("tsv", source, tmp_path / "out", *more) == 0
    corpus = Corpus.open(tmp_path / "out")
    assert set(corpus.splits) == set(splits.SPLITS)
    assert {u.duration for u in corpus.utterances("train")} == {0.1}
    everyone = {u.speaker for u in corpus.utterances()}
    assert all({u.speaker for u in corpus.utterances(part)} == everyone for part in splits.SPLITS)


def test_split_refusals() -> None:
    people = crowd(30)
    with pytest.raises(ValueError, match="shares of train, dev, test"):
        splits.by_proportion(people, [0.9, 0.1])
    with pytest.raises(ValueError, match="has no 'session'"):
        splits.by_proportion(people, [0.8, 0.1, 0.1], unit="session")
    with pytest.raises(ValueError, match="1 values of 'speaker' cannot fill 3"):
        splits.by_proportion(people[:1], [0.8, 0.1, 0.1])
    with pytest.raises(LookupError, match="no utterance has speaker='zoe'; there are: s0"):
        splits.by_holding_out(people, {"speaker": ["zoe"]}, {})
    with pytest.raises(ValueError, match="held out for both"):
        splits.by_holding_out(people, {"speaker": ["s0"]}, {"speaker": ["s0"]})
    with pytest.raises(LookupError, match="no utterance carries 'fold'; labels are: speaker"):
        splits.by_label(people, "fold")
