"""A small formant synthesiser of our own: no dependency, plain voices, exact times by construction.

A cascade of five resonators driven by pulses and breath, beside a branch of shaped noise for
fricatives and bursts, after D. H. Klatt, "Software for a cascade/parallel formant synthesizer",
JASA 67 (1980). Targets are those of textbooks for a male voice (Peterson & Barney 1952 for the
vowels), joined by smoothing; a speaker scales them. It serves tests, and machines without
espeak-ng: intelligible, but plainer than that engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.signal import lfilter

from mynah.tasks.corpora.mini import lexicon
from mynah.tasks.corpora.mini.script import SILENCE, VOWELS, Line, Speaker, Speech, stream

RATE = 16000
FRAME = 80  # 5 ms
_HOP, _WINDOW, _FFT = 160, 320, 1024  # of the filters: every second frame
_BANDWIDTHS = (70.0, 100.0, 140.0, 250.0, 300.0)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a phone's resonances lie and how it sounds.

    Attributes:
        formants: F1, F2, F3 in Hz of a male voice; a second triple is where a diphthong ends.
        voice: level of voicing.
        noise: level of the noise branch.
        centre: centre of the noise, Hz.
        width: its bandwidth, Hz.
        seconds: length when unstressed, at 170 words per minute.
    """

    formants: tuple[float, float, float]
    voice: float = 1.0
    noise: float = 0.0
    centre: float = 4000.0
    width: float = 1500.0
    seconds: float = 0.07
    end: tuple[float, float, float] | None = None


_T = Target
TARGETS: dict[str, Target] = {
    "AA": _T((730, 1090, 2440), seconds=0.11),
    "AE": _T((660, 1720, 2410), seconds=0.11),
    "AH": _T((620, 1190, 2390), seconds=0.07),
    "AO": _T((570, 840, 2410), seconds=0.11),
    "AW": _T((720, 1250, 2440), seconds=0.14, end=(440, 900, 2300)),
    "AY": _T((720, 1200, 2450), seconds=0.14, end=(380, 2100, 2650)),
    "EH": _T((530, 1840, 2480), seconds=0.09),
    "ER": _T((490, 1350, 1690), seconds=0.11),
    "EY": _T((480, 1950, 2550), seconds=0.12, end=(330, 2200, 2750)),
    "IH": _T((390, 1990, 2550), seconds=0.07),
    "IY": _T((270, 2290, 3010), seconds=0.10),
    "OW": _T((530, 1000, 2400), seconds=0.12, end=(380, 850, 2300)),
    "OY": _T((560, 850, 2400), seconds=0.15, end=(390, 2000, 2600)),
    "UH": _T((440, 1020, 2240), seconds=0.07),
    "UW": _T((300, 870, 2240), seconds=0.10),
    "L": _T((360, 1100, 2700), voice=0.8),
    "R": _T((420, 1150, 1550), voice=0.8),
    "W": _T((300, 650, 2200), voice=0.8),
    "Y": _T((270, 2250, 3000), voice=0.5, seconds=0.06),
    "M": _T((260, 1000, 2200), voice=0.7),
    "N": _T((260, 1600, 2600), voice=0.7),
    "NG": _T((260, 2000, 2700), voice=0.7),
    "B": _T((220, 900, 2300), voice=0.12, noise=0.25, centre=900, width=1200, seconds=0.06),
    "D": _T((220, 1700, 2600), voice=0.12, noise=0.3, centre=3500, width=2000, seconds=0.06),
    "G": _T((220, 1900, 2300), voice=0.12, noise=0.3, centre=2000, width=900, seconds=0.07),
    "P": _T((350, 900, 2300), voice=0.0, noise=0.35, centre=1000, width=1500, seconds=0.09),
    "T": _T((350, 1700, 2600), voice=0.0, noise=0.5, centre=4200, width=2200, seconds=0.09),
    "K": _T((350, 1900, 2300), voice=0.0, noise=0.45, centre=2200, width=900, seconds=0.10),
    "CH": _T((350, 1900, 2600), voice=0.0, noise=0.5, centre=3000, width=1200, seconds=0.12),
    "JH": _T((250, 1900, 2600), voice=0.15, noise=0.35, centre=3000, width=1200, seconds=0.10),
    "F": _T((340, 1100, 2100), voice=0.0, noise=0.12, centre=4500, width=5000, seconds=0.10),
    "TH": _T((340, 1400, 2500), voice=0.0, noise=0.12, centre=5500, width=4000, seconds=0.09),
    "S": _T((340, 1500, 2600), voice=0.0, noise=0.5, centre=5800, width=1500, seconds=0.11),
    "SH": _T((340, 1800, 2600), voice=0.0, noise=0.5, centre=3200, width=1300, seconds=0.11),
    "HH": _T((500, 1500, 2500), voice=0.0, noise=0.2, centre=1500, width=2500, seconds=0.06),
    "V": _T((260, 1100, 2100), voice=0.35, noise=0.07, centre=4500, width=5000, seconds=0.06),
    "DH": _T((260, 1400, 2500), voice=0.35, noise=0.07, centre=5500, width=4000, seconds=0.05),
    "Z": _T((260, 1500, 2600), voice=0.3, noise=0.3, centre=5800, width=1500, seconds=0.08),
    "ZH": _T((260, 1800, 2600), voice=0.3, noise=0.3, centre=3200, width=1300, seconds=0.08),
    SILENCE: _T((500, 1500, 2500), voice=0.0, noise=0.0, seconds=0.05),
}
_BURST = frozenset(("B", "D", "G", "P", "T", "K", "CH", "JH"))  # closure, then noise
_VOWEL = frozenset(VOWELS)
# accent -> factors on (F1, F2) of some vowels
_ACCENTS: dict[str, dict[str, tuple[float, float]]] = {
    "us": {},
    "gb": {"AA": (0.85, 0.9), "OW": (0.95, 1.25), "AE": (1.1, 0.95)},
    "rp": {"AA": (0.82, 0.88), "OW": (0.9, 1.35), "UW": (1.0, 1.3)},
    "lancaster": {"AH": (0.75, 0.9), "EY": (1.0, 0.95), "AA": (0.85, 0.9)},
    "caribbean": {"AH": (1.1, 1.0), "ER": (1.1, 0.95), "EY": (0.9, 1.05), "OW": (0.85, 0.9)},
    "newyork": {"AO": (0.85, 0.85), "AE": (0.85, 1.1), "ER": (1.0, 0.9)},
}


@dataclass(slots=True)
class _Tracks:
    """Parameters by frame."""

    formants: np.ndarray  # (T, 3) Hz
    voice: np.ndarray  # (T,)
    noise: np.ndarray  # (T,)
    centre: np.ndarray  # (T,) Hz
    width: np.ndarray  # (T,) Hz
    f0: np.ndarray  # (T,) Hz


class Formant:
    """The synthesiser as an engine."""

    name = "formant"
    version = "1"

    def close(self) -> None:
        """Nothing is held."""

    def speak(self, speaker: Speaker, line: Line, seed: int) -> Speech:
        """Return the speech of one line; a function of the arguments.

        Raises:
            LookupError: a word is not in the lexicon.
        """
        rng = stream(seed, "formant")
        words = line.text.split()
        segments = [(SILENCE, -1)]
        segments += [(p, k) for k, word in enumerate(words) for p in lexicon.pronounce(word)]
        segments.append((SILENCE, -1))
        symbols = [s for s, _ in segments]
        pace = 170 / (speaker.wpm * line.prosody.rate)
        ends = np.cumsum(_lengths(symbols, words, speaker, pace, rng))
        tracks = _tracks(symbols, ends, speaker, line, rng)
        samples = _render(tracks, speaker, line, rng)
        bounds = [0, *(int(e) * FRAME for e in ends)]
        phones = tuple((s, a, b) for s, (a, b) in zip(symbols, pairwise(bounds), strict=True))
        timed = []
        for k, word in enumerate(words):
            mine = [i for i, (_, owner) in enumerate(segments) if owner == k]
            timed.append((word, bounds[mine[0]], bounds[mine[-1] + 1]))
        return Speech(
            samples=samples.astype(np.float32), rate=RATE, phones=phones, words=tuple(timed)
        )


def _lengths(
    symbols: Sequence[str],
    words: Sequence[str],
    speaker: Speaker,
    pace: float,
    rng: np.random.RandomState,
) -> list[int]:
    """Return the length of each segment in frames: content words longer, the last syllable too."""
    stressed = [False]
    for word in words:
        phones = lexicon.pronounce(word)
        first = next((i for i, p in enumerate(phones) if p in _VOWEL), -1)
        stressed += [i == first and len(phones) > 2 for i in range(len(phones))]
    stressed.append(False)
    last = max((i for i, s in enumerate(symbols) if s in _VOWEL), default=-1)
    frames = []
    for i, symbol in enumerate(symbols):
        seconds = TARGETS[symbol].seconds * pace * float(rng.uniform(0.88, 1.12))
        if stressed[i]:
            seconds *= speaker.stress[2] / 140
        if i == last:
            seconds *= 1.35
        frames.append(max(4, round(seconds * RATE / FRAME)))
    return frames


def _smooth(track: np.ndarray, frames: int) -> np.ndarray:
    """Return a track (T,) or (T, 3) smoothed over time by a Hann window."""
    window = np.hanning(frames + 2)[1:-1]
    window /= window.sum()
    padded = np.pad(track, [(frames, frames)] + [(0, 0)] * (track.ndim - 1), mode="edge")
    columns = padded.reshape(len(padded), -1)
    out = np.stack([np.convolve(c, window, mode="same") for c in columns.T], axis=1)
    return out[frames:-frames].reshape(track.shape)


def _tracks(
    symbols: Sequence[str],
    ends: np.ndarray,
    speaker: Speaker,
    line: Line,
    rng: np.random.RandomState,
) -> _Tracks:
    total = int(ends[-1])
    formants, level = np.zeros((total, 3)), np.zeros((total, 2))
    colour = np.zeros((total, 2))
    shift = _ACCENTS[speaker.accent]
    accents = np.zeros(total)
    start = 0
    for symbol, end in zip(symbols, map(int, ends), strict=True):
        target = TARGETS[symbol]
        along = np.linspace(0, 1, end - start)[:, None]
        begin = np.array(target.formants)
        path = begin + (np.array(target.end or target.formants) - begin) * along
        path[:, :2] *= shift.get(symbol, (1.0, 1.0))
        formants[start:end] = path
        level[start:end] = target.voice, target.noise
        if symbol in _BURST:
            closure = max(1, round(0.6 * (end - start)))
            level[start : start + closure, 1] = 0.0
        colour[start:end] = target.centre, target.width
        if symbol in _VOWEL:
            accents[(start + end) // 2] = end - start
        start = end
    unvoiced, voiced = speaker.consonants
    consonant = np.where(level[:, 0] > 0, voiced, unvoiced)
    mean = float(np.sqrt(speaker.pitch[0] * speaker.pitch[1])) * 2 ** (line.prosody.pitch / 50)
    octaves = np.log2(speaker.pitch[1] / speaker.pitch[0]) * 2 ** (line.prosody.range / 30)
    peaks = _smooth(accents, 31)
    peaks /= peaks.max() + 1e-9
    slope = np.linspace(0.3, -0.3, total) * (1 if speaker.intonation < 3 else 0.6)
    f0 = mean * 2 ** (octaves * (slope + 0.35 * (peaks - 0.4) + 0.05 * rng.normal()))
    return _Tracks(
        formants=_smooth(formants, 11),
        voice=_smooth(level[:, 0], 3),
        noise=_smooth(level[:, 1] * consonant, 3),
        centre=_smooth(colour[:, 0], 7),
        width=_smooth(colour[:, 1], 7),
        f0=f0,
    )


def _resonance(hertz: np.ndarray, width: np.ndarray, *, peak: bool = False) -> np.ndarray:
    """Return the frequency response (T, F) of a resonator by frame.

    Args:
        hertz: centre by frame (T,).
        width: bandwidth by frame (T,), Hz.
        peak: gain 1 at the peak (noise branch) instead of at zero frequency (cascade).
    """
    r = np.exp(-np.pi * width / RATE)[:, None]
    cosine = np.cos(2 * np.pi * hertz / RATE)[:, None]
    z = np.exp(-2j * np.pi * np.arange(_FFT // 2 + 1) / _FFT)
    gain = (1 - r) * 2 if peak else 1 - 2 * r * cosine + r * r
    return np.asarray(gain / (1 - 2 * r * cosine * z + r * r * z * z))


def _shape(x: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Filter (S,) by a response (T, F) that changes every 10 ms: Hann windows, overlap-add.

    Recursive filters would click here whenever a formant moves.
    """
    frames = -(-len(x) // _HOP) + 1
    response = response[np.minimum(np.arange(frames), len(response) - 1)]
    padded = np.pad(x, (_WINDOW // 2, _FFT))
    at = np.arange(frames)[:, None] * _HOP + np.arange(_WINDOW)
    window = np.hanning(_WINDOW + 1)[:-1] * (2 * _HOP / _WINDOW)
    parts = np.fft.irfft(np.fft.rfft(padded[at] * window, _FFT) * response, _FFT)
    out = np.zeros(frames * _HOP + _FFT)
    for k in range(0, _FFT, _HOP):  # the same hop of all frames at once
        piece = np.zeros((frames, _HOP))
        piece[:, : min(_HOP, _FFT - k)] = parts[:, k : k + _HOP]
        out[k : k + frames * _HOP] += piece.ravel()
    return out[_WINDOW // 2 : _WINDOW // 2 + len(x)]


def _render(
    tracks: _Tracks, speaker: Speaker, line: Line, rng: np.random.RandomState
) -> np.ndarray:
    """Return the waveform (S,) of the tracks."""
    total = len(tracks.f0)
    n = total * FRAME
    middle = (np.arange(total) + 0.5) * FRAME
    time = np.arange(n)
    phase = np.cumsum(np.interp(time, middle, tracks.f0) / RATE)
    pulses = np.diff(np.floor(phase), prepend=0.0)
    tone = speaker.tone + line.prosody.tone
    dull = float(np.clip(0.93 - 0.025 * tone, 0.7, 0.98))  # one pole sets the spectral tilt
    breath = 0.001 + 0.0015 * max(speaker.breath + line.prosody.breath, 0.0)
    excitation = speaker.voicing * lfilter([1.0], [1, -0.94], pulses) + breath * rng.normal(size=n)
    source = lfilter([1 - dull], [1, -dull], excitation)
    x = source * np.interp(time, middle, tracks.voice)
    x += 0.004 * rng.normal(size=n) * np.interp(time, middle, tracks.noise)  # excites the tract too
    upper, tract = (3500.0, 4500.0), np.ones((1, 1))
    for k in range(5):
        hertz = tracks.formants[::2, k] if k < 3 else np.full(1, upper[k - 3])
        hertz = np.clip(hertz * speaker.formants[k], 150, 0.46 * RATE)
        tract = tract * _resonance(hertz, np.array([_BANDWIDTHS[k] * speaker.widths[k]]))
    x = _shape(x, tract)
    hiss = rng.normal(size=n) * np.interp(time, middle, tracks.noise)
    centre = np.clip(tracks.centre * speaker.formants[3] ** 0.5, 300, 0.46 * RATE)
    hiss = _shape(hiss, _resonance(centre[::2], tracks.width[::2], peak=True))
    radiated = np.diff(x, prepend=0.0)
    return np.asarray(0.055 * radiated / (np.std(radiated) + 1e-9) + 0.1 * hiss)
