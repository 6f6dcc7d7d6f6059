"""Pairs of speakers who do not say the same sentences: which are drawn, and from what none can be."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from sayings import RATE, made

from mynah.recipes.conversion.checks import SHORTEST
from mynah.recipes.conversion.free_pairs import TRIED, draw_free, tried
from mynah.recipes.conversion.pairs import ENOUGH, Pair, witnesses
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.utterance import Utterance


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return made(tmp_path_factory.mktemp("speech") / "audio", parallel=False)


def between(pairs: Sequence[Pair]) -> list[tuple[str | None, str | None]]:
    return [(p.source.speaker, p.target.speaker) for p in pairs]


def test_pairs_are_deterministic_and_even(corpus: Corpus) -> None:
    utterances = corpus.utterances()
    found = draw_free(utterances, pairs=20, seed=3)
    assert found == draw_free(list(reversed(utterances)), pairs=20, seed=3)
    assert found != draw_free(utterances, pairs=20, seed=4)
    assert draw_free(utterances, pairs=7, seed=3) == found[:7]
    assert [p.genders for p in found[:12]] == ["across", "within"] * 6
    every = draw_free(utterances, pairs=1000, seed=3)
    assert every[:20] == found
    assert len({p.id for p in every}) == len(every)
    assert len(set(between(every))) == 20
    nameless = [dataclasses.replace(u, labels={}) for u in utterances]
    found = draw_free(nameless, pairs=20)
    assert len(set(between(found))) == 20  # one of every two before the second of any
    for part in (found[:5], found[5:10], found[10:15], found[15:]):
        for role in ("source", "target"):  # speakers take turns
            assert sorted(getattr(p, role).speaker for p in part) == list("abcde")


def test_pairs_are_what_they_are_said_to_be(corpus: Corpus) -> None:
    pairs = draw_free(corpus.utterances(), pairs=1000, targets=2, own=2)
    heard: dict[str | None, set[str]] = {}
    for pair in pairs:
        source, target = pair.source, pair.target
        assert source.speaker != target.speaker
        assert (pair.parallel, pair.again) == (False, None)
        assert {u.speaker for u in pair.references} == {target.speaker}
        assert {u.speaker for u in pair.own} == {source.speaker}
        assert len(pair.own) == 2
        assert sum(u.duration for u in pair.references) >= ENOUGH  # two are not enough
        assert len({u.id for u in (*pair.references, target)}) == len(pair.references) + 1
        assert source.id not in {u.id for u in pair.own}
        heard.setdefault(target.speaker, set()).update(u.id for u in pair.references)
    for pair in pairs:  # what any converter hears of a voice is neither converted nor compared
        assert pair.target.id not in heard[pair.target.speaker]
        assert pair.source.id not in heard[pair.source.speaker]


def test_half_of_a_voice_is_left_to_its_judges() -> None:
    utterances = [
        Utterance(
            id=f"{speaker}{i:02d}", path="x.wav", start=0.0, duration=3.0, sample_rate=RATE,
            speaker=speaker,
        )
        for speaker in "ab"
        for i in range(12)
    ]  # fmt: skip
    for targets, wanted in ((8, 6), (3, 3)):
        for pair in draw_free(utterances, targets=targets):
            assert len(pair.references) == wanted


def test_nobody_hears_the_source_s_text_of_the_target(corpus: Corpus) -> None:
    same = [dataclasses.replace(u, text=u.id.split("-")[1]) for u in corpus.utterances()]
    pairs = draw_free(same, pairs=1000, own=9)
    assert pairs
    for pair in pairs:
        assert pair.source.text not in {u.text for u in (*pair.references, *pair.own)}
    untold = [dataclasses.replace(u, text=None) for u in corpus.utterances()]
    assert len(draw_free(untold, pairs=5)) == 5


def test_labels_that_pairs_share(corpus: Corpus) -> None:
    pairs = draw_free(corpus.utterances(), same=("mood",), pairs=40, own=1)
    for pair in pairs:
        shared = {u.label("mood") for u in (pair.target, *pair.references, *pair.own)}
        assert shared == {pair.source.label("mood")}
    assert {p.source.label("mood") for p in pairs} == {"0", "1"}
    assert {p.source.label("gender") == p.target.label("gender") for p in pairs} == {True, False}
    within = draw_free(corpus.utterances(), same=("gender",), pairs=40)
    assert {p.genders for p in within} == {"within"}


def test_voices_that_can_be_source_only_and_recordings_that_are_too_short(corpus: Corpus) -> None:
    few = [u for u in corpus.utterances() if u.speaker != "a" or u.id == "a-one-0"]
    few = [dataclasses.replace(u, duration=0.9 * SHORTEST) if u.speaker == "b" else u for u in few]
    pairs = draw_free(few, pairs=1000)
    assert {p.source.speaker for p in pairs} == set("acde")
    assert {p.target.speaker for p in pairs} == set("cde")


def test_every_voice_is_tried_with_several_recordings(corpus: Corpus) -> None:
    utterances = corpus.utterances()
    pairs = draw_free(utterances, pairs=2)
    known = witnesses(utterances, pairs)
    more = tried(pairs, known)
    drawn = {u.id: u for p in pairs for u in (p.source, p.target)}
    assert not {u.id for u in more} & set(drawn)
    counts = Counter(u.speaker for u in (*drawn.values(), *more))
    assert set(counts.values()) == {TRIED}
    assert {u.id for u in more} <= {u.id for u in known}


def test_corpora_without_pairs(corpus: Corpus) -> None:
    utterances = corpus.utterances()
    one = [u for u in utterances if u.speaker == "a"]
    nobody = [dataclasses.replace(u, speaker=None) for u in utterances]
    single = [u for u in utterances if u.id.endswith("one-0")]
    short = [dataclasses.replace(u, duration=0.1) for u in utterances]
    for given, message in (
        ([], "none of 0 utterances has a speaker.*--split"),
        (nobody, "none of 30 utterances has a speaker: conversions go.*prepare the corpus"),
        (one, "one speaker only, a: .*--split, repeatable, or all"),
        (single, "no conversion is possible: 5 utterances of 5 speakers.*two recordings, one"),
        (short, "none of 30 utterances lasts 0.5 s: "),
    ):
        with pytest.raises(ValueError, match=message):
            draw_free(given)
    with pytest.raises(ValueError, match=r"label 'modo' \(--same\); labels are: gender, mood, ph"):
        draw_free(utterances, same=("modo",))
    alone = [u for u in utterances if u.label("mood") == ("0" if u.speaker == "a" else "1")]
    with pytest.raises(ValueError, match=r"under one 'text' \(--same\)"):
        draw_free(alone, same=("text",))
    with pytest.raises(ValueError, match="at least 1"):
        draw_free(utterances, targets=0)
