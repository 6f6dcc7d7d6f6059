"""How often the watermark is missed, and found where there is none, by what is done to the audio.

Shape suffixes: S samples.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mynah.recipes.conversion import watermark
from mynah.recipes.conversion.checks import Recording, Wave, resampled

RATE = watermark.RATE


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How often something went wrong.

    Attributes:
        what: was done to the audio.
        wrong: how often.
        total: of so many.
        low: 95 % interval of the rate (Wilson).
        high: likewise.
        score: median of the detector's score.
    """

    what: str
    wrong: int
    total: int
    low: float
    high: float
    score: float


def wilson(wrong: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a rate (Wilson 1927)."""
    share = wrong / total
    centre = share + z * z / (2 * total)
    half = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, float((centre - half) / scale)), min(1.0, float((centre + half) / scale))


def _noise(decibels: float) -> Callable[[Wave], Wave]:
    def add(wav_S: Wave) -> Wave:
        generator = np.random.default_rng(len(wav_S))
        level = float(np.sqrt(np.mean(wav_S.astype(np.float64) ** 2)))
        noise_S = generator.standard_normal(len(wav_S)) * level * 10 ** (-decibels / 20)
        return (wav_S + noise_S).astype(np.float32)

    return add


def _through(rate: int) -> Callable[[Wave], Wave]:
    def there_and_back(wav_S: Wave) -> Wave:
        low_S = resampled(Recording(wav_S=wav_S, sample_rate=RATE), rate)
        return resampled(Recording(wav_S=low_S, sample_rate=rate), RATE)

    return there_and_back


def _coded(kind: str, subtype: str) -> Callable[[Wave], Wave]:
    def there_and_back(wav_S: Wave) -> Wave:
        import soundfile

        buffer = io.BytesIO()
        soundfile.write(buffer, wav_S, RATE, format=kind, subtype=subtype)
        buffer.seek(0)
        back_S, _ = soundfile.read(buffer, dtype="float32")
        return np.asarray(back_S, dtype=np.float32)

    return there_and_back


CHANGES: Mapping[str, Callable[[Wave], Wave]] = {
    "nothing": lambda wav_S: wav_S,
    "half as loud": lambda wav_S: (0.5 * wav_S).astype(np.float32),
    "first 0.37 s cut off": lambda wav_S: wav_S[int(0.37 * RATE) :],
    "16 bits": lambda wav_S: (np.round(wav_S * 32767) / 32767).astype(np.float32),
    "8 kHz and back": _through(8000),
    "Vorbis": _coded("OGG", "VORBIS"),
    "MP3": _coded("MP3", "MPEG_LAYER_III"),
    "noise, 20 dB": _noise(20),
    "noise, 10 dB": _noise(10),
}


def rates(waves: Sequence[Wave]) -> tuple[list[Rate], Rate, float]:
    """Return misses by change, false alarms, and the mean ratio of speech to mark in dB.

    Args:
        waves: of speech, 16 kHz, each as it is (unmarked).

    Raises:
        ValueError: no recordings.
    """
    if not waves:
        raise ValueError("there are no recordings")
    marked = [watermark.mark(wav_S, RATE) for wav_S in waves]
    misses = []
    for what, change in CHANGES.items():
        found = [watermark.detect(change(wav_S), RATE) for wav_S in marked]
        misses.append(_rate(what, [not f.marked for f in found], [f.score for f in found]))
    alarms = [watermark.detect(wav_S, RATE) for wav_S in waves]
    false = _rate("unmarked", [f.marked for f in alarms], [f.score for f in alarms])
    ratio = [
        10 * np.log10(np.mean(np.square(w)) / np.mean(np.square(m - w)))
        for w, m in zip(waves, marked, strict=True)
    ]
    return misses, false, float(np.mean(ratio))


def _rate(what: str, wrong: Sequence[bool], scores: Sequence[float]) -> Rate:
    low, high = wilson(sum(wrong), len(wrong))
    return Rate(
        what=what,
        wrong=sum(wrong),
        total=len(wrong),
        low=low,
        high=high,
        score=float(np.median(scores)),
    )
