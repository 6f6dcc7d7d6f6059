"""KS: words and classes, silence, speakers that splits share, bad data."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from parts import BOTH, people
from utterances import keywords, utterance

from mynah.tasks.core.contract import DataError, ProtocolName
from mynah.tasks.ks import COMMANDS
from mynah.tasks.ks import TASK as KS


@pytest.mark.parametrize("protocol", BOTH)
def test_ks_on_any_words(protocol: ProtocolName) -> None:
    task = KS(protocol)
    data = task.load(keywords(10))
    assert data.classes == ("a", "b", "c")
    train, dev, test = people(data.folds[""])
    assert not (train & dev or train & test or dev & test)
    assert task.outputs == 3
    assert task.head(5)(torch.zeros(2, 5)).shape == (2, 3)


def test_ks_takes_the_label_label_and_words_of_a_subset() -> None:
    corpus = [
        dataclasses.replace(u, labels={"label": u.labels["keyword"], "subset": "w"})
        for u in keywords()
    ]
    corpus += [utterance("read-1", speaker="s1", subset="read")]
    assert KS().load(corpus).classes == ("a", "b", "c")


def commands(silence_split: str = "train") -> list:  # type: ignore[type-arg]
    out = []
    for split, speakers in (("train", "pqr"), ("dev", "st"), ("test", "uv")):
        for s in speakers:
            out += [
                utterance(f"{s}-{w}", speaker=s, split=split, keyword=w)
                for w in (*COMMANDS, "bird", "cat")
            ]
        out.append(utterance(f"noise-{split}", speaker=f"n-{silence_split}" if split != "test" else None,
                             split=split, seconds=60.0 if split != "test" else 1.0, keyword="_silence_"))  # fmt: skip
    return out


def test_ks_on_speech_commands_has_twelve_classes() -> None:
    task = KS("superb")
    data = task.load(commands())
    assert data.classes == (*COMMANDS, "_unknown_", "_silence_")
    assert task.reference(utterance("x", keyword="bird")) == "_unknown_"


def test_ks_superb_shares_silence_and_fixed_refuses() -> None:
    KS("superb").load(commands())
    with pytest.raises(DataError, match="train and dev share speaker n-train"):
        KS("fixed").load(commands())


def seconds_of_noise(name: str, split: str, first: int, last: int) -> list:  # type: ignore[type-arg]
    return [
        dataclasses.replace(
            utterance(f"{name}-{split}-{s:03d}", split=split, keyword="_silence_"),
            path=f"/nowhere/{name}.wav", start=float(s),
        )
        for s in range(first, last)
    ]  # fmt: skip


def test_ks_seconds_of_one_recording_of_silence() -> None:
    words = [u for u in commands() if u.split == "test" or not u.id.startswith("noise")]
    noise = [*seconds_of_noise("hum", "train", 0, 9), *seconds_of_noise("hum", "dev", 9, 10)]
    train, dev, _ = KS("fixed").load([*words, *noise]).folds[""]
    assert sum(u.labels["keyword"] == "_silence_" for u in train.utterances) == 9
    assert sum(u.labels["keyword"] == "_silence_" for u in dev.utterances) == 1
    train, dev, test = KS("superb").load([*words, *noise]).folds[""]
    silent = [{u.id for u in part.utterances if u.labels["keyword"] == "_silence_"} for part in (train, dev, test)]  # fmt: skip
    assert silent == [{u.id for u in noise}, {u.id for u in noise}, {"noise-test"}]
    assert len(train.utterances) == 3 * 12 + 10
    leaky = [*noise, *seconds_of_noise("hum", "dev", 8, 9)]
    with pytest.raises(DataError, match="hum-train-008 of train and hum-dev-008 of dev"):
        KS("fixed").load([*words, *leaky])


def test_ks_silence_is_cropped_to_seconds_that_can_be_kept() -> None:
    task = KS("superb")
    data = task.load(commands())
    noise = next(u for u in data.folds[""][0].utterances if u.id.startswith("noise"))
    crops = task.views(noise)
    assert len({u.id for u in crops}) == len(crops) == 16
    assert all(u.duration == 1.0 and 0 <= u.start <= 59 for u in crops)
    assert len({u.start for u in crops}) > 10
    assert crops == task.views(noise)
    assert task.views(data.folds[""][2].utterances[0]) == (data.folds[""][2].utterances[0],)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([utterance("u", speaker="s")], "none of the 1 utterances has it"),
        ([*keywords(4), utterance("bare", speaker="s9")], "without it: bare"),
        (keywords(2), "there are only 2"),
        (keywords(6, words="a"), "only one class"),
    ],
)
def test_ks_bad_data_is_named(corpus: list, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError, match=message):
        KS().load(corpus)


def test_ks_a_class_that_train_lacks_and_shared_speakers() -> None:
    def parts(**change: str) -> list:  # type: ignore[type-arg]
        made = [
            utterance(f"{split}{s}-{w}", speaker=f"{split}{s}", split=split, keyword=w)
            for split in ("train", "dev", "test")
            for s in range(2)
            for w in "ab"
        ]
        return (
            [*made, utterance("odd", speaker="odd", split="test", keyword="zebra")]
            if change
            else made
        )

    assert KS().load(parts()).notes == ("splits are the corpus's own",)
    with pytest.raises(DataError, match=r"test has classes that train has not: zebra of odd"):
        KS().load(parts(odd="yes"))
    shared = [dataclasses.replace(u, speaker="everyone") for u in parts()]
    with pytest.raises(DataError, match=r"train and dev share speaker everyone.*--splits made"):
        KS().load(shared)
    mixed = [dataclasses.replace(u, speaker=f"p{i % 5}") for i, u in enumerate(parts())]
    people(KS(splits="made").load(mixed).folds[""])  # made anew, so it passes its own check
