"""Recordings of two speakers without audio, and SD loaded with them."""

from mynah.tasks.core.contract import Facts
from mynah.tasks.corpora.utterance import Interval, Utterance
from mynah.tasks.sd import TASK as SD

FACTS = Facts(dim=4, layers=2, stride=160, sample_rate=16000)


def recording(name: str, split: str | None, *turns: tuple[str, float, float], seconds: float = 1.0) -> Utterance:  # fmt: skip
    return Utterance(
        id=name, path=f"/nowhere/{name}.wav", start=0.0, duration=seconds, sample_rate=16000,
        split=split, intervals={"speakers": tuple(Interval(*turn) for turn in turns)},
    )  # fmt: skip


def corpus(train_seconds: float = 1.0) -> list[Utterance]:
    out = []
    for part, (a, b) in {"train": "ab", "dev": "cd", "test": "ef"}.items():
        seconds = train_seconds if part == "train" else 1.0
        for i in range(3):
            name = f"{part}{i}"
            turns = [(a, 0.1, 0.5), (b, 0.4, 0.8 + i / 10)]
            out.append(recording(name, part, *turns, seconds=seconds))
    return out


def bound(protocol: str = "fixed", utterances: list[Utterance] | None = None):  # type: ignore[no-untyped-def]
    task = SD(protocol)  # type: ignore[arg-type]
    task.load(utterances or corpus())
    task.bind(FACTS)
    return task
