"""Plans of mixtures: who is mixed with whom, how often, and what cannot be mixed."""

import dataclasses
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from voices import RATE

from mynah.tasks.corpora.mixture_plan import Options, plan, shares, usable
from mynah.tasks.corpora.utterance import Utterance


def people(
    speakers: int, each: int, split: str | None = "train", **more: object
) -> list[Utterance]:
    return [
        Utterance(
            id=f"{split}-s{s}-{i}", path="/n.wav", start=0.0, duration=2.0, sample_rate=RATE,
            speaker=f"s{s}", split=split, **more,  # type: ignore[arg-type]
        )
        for s in range(speakers)
        for i in range(each)
    ]  # fmt: skip


def test_each_utterance_is_used_about_as_often_as_any_other() -> None:
    options = Options(kind="separation", speakers=3)
    parts, _ = usable(people(5, 12), options)
    made = plan(parts, options)
    assert len(made) == 20
    assert len({m.id for m in made}) == 20
    for m in made:
        assert len({u.speaker for u in m.utterances}) == 3
    used = Counter(u.id for m in made for u in m.utterances)
    assert max(used.values()) <= 2
    assert len(used) > 50
    lonely, _ = usable([*people(1, 30), *people(2, 1)[1:]], Options(kind="separation"))
    forced = plan(lonely, Options(kind="separation", count=9))
    assert all(len({u.speaker for u in m.utterances}) == 2 for m in forced)


def test_enhancement_takes_every_utterance_and_begins_again() -> None:
    options = Options(kind="enhancement", count=15)
    parts, _ = usable(people(2, 5), options)
    ids = [m.id for m in plan(parts, options)]
    assert {i.removesuffix("~2") for i in ids} == {u.id for u in parts["train"]}
    assert sum(i.endswith("~2") for i in ids) == 5


def test_conversations_change_speaker_and_last_long_enough() -> None:
    options = Options(kind="diarization", seconds=11.0, count=30, speakers=3)
    parts, _ = usable(people(6, 4), options)
    made = plan(parts, options)
    for m in made:
        names = [u.speaker for u in m.utterances]
        assert len(set(names)) == 3
        assert all(a != b for a, b in pairwise(names))
        assert sum(u.duration for u in m.utterances) == 12.0
    heard = Counter(u.speaker for m in made for u in m.utterances[:3])
    assert max(heard.values()) - min(heard.values()) <= 2


def test_shares_of_a_count() -> None:
    assert shares({"dev": 10, "test": 10, "train": 80}, 10) == {"dev": 1, "test": 1, "train": 8}
    assert shares({"dev": 1, "test": 1, "train": 98}, 4) == {"dev": 1, "test": 1, "train": 2}
    assert sum(shares({"a": 1, "b": 1, "c": 1}, 100).values()) == 100
    with pytest.raises(ValueError, match="2 mixtures cannot fill the parts a, b, c"):
        shares({"a": 1, "b": 1, "c": 1}, 2)


def test_a_corpus_without_parts_gets_them_by_speaker() -> None:
    parts, _ = usable(people(12, 3, None), Options(kind="separation"))
    assert set(parts) == {"train", "dev", "test"}
    speakers = [{u.speaker for u in part} for part in parts.values()]
    assert sum(map(len, speakers)) == 12


@pytest.mark.parametrize(
    ("corpus", "options", "message"),
    [
        (people(1, 5), {}, "part 'train' has 1 speakers .* a mixture needs 2"),
        ([*people(3, 2), *people(3, 2, None)], {}, "6 utterances, as 'None-s0-0', are in none"),
        (people(3, 2), {"least": 3.0}, "no utterance can be mixed.*shorter than 3 s"),
        (people(2, 2), {"speakers": 3}, "a mixture needs 3"),
        (
            [dataclasses.replace(u, speaker=f"{u.speaker} x") for u in people(2, 2)],
            {"kind": "diarization"},
            "speaker 's0 x' has white space",
        ),
    ],
)
def test_what_cannot_be_mixed(corpus: list[Utterance], options: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        usable(corpus, Options(**{"kind": "separation", **options}))


def test_what_is_left_out_is_counted() -> None:
    odd = [*people(2, 2, text="so"), *people(2, 1, "train")]
    odd[-1] = dataclasses.replace(odd[-1], id="quiet")
    odd[-2] = dataclasses.replace(odd[-2], id="nobody", text="so", speaker=None)
    parts, left_out = usable(odd, Options(kind="separation"))
    assert len(parts["train"]) == 4
    assert sorted(left_out.values()) == [1, 1]


def test_options_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match=r"count must be at least 1.*overlap must be in 0\.\.1"):
        Options(kind="separation", count=0, overlap=2.0)
    for wrong in ({"speakers": 1}, {"snr": (5.0, 1.0)}, {"seconds": 0.0}, {"bits": 24}, {"rate": 0},
                  {"spread": -1.0}, {"mode": "mean"}, {"least": -1.0}, {"kind": "choir"}):  # fmt: skip
        with pytest.raises(ValueError, match="got"):
            Options(**{"kind": "separation", **wrong})  # type: ignore[arg-type]
