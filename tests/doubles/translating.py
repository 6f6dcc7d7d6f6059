"""Utterances with translations but without audio, and ST loaded with them."""

import dataclasses
from collections.abc import Sequence

from utterances import utterance

from mynah.tasks.core.contract import Facts, ProtocolName
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.st import TASK as ST

FACTS = Facts(dim=6, layers=2, stride=320, sample_rate=16000)


def said(speakers: int = 8, **more: str) -> list[Utterance]:
    return [
        utterance(f"s{s}-{i}", speaker=f"s{s}", text=f"line {s} {i}",
                  translation=f"Zeile {s} ({'abcdefgh'[i]}).", **more)
        for s in range(speakers)
        for i in range(3)
    ]  # fmt: skip


def parted(*, test: str = "Zeile (a).") -> list[Utterance]:
    """Named parts: s0-s5 train, s6 dev, s7 test, of which one utterance says something else."""
    parts = ["train"] * 6 + ["dev", "test"]
    corpus = [dataclasses.replace(u, split=parts[int(u.id[1])]) for u in said()]
    corpus.append(utterance("s7-x", speaker="s7", split="test", translation=test))
    return corpus


def loaded(protocol: ProtocolName, corpus: Sequence[Utterance] | None = None) -> ST:
    task = ST(protocol, heads="small")
    task.load(said() if corpus is None else corpus)
    return task
