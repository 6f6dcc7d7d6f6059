"""Long recordings in stretches that overlap a little at quiet places.

Shape suffixes: S samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mynah.recipes.conversion.checks import Wave

OVERLAP = 0.1  # seconds
SEARCH = 8.0  # seconds before the end of a stretch in which the quietest place is looked for


def cut(wav_S: Wave, sample_rate: int, *, longest: float, hop: int) -> list[tuple[int, int]]:
    """Return first and last sample of stretches that cover a recording.

    Args:
        wav_S: samples.
        sample_rate: Hz.
        longest: seconds of a stretch.
        hop: samples that stretches begin at multiples of.
    """
    size, search = int(longest * sample_rate), int(SEARCH * sample_rate)
    shared = max(hop, int(OVERLAP * sample_rate) // hop * hop)
    found: list[tuple[int, int]] = []
    first = 0
    while len(wav_S) - first > size:
        window = wav_S[first + size - search : first + size - shared]
        frames = window[: len(window) // hop * hop].reshape(-1, hop)
        smooth = np.convolve(np.square(frames).mean(1), np.ones(9), mode="same")
        place = first + size - search + int(smooth.argmin()) * hop
        place -= place % hop
        found.append((first, place + shared))
        first = place
    return [*found, (first, len(wav_S))]


def joined(parts: Sequence[Wave], stretches: Sequence[tuple[int, int]], size: int) -> Wave:
    """Lay converted stretches over each other, faded where they overlap.

    Args:
        parts: a waveform each, as long as its stretch or a little longer or shorter.
        stretches: of :func:`cut`.
        size: samples in all.
    """
    total = np.zeros(size, dtype=np.float64)
    for number, (part, (first, last)) in enumerate(zip(parts, stretches, strict=True)):
        length = last - first
        wave = np.zeros(length)
        wave[: min(length, len(part))] = part[:length]
        if number:
            fade = stretches[number - 1][1] - first
            wave[:fade] *= np.linspace(0, 1, fade)
        if number + 1 < len(stretches):
            fade = last - stretches[number + 1][0]
            wave[length - fade :] *= np.linspace(1, 0, fade)
        total[first:last] += wave
    return total.astype(np.float32)
