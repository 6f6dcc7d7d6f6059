"""Crops of utterances, enumerated so that they can be extracted once."""

from __future__ import annotations

import random

from mynah.tasks.corpora.utterance import Utterance


def random_crops(utterance: Utterance, seconds: float, count: int) -> tuple[Utterance, ...]:
    """Return ``count`` crops at random starts, drawn from the utterance's id; ids get ``@8sx4.1`` ....

    Crops that are enumerated can be extracted once; a crop at every access could not.
    """
    rng = random.Random(f"crops|{utterance.id}")
    room = utterance.duration - seconds
    # The last half millisecond would be rounded out of the utterance.
    offsets = sorted(min(round(rng.uniform(0, room), 3), room) for _ in range(count))
    return tuple(
        utterance.crop(offset, seconds, name=f"{utterance.id}@{seconds:g}sx{count}.{i}")
        for i, offset in enumerate(offsets, start=1)
    )
