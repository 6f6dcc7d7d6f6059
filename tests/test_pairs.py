"""Trials drawn by hash: balanced, bounded, not repeated, and hard where genders are known."""

import dataclasses
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from utterances import people

from mynah.tasks.core.pairs import make_trials
from mynah.tasks.corpora.utterance import Utterance


def gendered() -> list[Utterance]:
    return [*people(3, gender="f", each=6), *people(3, gender="m", each=6, first=3)]


def test_drawn_trials_are_balanced_and_not_repeated() -> None:
    crowd = {u.id: u for u in gendered()}
    trials = make_trials(list(crowd.values()), seed=0, name="test")
    targets = [t for t in trials if t.target]
    others = [t for t in trials if not t.target]
    assert len(targets) == 6 * math.comb(6, 2) == len(others)
    assert all(crowd[t.enrolment].speaker == crowd[t.test].speaker for t in targets)
    assert all(crowd[t.enrolment].speaker != crowd[t.test].speaker for t in others)
    assert len({frozenset(t[1:]) for t in trials}) == len(trials)
    same = sum(crowd[t.enrolment].label("gender") == crowd[t.test].label("gender") for t in others)
    assert same == 6 * 8  # of 15 for each speaker, the odd one too
    assert trials == make_trials(list(crowd.values())[::-1], seed=0, name="test")
    assert trials != make_trials(list(crowd.values()), seed=1, name="test")


def test_drawn_trials_are_bounded() -> None:
    trials = make_trials(people(4, each=50), seed=0, name="t", most_utterances=7, most_pairs=9)
    assert sum(t.target for t in trials) == 4 * 9
    assert sum(not t.target for t in trials) == 4 * 9
    assert len({name for t in trials for name in t[1:] if name.startswith("p00")}) <= 7


def test_sessions_are_not_compared_with_themselves() -> None:
    crowd = [
        dataclasses.replace(u, labels={"session": f"{u.speaker}{i % 2}"})
        for i, u in enumerate(people(3, each=4))
    ]
    at = {u.id: u.labels["session"] for u in crowd}
    trials = make_trials(crowd, seed=0, name="t")
    assert sum(t.target for t in trials) == 3 * 4
    assert all(at[t.enrolment] != at[t.test] for t in trials)
    once = [dataclasses.replace(u, labels={"session": str(u.speaker)}) for u in crowd]
    assert sum(t.target for t in make_trials(once, seed=0, name="t")) == 3 * 6


def test_what_one_gender_lacks_the_other_gives() -> None:
    lone = [*people(1, gender="f", each=6), *people(1, gender="f", each=1, first=1),
            *people(1, gender="m", each=6, first=2)]  # fmt: skip
    trials = make_trials(lone, seed=0, name="t")
    mine = [t for t in trials if not t.target and t.enrolment.startswith("p00")]
    assert len(mine) == 15
    assert sum(t.test.startswith("p01") for t in mine) == 6  # all that there are
