"""What passes between the parts of the generator: who speaks, what is said, what came out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

SILENCE = "SIL"
VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH"),
    *("T", "TH", "V", "W", "Y", "Z", "ZH"),
)
PHONES = VOWELS + CONSONANTS  # the 39 phones of the CMU dictionary, without stress


def stream(seed: int, *names: object) -> np.random.RandomState:
    """Return a random stream of its own for a name.

    ``RandomState``, because numpy promises never to change its streams (NEP 19). Two names give
    unrelated streams, so nothing depends on the order in which utterances are made.
    """
    digest = hashlib.sha256("\x1f".join(map(str, (seed, *names))).encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """A voice, described independently of the engine that speaks it.

    Attributes:
        id: speaker id.
        gender: ``m`` or ``f``.
        split: ``train``, ``dev`` or ``test``: speakers are disjoint between splits.
        accent: name of the accent (see ``espeak.ACCENTS``).
        pitch: lowest and highest F0 of neutral speech, Hz.
        formants: factor on each of formants 1..8 (vocal-tract length times jitter).
        heights: factor on the amplitude of formants 1..8.
        widths: factor on the bandwidth of formants 1..8.
        breath: aspiration, 0 (none) to 6.
        voicing: level of voicing, 1 is normal.
        consonants: level of unvoiced and of voiced consonant noise, 1 is normal.
        tone: spectral tilt in dB per octave above 500 Hz, 0 is normal.
        stress: relative length of syllables by stress, eight classes, milliseconds.
        intonation: intonation pattern, 1 to 4.
        wpm: words per minute of neutral speech.
    """

    id: str
    gender: str
    split: str
    accent: str
    pitch: tuple[float, float]
    formants: tuple[float, ...]
    heights: tuple[float, ...]
    widths: tuple[float, ...]
    breath: float
    voicing: float
    consonants: tuple[float, float]
    tone: float
    stress: tuple[int, ...]
    intonation: int
    wpm: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prosody:
    """How one utterance departs from its speaker's neutral way of speaking.

    Attributes:
        rate: factor on the speaking rate.
        pitch: shift of the mean F0, in steps of about 1 % (espeak's scale: 50 is a factor of two).
        range: widening of the F0 range on the same scale, -50 is monotone.
        tone: additional spectral tilt, dB per octave.
        breath: additional aspiration.
    """

    rate: float = 1.0
    pitch: float = 0.0
    range: float = 0.0
    tone: float = 0.0
    breath: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One utterance to be made.

    Attributes:
        id: utterance id, unique in the corpus; every random choice of its rendering is keyed by it.
        subset: which part of the corpus it belongs to.
        speaker: speaker id.
        text: lower-case words; empty for a recording without speech.
        session: index of the speaker's recording session.
        prosody: departure from neutral.
        labels: labels that follow from the text and the plan.
    """

    id: str
    subset: str
    speaker: str
    text: str
    session: int
    prosody: Prosody = field(default_factory=Prosody)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """What an engine says for one line.

    Attributes:
        samples: mono waveform (S,), float32 in [-1, 1].
        rate: its sample rate in Hz.
        phones: ``(symbol, first sample, sample after the last)``, contiguous; pauses are ``SIL``.
        words: the same for the words of the text, in order; pauses are left out.
    """

    samples: np.ndarray
    rate: int
    phones: tuple[tuple[str, int, int], ...]
    words: tuple[tuple[str, int, int], ...]


class Engine(Protocol):
    """A speech synthesiser for one speaker at a time."""

    name: str
    version: str

    def speak(self, speaker: Speaker, line: Line, seed: int) -> Speech:
        """Return the speech of one line; depends on the arguments alone."""

    def close(self) -> None:
        """Release the engine."""
