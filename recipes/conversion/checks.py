"""What a recording must be to be converted, or to stand for a voice; and what is made of it.

Shape suffixes: S samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]

SHORTEST = 0.5
"""Seconds of a source."""
LEAST_REFERENCE = 1.0
"""Seconds of speech by which a target can be known at all."""
GOOD_REFERENCE = 5.0
"""Seconds of speech below which it is known badly."""
RATES = (8000, 192000)
SILENCE = 1e-3
"""Root mean square below which nothing is said (-60 dB of full scale)."""


class RefusedError(ValueError):
    """A recording that cannot be used; the message says why and what would do."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Audio in memory.

    Attributes:
        wav_S: float32 samples, one channel.
        sample_rate: Hz.
        name: for messages.
    """

    wav_S: Wave
    sample_rate: int
    name: str = "the recording"

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.wav_S) / self.sample_rate


def read_recording(path: Path, *, name: str | None = None) -> Recording:
    """Read the first channel of an audio file.

    Raises:
        BadAudioError: it cannot be read, or is too long to be held.
    """
    from mynah.recipes.listening import utterance_of
    from mynah.tasks.corpora.audio import read

    utterance = utterance_of(path, name=str(path), channel=0)
    wav_S = read(utterance, utterance.sample_rate)
    return Recording(wav_S=wav_S, sample_rate=utterance.sample_rate, name=name or str(path))


def check_source(source: Recording, *, longest: float) -> None:
    """Refuse what cannot be converted.

    Args:
        source: what is to be converted.
        longest: seconds.

    Raises:
        RefusedError: a strange rate, NaN, too short, too long, or silence.
    """
    _check(source)
    if source.seconds < SHORTEST:
        raise RefusedError(
            f"{source.name} lasts {source.seconds:.2f} s: a source needs {SHORTEST:g} s or more"
        )
    if source.seconds > longest:
        raise RefusedError(
            f"{source.name} lasts {source.seconds:.0f} s, more than {longest:g}: cut it, or allow "
            "more (--max-seconds)"
        )
    if not loud(source.wav_S):
        raise RefusedError(f"{source.name} is silent: there is nothing to convert")


def check_references(references: Sequence[Recording]) -> tuple[list[Recording], list[str]]:
    """Return references without the silence at their ends, and what to warn of.

    Raises:
        RefusedError: none, one that is NaN or silent, or less than a second of speech in all.
    """
    if not references:
        raise RefusedError("a target is known by recordings: give at least one")
    kept = []
    for one in references:
        _check(one)
        if not loud(one.wav_S):
            raise RefusedError(f"{one.name} is silent: it says nothing of a voice")
        kept.append(trimmed(one))
    total = sum(one.seconds for one in kept)
    if total < LEAST_REFERENCE:
        raise RefusedError(
            f"the target's recordings hold {total:.2f} s of speech: give {LEAST_REFERENCE:g} s at "
            f"the very least, {GOOD_REFERENCE:g} s or more for a likeness"
        )
    warnings = []
    if total < GOOD_REFERENCE:
        warnings.append(
            f"the target is known by {shorter(total)} s of speech only: give "
            f"{GOOD_REFERENCE:g} s or more"
        )
    return kept, warnings


def _check(recording: Recording) -> None:
    low, high = RATES
    if not low <= recording.sample_rate <= high:
        raise RefusedError(
            f"{recording.name} has {recording.sample_rate} Hz: {low} to {high} can be used"
        )
    if recording.wav_S.ndim != 1 or not len(recording.wav_S):
        raise RefusedError(f"{recording.name} holds no samples")
    if not np.isfinite(recording.wav_S).all():
        raise RefusedError(f"{recording.name} holds samples that are NaN or infinite")


def shorter(seconds: float) -> str:
    """Return seconds for people, never more than there are: 4.97 is not the 5.0 that was wanted."""
    return f"{math.floor(10 * seconds) / 10:.1f}"


def loud(wav_S: Wave) -> bool:
    """Return whether anything is said."""
    return bool(np.sqrt(np.mean(np.square(wav_S, dtype=np.float64))) >= SILENCE)


def trimmed(recording: Recording, *, below: float = 40.0) -> Recording:
    """Return a recording without the parts at its ends that are so many dB below the loudest."""
    size = max(1, recording.sample_rate // 100)
    frames = np.array_split(recording.wav_S, max(1, len(recording.wav_S) // size))
    level = np.array([np.sqrt(np.mean(np.square(f, dtype=np.float64))) for f in frames])
    loud_frames = np.flatnonzero(level >= level.max() * 10 ** (-below / 20))
    edges = np.cumsum([0, *map(len, frames)])
    first, last = edges[loud_frames[0]], edges[loud_frames[-1] + 1]
    return Recording(
        wav_S=recording.wav_S[first:last],
        sample_rate=recording.sample_rate,
        name=recording.name,
    )


def resampled(recording: Recording, sample_rate: int) -> Wave:
    """Return the samples at another rate."""
    import soxr

    if recording.sample_rate == sample_rate:
        return recording.wav_S.astype(np.float32, copy=False)
    return np.ascontiguousarray(
        soxr.resample(recording.wav_S.astype(np.float32), recording.sample_rate, sample_rate)
    )


def active_level(wav_S: Wave, sample_rate: int) -> float:
    """Return the root mean square of the parts that are within 30 dB of the loudest 20 ms."""
    size = max(1, sample_rate // 50)
    frames = np.array_split(wav_S, max(1, len(wav_S) // size))
    power = np.array([np.mean(np.square(f, dtype=np.float64)) for f in frames])
    return float(np.sqrt(power[power >= power.max() * 1e-3].mean()))
