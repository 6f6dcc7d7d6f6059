"""How often the watermark is missed, and found where there is none, by what is done to the audio.

Shape suffixes: S samples.
"""

from __future__ import annotations

import io
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mynah.recipes.conversion import watermark
from mynah.recipes.conversion.checks import Recording, Wave, loud, resampled
from mynah.tasks.corpora.utterance import Utterance

RATE = watermark.RATE
CLEAN = "nothing"
OTHER_KEY = "another-key"

Change = Callable[[Wave, np.random.Generator], Wave]


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


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What was found on stretches of one length.

    Attributes:
        seconds: of each stretch.
        misses: of marked speech, by what was done to it afterwards.
        false_alarms: of speech without the mark.
        speech_to_mark_db: mean over stretches of the ratio of their energies.
    """

    seconds: float
    misses: Sequence[Rate]
    false_alarms: Sequence[Rate]
    speech_to_mark_db: float


def wilson(wrong: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a rate (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Raises:
        ValueError: nothing was counted, or more wrong than there are.
    """
    if not 0 <= wrong <= total or not total:
        raise ValueError(f"a rate is of 1 or more, and no more than those, got {wrong} of {total}")
    share = wrong / total
    centre = share + z * z / (2 * total)
    half = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, float((centre - half) / scale)), min(1.0, float((centre + half) / scale))


def stretches(utterances: Sequence[Utterance], *, seconds: float, count: int) -> list[Wave]:
    """Return up to ``count`` stretches of one length and one speaker each, 16 kHz.

    Recordings of a speaker are joined and cut, in an order that is mixed but always the same. Stretches
    that are silent are left out.

    Args:
        utterances: to take them from; those without a speaker count as of one.
        seconds: of each.
        count: at most.

    Raises:
        BadAudioError: a recording that cannot be read.
        ValueError: no stretch of that length.
    """
    from mynah.tasks.corpora.audio import read

    size = round(seconds * RATE)
    waiting: dict[str, Wave] = defaultdict(lambda: np.zeros(0, dtype=np.float32))
    found: list[Wave] = []
    for u in sorted(utterances, key=lambda u: (zlib.crc32(u.id.encode()), u.id)):
        if len(found) >= count:
            break
        joined_S = np.concatenate([waiting[u.speaker or ""], read(u, RATE)])
        while len(joined_S) >= size:
            if loud(joined_S[:size]):
                found.append(joined_S[:size])
            joined_S = joined_S[size:]
        waiting[u.speaker or ""] = joined_S
    if not found:
        raise ValueError(f"there are no {seconds:g} seconds of speech of one speaker")
    return found[:count]


def _noise(decibels: float) -> Change:
    def add(wav_S: Wave, generator: np.random.Generator) -> Wave:
        level = float(np.sqrt(np.mean(wav_S.astype(np.float64) ** 2)))
        noise_S = generator.standard_normal(len(wav_S)) * level * 10 ** (-decibels / 20)
        return (wav_S + noise_S).astype(np.float32)

    return add


def _through(rate: int) -> Change:
    def there_and_back(wav_S: Wave, _: np.random.Generator) -> Wave:
        low_S = resampled(Recording(wav_S=wav_S, sample_rate=RATE), rate)
        return resampled(Recording(wav_S=low_S, sample_rate=rate), RATE)

    return there_and_back


def _coded(kind: str, subtype: str) -> Change:
    def there_and_back(wav_S: Wave, _: np.random.Generator) -> Wave:
        import soundfile

        buffer = io.BytesIO()
        soundfile.write(buffer, wav_S, RATE, format=kind, subtype=subtype)
        buffer.seek(0)
        back_S, _rate = soundfile.read(buffer, dtype="float32")
        return np.asarray(back_S, dtype=np.float32)

    return there_and_back


def _cut(wav_S: Wave, generator: np.random.Generator) -> Wave:
    """Return what is left when a random part of up to a quarter is cut off at either end."""
    first, last = generator.integers(1, len(wav_S) // 4, size=2)
    return wav_S[first : len(wav_S) - last]


def _faster(wav_S: Wave, _: np.random.Generator) -> Wave:
    return resampled(Recording(wav_S=wav_S, sample_rate=RATE + RATE // 50), RATE)


def _resynthesised(wav_S: Wave, _: np.random.Generator) -> Wave:
    import torch

    from mynah.downstream.core.melspec import LogMelSpectrogram, MelSpec
    from mynah.recipes.conversion.vocoder import open_vocoder

    with torch.no_grad():
        mel_TM = LogMelSpectrogram(MelSpec())(torch.from_numpy(wav_S)[None])[0]
        return np.asarray(open_vocoder("griffin_lim")(mel_TM, None).numpy(), dtype=np.float32)


def _round(wav_S: Wave, _: np.random.Generator) -> Wave:
    return (np.round(wav_S * 32767) / 32767).astype(np.float32)


CODED = {"Vorbis": ("OGG", "VORBIS"), "MP3": ("MP3", "MPEG_LAYER_III")}
"""Lossy formats, as libsndfile writes them by default."""
CHANGES: Mapping[str, Change] = {
    CLEAN: lambda wav_S, _: wav_S,
    "half as loud": lambda wav_S, _: (0.5 * wav_S).astype(np.float32),
    "cut at both ends": _cut,
    "16 bits": _round,
    "8 kHz and back": _through(8000),
    **{name: _coded(*form) for name, form in CODED.items()},
    "noise, 20 dB": _noise(20),
    "noise, 10 dB": _noise(10),
    "noise, 5 dB": _noise(5),
    "2 % faster": _faster,
    "Griffin-Lim copy": _resynthesised,
}


def unwritable() -> list[str]:
    """Return the lossy formats that this libsndfile cannot write."""
    import soundfile

    return [name for name, form in CODED.items() if not soundfile.check_format(*form)]


def rates(waves: Sequence[Wave], *, changes: Sequence[str] | None = None, seed: int = 0) -> Rates:
    """Return misses by change, false alarms, and how far the mark lies below the speech.

    Args:
        waves: of speech without a mark, 16 kHz, of one length.
        changes: names of ``CHANGES``; default: all that can be done here.
        seed: of noise and cuts.

    Raises:
        ValueError: no recordings.
    """
    if not waves:
        raise ValueError("there are no recordings")
    lacking = unwritable()
    chosen = [name for name in CHANGES if name not in lacking] if changes is None else changes
    marked = [watermark.mark(wav_S, RATE) for wav_S in waves]
    misses = []
    for what in chosen:
        found = [
            watermark.detect(CHANGES[what](wav_S, np.random.default_rng([seed, number])), RATE)
            for number, wav_S in enumerate(marked)
        ]
        misses.append(_rate(what, [not f.marked for f in found], [f.score for f in found]))
    others = [watermark.mark(wav_S, RATE, key=OTHER_KEY) for wav_S in waves]
    alarms = []
    for what, theirs in (("unmarked", waves), ("marked by another key", others)):
        found = [watermark.detect(wav_S, RATE) for wav_S in theirs]
        alarms.append(_rate(what, [f.marked for f in found], [f.score for f in found]))
    ratios = [
        10 * np.log10(np.mean(np.square(w)) / np.mean(np.square(m - w)))
        for w, m in zip(waves, marked, strict=True)
    ]
    return Rates(
        seconds=len(waves[0]) / RATE,
        misses=misses,
        false_alarms=alarms,
        speech_to_mark_db=float(np.mean(ratios)),
    )


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
