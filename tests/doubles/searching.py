"""QUESST in utterances without audio, and QbE loaded with it."""

from utterances import utterance

from mynah.tasks.core.contract import ProtocolName
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.qbe import TASK as QBE


def official() -> list[Utterance]:
    docs = [utterance(f"d{i}", subset="documents", split="docs", seconds=2.0 + i) for i in range(5)]
    asked = [
        utterance("q1", subset="queries", split="dev", documents="d3 d1"),
        utterance("q2", subset="queries", split="dev"),
        utterance("q3", subset="queries", split="test", documents="d0"),
        utterance("q4", subset="queries", split="test", documents="d4 d0 d2"),
    ]
    return [*docs, *asked]


def loaded(protocol: ProtocolName = "fixed") -> QBE:
    task = QBE(protocol)
    task.load(official())
    return task
