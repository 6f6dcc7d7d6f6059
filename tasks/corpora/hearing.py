"""What SUPERB does to audio before an upstream hears it: a gain, and silences cut out.

s3prl hands sox ``channels 1; rate 16000; gain -3`` for KS, QbE and ASV, and for ASV also ``silence 1
0.1 0.1% -1 0.1 0.1%`` (``tasks.corpora.shape`` has both effects). Here no audio is written again: the
gain and the samples that are left belong to the utterance, and reading applies them.

Where there is sound is found as a corpus is prepared and kept as the tier ``sounds``, because finding
it takes decoding: ``mynah prepare voxceleb1`` does so, any other with ``--sounds``. Without the tier
it is looked for here, of ten hours at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mynah.tasks.corpora import audio, shape
from mynah.tasks.corpora.utterance import Interval, Utterance

DECIBELS = -3.0
TIER = "sounds"
SYMBOL = "sound"
HOURS = 10.0


Hearing = Literal["recorded", "softer", "sounds"]
"""How utterances are heard: as they were recorded; 3 dB softer; softer and without silences."""


def heard(
    utterances: Sequence[Utterance], hearing: Hearing
) -> tuple[list[Utterance], dict[str, str]]:
    """Return utterances as a protocol hears them.

    Returns:
        those of which something is left, in order; and why the others are not there, by id.

    Raises:
        ValueError, BadAudioError: as :func:`without_silence`.
    """
    if hearing == "sounds":
        return without_silence(utterances)
    return (softer(utterances) if hearing == "softer" else list(utterances)), {}


def softer(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return utterances that are heard 3 dB softer."""
    return [replace(u, gain=DECIBELS) for u in utterances]


def tier(utterance: Utterance, wav_S: NDArray[np.float32]) -> tuple[Interval, ...]:
    """Return where there is sound in an utterance's audio once it is 3 dB softer.

    Args:
        utterance: for its sample rate.
        wav_S: its samples (S,), full scale is 1, at the file's own rate.

    Raises:
        ValueError: samples that are not finite.
    """
    rate = utterance.sample_rate
    found = shape.sounds(shape.gain(wav_S, DECIBELS), rate)
    return tuple(Interval(SYMBOL, first / rate, last / rate) for first, last in found)


def without_silence(utterances: Sequence[Utterance]) -> tuple[list[Utterance], dict[str, str]]:
    """Return utterances of which only the sounds are heard, 3 dB softer.

    Returns:
        those of which something is left, in order; and why the others are not there, by id.

    Raises:
        ValueError: more than ten hours have no tier ``sounds``.
        BadAudioError: audio without the tier cannot be read.
    """
    unknown = sum(u.duration for u in utterances if TIER not in u.intervals) / 3600
    if unknown > HOURS:
        raise ValueError(
            f"{unknown:.1f} hours of audio have no tier {TIER!r}, which says where silences are to "
            "be cut: prepare the corpus again with --sounds"
        )
    kept, skipped = [], {}
    for u in utterances:
        if (found := u.intervals.get(TIER)) is None:
            found = tier(u, audio.read(u, u.sample_rate))
        first, rate = audio.span(u)[0], u.sample_rate
        stretches = [(first + round(i.start * rate), first + round(i.end * rate)) for i in found]
        if stretches:
            kept.append(replace(u.only(stretches), gain=DECIBELS))
        else:
            skipped[u.id] = "nothing is left of it when silences are cut out"
    return kept, skipped
