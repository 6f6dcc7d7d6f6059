"""What the page of a prepared corpus says of its utterances: how many, how long, in which splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
    own = ({"speaker": u.speaker, "text": u.text, **u.labels} for u in utterances)
    return _counted({n: (v,) for n, v in one.items() if v is not None} for one in own)


def _tiers(utterances: Sequence[Utterance]) -> dict[str, dict[str, int]]:
    return _counted(
        {n: [i.symbol for i in u.intervals[n]] for n in u.intervals} for u in utterances
    )


def _counted(rows: Iterable[Mapping[str, Iterable[str]]]) -> dict[str, dict[str, int]]:
    """Return, of each name, in how many utterances it is and its distinct values."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    count: Counter[str] = Counter()
    for row in rows:
        for name, values in row.items():
            seen[name].update(values)
            count[name] += 1
    return {n: {"utterances": count[n], "values": len(seen[n])} for n in sorted(seen)}
