"""Audio that somebody gave to the page: decoded, held against the limits, said in words of our own.

The path and the file's own name never reach the page: a recording is *your source* or *your target*.

Shape suffixes: S samples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mynah.recipes.conversion.checks import SHORTEST, Recording, RefusedError
from mynah.tasks.corpora.audio import BadAudioError, probe, read
from mynah.tasks.corpora.header import FORMATS
from mynah.tasks.corpora.utterance import Utterance

SOURCE_SECONDS = (SHORTEST, 30.0)
"""Shortest and longest source."""
TARGET_SECONDS = (3.0, 120.0)
"""Shortest and longest recording of a target."""
MAX_BYTES = 25 * 2**20
"""Largest upload: two minutes of 44.1 kHz stereo at 16 bits, and a little more."""


def of_file(path: str | Path, *, name: str, limits: tuple[float, float]) -> Recording:
    """Decode a file that was uploaded or recorded; several channels become their mean.

    Args:
        path: of the file.
        name: what messages call it.
        limits: shortest and longest, in seconds; the header is asked before anything is decoded.

    Raises:
        RefusedError: not audio that is read here, damaged, too short or too long.
    """
    try:
        info = probe(path)
        refuse_length(info.duration, name=name, limits=limits)
        channels = [
            read(
                Utterance(
                    id=name,
                    path=str(path),
                    start=0.0,
                    duration=info.duration,
                    sample_rate=info.sample_rate,
                    channel=channel,
                ),
                info.sample_rate,
            )
            for channel in range(info.channels)
        ]
    except BadAudioError as error:
        raise RefusedError(f"{name}: {without_path(str(error), path)}") from error
    wav_S = np.stack(channels).mean(axis=0, dtype=np.float32)
    return Recording(name=name, wav_S=wav_S, sample_rate=info.sample_rate)


def of_utterance(u: Utterance, *, name: str = "") -> Recording:
    """Decode an utterance of a corpus at its own rate.

    Raises:
        BadAudioError: its file is gone or damaged.
    """
    return Recording(name=name or u.id, wav_S=read(u, u.sample_rate), sample_rate=u.sample_rate)


def first(recording: Recording, seconds: float) -> Recording:
    """Return the beginning of a recording."""
    kept = round(seconds * recording.sample_rate)
    return Recording(
        name=recording.name, wav_S=recording.wav_S[:kept], sample_rate=recording.sample_rate
    )


def refuse_length(seconds: float, *, name: str, limits: tuple[float, float]) -> None:
    """Refuse what is too short or too long.

    Raises:
        RefusedError: with the length, the limit, and what to do.
    """
    shortest, longest = limits
    if seconds < shortest:
        raise RefusedError(
            f"{name} lasts {seconds:.1f} s, at least {shortest:g} s are needed: give a longer one"
        )
    if seconds > longest:
        raise RefusedError(
            f"{name} lasts {seconds:.1f} s, at most {longest:g} s are taken: cut it (the scissors "
            "below the waveform do)"
        )


def without_path(message: str, path: str | Path) -> str:
    """Return a message about a file without its path, and what can be read where it could not."""
    said = message
    for shown in (repr(str(path)), str(path)):
        said = said.replace(f"{shown}: ", "").replace(shown, "the file")
    if "not readable as audio" in said or "is not one of" in said:
        return f"this is not audio that is read here; give one of {', '.join(FORMATS)}"
    return said
