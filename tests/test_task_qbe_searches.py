"""Searches of QbE in four kinds of corpora, and bad data."""

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from parts import BOTH
from searching import loaded, official
from utterances import utterance

from mynah.tasks.core.contract import DataError, ProtocolName
from mynah.tasks.core.searches import DOCUMENTS, QUERIES, holds, words
from mynah.tasks.corpora.utterance import Interval, Utterance
from mynah.tasks.qbe import TASK as QBE


def test_words_and_holding() -> None:
    assert words("Don't STOP, 2nd-hand \N{LATIN SMALL LETTER E WITH ACUTE}t\N{LATIN SMALL LETTER E WITH ACUTE}!") == ("don't", "stop", "2nd", "hand", "\xe9t\xe9")  # fmt: skip
    assert words(None) == ()
    assert holds(("a", "red", "car"), ("red", "car"))
    assert not holds(("a", "red", "old", "car"), ("red", "car"))
    assert not holds(("car",), ("red", "car"))


def test_the_official_search_shares_its_documents() -> None:
    task = loaded()
    train, dev, test = task.loaded.folds[""]
    assert not train.utterances
    assert [u.id for u in dev.utterances] == ["d0", "d1", "d2", "d3", "d4", "q1", "q2"]
    assert [u.id for u in test.utterances] == ["d0", "d1", "d2", "d3", "d4", "q3", "q4"]
    assert task.searches["dev"].true == {"q1": ("d1", "d3"), "q2": ()}
    assert task.searches["test"].true == {"q3": ("d0",), "q4": ("d0", "d2", "d4")}
    assert task.loaded.notes[1] == "dev: 2 queries in 5 documents, 1 of them in none"
    assert task.reference(dev.utterances[5]) == "d1 d3"
    assert task.reference(dev.utterances[0]) == ""
    assert task.TRAINED is False


def test_official_queries_can_be_split_here() -> None:
    more = [utterance(f"q{i}", subset="queries", split="dev", documents="d2") for i in range(5, 9)]
    task = QBE(splits="made")
    task.load([*official(), *more])
    sizes = [len(task.searches[name].queries) for name in ("dev", "test")]
    assert sizes == [4, 4]
    assert "split here" in task.loaded.notes[0]
    again = QBE(splits="made")
    again.load([*more, *official()])
    assert again.searches == task.searches


def test_spoken_terms_are_searched_in_their_part() -> None:
    corpus = [
        utterance(f"{part}{i}", speaker=part, split=part, text=text)
        for part in ("train", "dev", "test")
        for i, text in enumerate(["the red car stops", "a red bus", "red"])
    ]
    corpus += [
        utterance("t1", speaker="dev", split="dev", text="Red car", term="Red car"),
        utterance("t2", speaker="dev", split="dev", text="bus car", term="bus car"),
        utterance("t3", speaker="test", split="test", text="a red", term="a red"),
    ]
    task = QBE()
    task.load(corpus)
    assert task.searches["dev"].true == {"t1": ("dev0",)}  # nobody says t2
    assert task.searches["test"].true == {"t3": ("test1",)}
    assert [u.id for u in task.searches["dev"].documents] == ["dev0", "dev1"]


def sentence(name: str, split: str, text: str, lengths: float = 0.3) -> Utterance:
    spoken = text.split()
    tier = tuple(Interval(w, lengths * i, lengths * (i + 1)) for i, w in enumerate(spoken))
    made = utterance(name, speaker=name[:2], split=split, text=text, seconds=lengths * len(spoken))
    return dataclasses.replace(made, start=1.0, intervals={"words": tier})


def read() -> list[Utterance]:
    return [
        sentence("a1", "train", "the cat sees the dog"),
        sentence("b1", "train", "the bird sings"),
        sentence("c1", "train", "the dog sleeps"),
        sentence("d1", "dev", "the cat runs"),
        sentence("d1x", "dev", "one cat more"),
        sentence("e1", "test", "dog and bird"),
        utterance("e1y", speaker="e1", split="test", text="Cat!"),
        utterance("e1z", speaker="e1", split="test", text="cat", seconds=0.1),
    ]


def test_words_are_cut_out_and_searched_in_train() -> None:
    task = QBE()
    task.load(read())
    dev, test = task.searches["dev"], task.searches["test"]
    assert [u.id for u in dev.documents] == ["a1", "b1", "c1"]
    (cat,) = dev.queries  # "the" is in every document, "runs" in none, one of two cats is asked
    assert cat.id in ("d1#1", "d1x#1")
    assert (cat.text, cat.intervals) == ("cat", {})
    assert cat.start == pytest.approx(1.3)
    assert cat.duration == pytest.approx(0.3)
    assert dev.true[cat.id] == ("a1",)
    assert {u.text: test.true[u.id] for u in test.queries} == {"Cat!": ("a1",), "bird": ("b1",)}
    assert "e1z" not in test.true  # 0.1 s
    assert "single words" in task.loaded.notes[0]  # "dog" is in two of three


def test_isolated_words_are_documents_where_there_is_nothing_else() -> None:
    corpus = [
        utterance(f"s{s}-{w}-{i}", speaker=f"s{s}", split=("train", "train", "dev", "test")[s], text=w)
        for s in range(4)
        for w in ("one", "two", "six")
        for i in range(2)
    ]  # fmt: skip
    task = QBE()
    task.load(corpus)
    for name, who in (("dev", "s2"), ("test", "s3")):
        search = task.searches[name]
        assert len(search.documents) == 12
        assert {u.text for u in search.queries} == {"one", "two", "six"}
        assert len(search.queries) == 3
        assert {u.speaker for u in search.queries} == {who}
        assert all(len(ids) == 4 for ids in search.true.values())


def test_made_searches_are_bounded_and_the_same_everywhere() -> None:
    corpus = [sentence(f"t{i:04d}", "train", f"w{i} x w{i // 10}") for i in range(DOCUMENTS + 50)]
    corpus += [
        utterance(f"{part}{i}", speaker=f"{part}{i}", split=part, text=f"w{i}")
        for part in ("dev", "test")
        for i in range(QUERIES + 30)
    ]
    one, other = QBE(), QBE()
    one.load(corpus)
    other.load(corpus[::-1])
    assert one.searches == other.searches
    assert len(one.searches["dev"].documents) == DOCUMENTS
    assert len(one.searches["test"].queries) == QUERIES


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([utterance("u", speaker="s")], "none of the 1 utterances has any"),
        ([*official(), utterance("q9", subset="queries", split="dev", documents="d7 d1")], "not there: d7 of query q9"),
        ([*official(), utterance("q9", subset="queries", split="train", documents="d1")], r"these are not: q9 \(train\)"),
        ([u for u in official() if u.id not in ("q3", "q4")], "no document holds any of the 1 queries of dev: q2|holds any of the 1 queries of test: q2"),
        (official()[:5], "the 0 queries of dev: none could be made"),
        ([u for u in official() if u.id != "q1"], "no document holds any of the 1 queries of dev: q2"),
        ([official()[1], *(utterance(f"q-{p}", subset="queries", split=p, documents="d1") for p in ("dev", "test"))], "all 1 documents hold every query of dev"),
        ([u for u in read() if u.speaker != "d1"] + [sentence("d1", "dev", "never heard")], "none could be made"),
        ([dataclasses.replace(u, split=None, speaker="me") for u in read()], "there are only 1"),
    ],
)  # fmt: skip
def test_bad_data_is_named(corpus: list[Utterance], message: str, protocol: ProtocolName) -> None:
    with pytest.raises(DataError, match=message):
        QBE(protocol).load(corpus)
