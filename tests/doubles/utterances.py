"""Utterances without audio, for tasks, which never open any."""

import random

from mynah.tasks.corpora.utterance import Interval, Utterance

PHONES = ["P", "T", "K", "AA1", "IY0", "UW2"]


def utterance(name: str, *, speaker: str | None = None, seconds: float = 1.0, text: str | None = None,
              split: str | None = None, **labels: str) -> Utterance:  # fmt: skip
    return Utterance(
        id=name, path=f"/nowhere/{name}.wav", start=0.0, duration=seconds, sample_rate=16000,
        speaker=speaker, text=text, split=split, labels=labels,
        intervals={"sounds": (Interval("sound", 0.0, seconds),)},
    )  # fmt: skip


def keywords(speakers: int = 10, each: int = 6, words: str = "abc", **more: str) -> list[Utterance]:
    return [
        utterance(f"s{s}-{i}", speaker=f"s{s}", keyword=words[i % len(words)], **more)
        for s in range(speakers)
        for i in range(each)
    ]


def emotions(speakers: int = 6, each: int = 8, classes: str = "xy") -> list[Utterance]:
    return [
        utterance(f"s{s}-{i}", speaker=f"s{s}", emotion=classes[i % len(classes)])
        for s in range(speakers)
        for i in range(each)
    ]


def spoken(speakers: int = 8, each: int = 5) -> list[Utterance]:
    rng = random.Random(0)
    return [
        utterance(
            f"s{s}-{i}", speaker=f"s{s}", seconds=1.0 + i,
            phones=" | ".join(" ".join(rng.choices(PHONES, k=3)) for _ in range(1 + i)),
        )
        for s in range(speakers)
        for i in range(each)
    ]  # fmt: skip


def people(
    speakers: int = 10, each: int = 4, *, seconds: float = 3.0, split: str | None = None,
    first: int = 0, **more: str,
) -> list[Utterance]:  # fmt: skip
    return [
        utterance(f"p{s:02d}-{i}", speaker=f"p{s:02d}", seconds=seconds, split=split, **more)
        for s in range(first, first + speakers)
        for i in range(each)
    ]
