"""The sound of mixtures: levels, noise, sources side by side, speakers by turns. Pure functions.

Levels are of active speech: the RMS over frames of 20 ms that are within 40 dB of the loudest, in dB
of full scale. Shape suffix: S samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mynah.tasks.corpora.utterance import Interval

Wave = NDArray[np.float32]

LEVEL = -25.0  # dB, of every source before its own draw
PEAK = 0.9  # LibriMix' limit
FRAME = 0.02  # seconds
QUIET = 40.0  # dB below the loudest frame
PAUSE = 0.25  # seconds: a shorter pause between words is part of a turn
PAUSES = (0.1, 1.0)  # seconds between turns that do not overlap
EDGE = 0.5  # seconds of silence at most before and after all turns


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A mixture and what it was made of.

    Attributes:
        mixture: samples (S,).
        parts: name -> samples (S,); the mixture is their sum.
        turns: who speaks when.
    """

    mixture: Wave
    parts: Mapping[str, Wave]
    turns: tuple[Interval, ...] = field(default=())


def active_level(wav_S: Wave, rate: int) -> float:
    """Return the level of active speech in dB.

    Raises:
        ValueError: digital silence.
    """
    size = min(len(wav_S), max(1, round(FRAME * rate)))
    count = len(wav_S) // size
    power = np.square(wav_S[: count * size], dtype=np.float64).reshape(count, size).mean(axis=1)
    if not power.max() > 0:
        raise ValueError("digital silence has no level")
    active = power[power >= power.max() * 10 ** (-QUIET / 10)]
    return float(10 * np.log10(active.mean()))


def to_level(wav_S: Wave, rate: int, level: float) -> Wave:
    """Return audio whose active speech has a level, in dB of full scale; it may exceed full scale.

    Raises:
        ValueError: digital silence.
    """
    gain = 10 ** ((level - active_level(wav_S, rate)) / 20)
    return (wav_S * gain).astype(np.float32)


def spoken(wav_S: Wave, rate: int, words: Sequence[Interval] = ()) -> list[tuple[float, float]]:
    """Return the stretches of speech of an utterance, seconds.

    Words that are no more than 0.25 s apart are one stretch. Without words it is one: from the first
    frame of 20 ms within 40 dB of the loudest to the last.

    Raises:
        ValueError: digital silence without words.
    """
    stretches: list[tuple[float, float]] = []
    for word in sorted(words, key=lambda word: word.start):
        if stretches and word.start - stretches[-1][1] <= PAUSE:
            stretches[-1] = (stretches[-1][0], max(word.end, stretches[-1][1]))
        else:
            stretches.append((word.start, word.end))
    if stretches:
        return stretches
    size = min(len(wav_S), max(1, round(FRAME * rate)))
    power = np.add.reduceat(np.square(wav_S, dtype=np.float64), np.arange(0, len(wav_S), size))
    if not power.max() > 0:
        raise ValueError("digital silence has no speech")
    (loud,) = np.nonzero(power >= power.max() * 10 ** (-QUIET / 10))
    return [(int(loud[0]) * size / rate, min((int(loud[-1]) + 1) * size, len(wav_S)) / rate)]


def coloured(samples: int, rng: np.random.Generator) -> Wave:
    """Return Gaussian noise (S,) whose power falls with frequency, by 0 (white) to 6 dB per octave."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    slope = rng.uniform(0.0, 1.0)
    spectrum /= np.maximum(1, np.arange(len(spectrum))) ** slope
    spectrum[0] = 0.0
    noise_S = np.fft.irfft(spectrum, n=samples)
    return (noise_S / max(float(np.abs(noise_S).max()), 1e-12)).astype(np.float32)


def beside(waves: Sequence[Wave], mode: Literal["min", "max"]) -> list[Wave]:
    """Return signals of one length: cut to the shortest, or filled up with silence to the longest."""
    size = (min if mode == "min" else max)(len(w) for w in waves)
    return [np.pad(w[:size], (0, max(0, size - len(w)))) for w in waves]


def under(noise_S: Wave, speech_S: Wave, rate: int, snr: float) -> Wave:
    """Return noise that is ``snr`` dB below the active level of speech, of the same length.

    Raises:
        ValueError: silence, or noise of another length.
    """
    if len(noise_S) != len(speech_S):
        raise ValueError(f"{len(noise_S)} samples of noise for {len(speech_S)} of speech")
    power = float(np.square(noise_S, dtype=np.float64).mean())
    if not power > 0:
        raise ValueError("the noise is digital silence")
    wanted = active_level(speech_S, rate) - snr
    gain = 10 ** ((wanted - 10 * np.log10(power)) / 20)
    scaled_S: Wave = (noise_S * gain).astype(np.float32)
    return scaled_S


def by_turns(
    turns: Sequence[tuple[str, Wave, Sequence[tuple[float, float]]]],
    rate: int,
    *,
    overlap: float,
    rng: np.random.Generator,
) -> Sound:
    """Return a conversation: one utterance after the other, after a pause or before the last ends.

    A turn begins up to half of the shorter of the two before the end of the last one, so that no
    speaker talks over himself and three never talk at once.

    Args:
        turns: speaker, samples and stretches of speech (seconds in it) of each, in order; no speaker
            twice in a row.
        rate: Hz.
        overlap: share of the turns that begin before the last one ends.
        rng: draws pauses and overlaps.

    Returns:
        The mixture, a part for each speaker, and who speaks when.
    """
    starts: list[int] = []
    end = round(rng.uniform(0, EDGE) * rate)
    for number, (_, wav_S, _) in enumerate(turns):
        last = len(turns[number - 1][1]) if number else 0
        early, pause = rng.uniform(0.1, 0.5), rng.uniform(*PAUSES)
        if rng.uniform() < overlap and number:
            starts.append(end - int(early * min(last, len(wav_S))))
        else:
            starts.append(end + (round(pause * rate) if number else 0))
        end = starts[-1] + len(wav_S)
    size = end + round(rng.uniform(0, EDGE) * rate)
    parts: dict[str, Wave] = {}
    spans: list[Interval] = []
    for (speaker, wav_S, stretches), start in zip(turns, starts, strict=True):
        own_S = parts.setdefault(speaker, np.zeros(size, dtype=np.float32))
        own_S[start : start + len(wav_S)] += wav_S
        spans += [Interval(speaker, start / rate + a, start / rate + b) for a, b in stretches]
    spans.sort(key=lambda span: (span.start, span.end))
    mixture_S: Wave = np.stack([*parts.values()]).sum(axis=0)
    return Sound(mixture=mixture_S, parts=parts, turns=tuple(spans))


def together(parts: Mapping[str, Wave], turns: Sequence[Interval] = (), *, bits: int = 16) -> Sound:
    """Return the sum of parts, all softer by one factor where anything would exceed a peak of 0.9.

    With 16 bits parts are rounded to integers first: the mixture in a file is then exactly the sum of
    the parts in theirs.

    Args:
        parts: of one length.
        turns: kept as they are.
        bits: 16 or 32.
    """
    total_S = np.stack([*parts.values()]).sum(axis=0)
    peak = max(float(np.abs(w).max()) for w in (total_S, *parts.values()))
    gain = min(1.0, PEAK / peak) if peak > 0 else 1.0
    done = {name: (wav_S * gain).astype(np.float32) for name, wav_S in parts.items()}
    if bits == 16:
        done = {name: (np.round(w * 2**15) / 2**15).astype(np.float32) for name, w in done.items()}
    mixture_S: Wave = np.stack([*done.values()]).sum(axis=0)
    return Sound(mixture=mixture_S, parts=done, turns=tuple(turns))
