"""Utterances cut into stretches of one length, as speakers are told apart by seconds of speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mynah.tasks.corpora.utterance import Interval, Utterance

# What was said in an utterance was not said in a part of it.
CONTENT = (
    *("phones", "phones_cmudict", "words", "sentence", "parallel", "translation", "keyword"),
    *("intent", "action", "object", "location", "slots", "term", "documents"),
)
# Lengths that are whole seconds to the listener are not always whole to a float.
_TOLERANCE = 1e-6


def cut(utterances: Sequence[Utterance], seconds: float) -> list[Utterance]:
    """Cut utterances into consecutive stretches; ends that are too short are left out.

    A stretch is called ID-0000, ID-0001 ... and keeps speaker, split and labels, except for the
    transcript and labels that are about the whole (:data:`CONTENT`). Timed labels are cut too.

    Args:
        utterances: the corpus.
        seconds: length of a stretch.

    Returns:
        stretches, in order.

    Raises:
        ValueError: no positive length, or no utterance that is long enough.
    """
    if not seconds > 0:
        raise ValueError(f"stretches must be longer than 0 seconds, got {seconds:g}")
    found = [
        _part(utterance, number, seconds)
        for utterance in utterances
        for number in range(int((utterance.duration + _TOLERANCE) / seconds))
    ]
    if not found:
        longest = max((u.duration for u in utterances), default=0.0)
        raise ValueError(
            f"stretches of {seconds:g} s were asked for, the longest utterance has {longest:.3f} s"
        )
    return found


def _part(utterance: Utterance, number: int, seconds: float) -> Utterance:
    offset = number * seconds
    return replace(
        utterance,
        id=f"{utterance.id}-{number:04d}",
        start=utterance.start + offset,
        duration=min(seconds, utterance.duration - offset),
        text=None,
        labels={
            name: value
            for name, value in utterance.labels.items()
            if name not in CONTENT and not name.startswith("slot_")
        },
        intervals={
            tier: tuple(
                Interval(i.symbol, max(0.0, i.start - offset), min(seconds, i.end - offset))
                for i in intervals
                if i.start < offset + seconds and i.end > offset
            )
            for tier, intervals in utterance.intervals.items()
        },
    )
