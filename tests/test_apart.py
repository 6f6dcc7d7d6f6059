"""Parts of utterances with several speakers: groups that are tied, made and given parts, sharing."""

import pytest

from mynah.tasks.core.apart import check_apart, companions, parts_apart
from mynah.tasks.core.contract import DataError
from mynah.tasks.corpora.utterance import Utterance


def heard(name: str, speakers: str, split: str | None = None) -> Utterance:
    return Utterance(
        id=name, path="/n.wav", start=0.0, duration=1.0, sample_rate=16000, split=split,
        labels={"who": speakers},
    )  # fmt: skip


def who(u: Utterance) -> list[str]:
    return list(u.labels["who"])


def test_utterances_are_tied_by_speakers_in_common() -> None:
    corpus = [
        heard("1", "ab"),
        heard("2", "cd"),
        heard("3", "be"),
        heard("4", "fd"),
        heard("5", "g"),
    ]
    assert companions(corpus, who) == {"1": "a", "3": "a", "2": "c", "4": "c", "5": "g"}
    chain = [heard(str(i), "zyxwvu"[i : i + 2]) for i in range(5)]
    assert set(companions(chain, who).values()) == {"u"}


def test_made_parts_share_no_speaker() -> None:
    corpus = [heard(f"{g}{i}", g + g.upper()) for g in "abcdefgh" for i in range(4)]
    parts, note = parts_apart(corpus, who, seed=0, take_given=True)
    assert "made here" in note
    speakers = [{s for u in part for s in who(u)} for part in parts.values()]
    assert all(speakers)
    assert sum(map(len, speakers)) == 16


def test_a_corpus_that_hangs_together_cannot_be_split() -> None:
    corpus = [heard("1", "ab"), heard("2", "bc"), heard("3", "ca"), heard("4", "de")]
    with pytest.raises(DataError, match="group of speakers that are heard together.*only 2"):
        parts_apart(corpus, who, seed=0, take_given=True)


def test_given_parts_are_held_apart() -> None:
    good = [heard("1", "ab", "train"), heard("2", "cd", "dev"), heard("3", "ef", "test")]
    parts, note = parts_apart(good, who, seed=0, take_given=True)
    assert [[u.id for u in part] for part in parts.values()] == [["1"], ["2"], ["3"]]
    assert "corpus's own" in note
    bad = [*good, heard("4", "fa", "test")]
    with pytest.raises(DataError, match="train and test share the speakers a; they must not"):
        parts_apart(bad, who, seed=0, take_given=True)
    with pytest.raises(DataError, match="share the speakers a, b"):
        check_apart({"train": [good[0]], "dev": [good[1]], "test": [heard("x", "ab")]}, who)


def test_dev_is_carved_out_of_train_by_groups() -> None:
    corpus = [heard(f"{g}{i}", g + g.upper(), "train") for g in "abcdef" for i in range(3)]
    corpus += [heard("t", "xy", "test")]
    parts, note = parts_apart(corpus, who, seed=0, take_given=True)
    assert "dev was carved out" in note
    assert parts["dev"]
    assert not {s for u in parts["dev"] for s in who(u)} & {
        s for u in parts["train"] for s in who(u)
    }
