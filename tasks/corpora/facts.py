"""What the page of a prepared corpus says of its utterances: how many, how long, in which splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mynah.tasks.corpora.audio import span
from mynah.tasks.corpora.utterance import Utterance


def facts(utterances: Sequence[Utterance], *, recordings: int) -> dict[str, Any]:
    """Return the facts, of the whole and of each split, and which labels, plain and timed, there are.

    Args:
        utterances: in order of their ids.
        recordings: number of files.
    """
    splits = sorted({u.split for u in utterances if u.split is not None})
    return {
        **_counts(utterances),
        "recordings": recordings,
        "splits": {name: _counts([u for u in utterances if u.split == name]) for name in splits},
        "labels": _labels(utterances),
        "tiers": _tiers(utterances),
    }


def _counts(utterances: Sequence[Utterance]) -> dict[str, Any]:
    seconds = sum(span(u)[1] / u.sample_rate for u in utterances)
    return {
        "utterances": len(utterances),
        "seconds": round(seconds, 3),
        "speakers": len({u.speaker for u in utterances if u.speaker is not None}),
    }


def _labels(utterances: Sequence[Utterance]) -> dict[str, dict[str, int]]:
    seen: dict[str, set[str]] = {}
    count: dict[str, int] = {}
    for utterance in utterances:
        own = {"speaker": utterance.speaker, "text": utterance.text}
        for name, value in [*own.items(), *utterance.labels.items()]:
            if value is not None:
                seen.setdefault(name, set()).add(value)
                count[name] = count.get(name, 0) + 1
    return {n: {"utterances": count[n], "values": len(seen[n])} for n in sorted(seen)}


def _tiers(utterances: Sequence[Utterance]) -> dict[str, dict[str, int]]:
    """Return, of each kind of timed labels, how many utterances have it and its distinct labels."""
    seen: dict[str, set[str]] = {}
    count: dict[str, int] = {}
    for utterance in utterances:
        for name, intervals in utterance.intervals.items():
            seen.setdefault(name, set()).update(interval.symbol for interval in intervals)
            count[name] = count.get(name, 0) + 1
    return {n: {"utterances": count[n], "values": len(seen[n])} for n in sorted(seen)}
