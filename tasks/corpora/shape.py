"""Shaping of audio that protocols ask for: a gain, and silences cut out. No sox needed.

SUPERB hears Speech Commands, QUESST and VoxCeleb1 (verification) through sox effects: ``gain -3`` and,
for verification, ``silence 1 0.1 0.1% -1 0.1 0.1%``. These are the same effects on arrays. Pure
functions of one channel; shape suffix: S samples, full scale is 1.

The silence effect as it is defined here (it is sox 14.4.2's, on its own 32-bit samples):

- The level at a sample is the RMS over the last 20 ms, that sample included. Before the first sample
  there is digital silence, so a level rises over 20 ms. A sample is loud if its level is above the
  threshold.
- *Waiting* (at the start): samples are dropped until 0.1 s of loud samples come in a row; these and
  what follows are kept. A shorter burst is dropped.
- *Copying*: samples are kept. When 0.1 s of samples in a row are not loud, these are dropped and
  waiting starts again, the memory of the level emptied. A shorter pause is kept, and so is one that
  the end of the audio cuts short.

So about 20 ms after a sound still count to it, and the first samples of a soft sound, until its level
has risen, are lost. A level that equals the threshold but for rounding may be judged either way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.001  # 0.1 % of full scale
SECONDS = 0.1
_WINDOWS_PER_SECOND = 50  # the level is taken over 20 ms
_CHUNK = 16384  # samples looked at at once when searching

Wave = NDArray[np.float32]
Flags = NDArray[np.bool_]


def gain(wav_S: Wave, decibels: float) -> Wave:
    """Return audio made louder or softer; what would exceed full scale is cut there, as sox does.

    Args:
        wav_S: float samples (S,).
        decibels: 20 log10 of the factor; -3 for SUPERB.

    Returns:
        float32 samples (S,) in -1..1.

    Raises:
        ValueError: not one channel of finite samples, or ``decibels`` is not finite.
    """
    _check(wav_S)
    if not np.isfinite(decibels):
        raise ValueError(f"a gain must be a finite number of dB, got {decibels}")
    louder_S = wav_S.astype(np.float64) * 10 ** (decibels / 20)
    return np.clip(louder_S, -1.0, 1.0).astype(np.float32)


def cut_silence(
    wav_S: Wave, sample_rate: int, *, threshold: float = THRESHOLD, seconds: float = SECONDS
) -> Wave:
    """Return audio without its silences: leading, trailing and inner; see the module's docstring.

    Args:
        wav_S: float samples (S,).
        sample_rate: Hz.
        threshold: level, of full scale 1, above which a sample is loud.
        seconds: how long loudness must last to begin a sound, and its lack to end one.

    Returns:
        float32 samples, at most S; none where nothing is loud for long enough.

    Raises:
        ValueError: not one channel of finite samples; a threshold outside 0..1; ``seconds`` or the
            sample rate not positive.
    """
    stretches = sounds(wav_S, sample_rate, threshold=threshold, seconds=seconds)
    parts = [wav_S[first:last] for first, last in stretches]
    return np.concatenate([np.zeros(0, np.float32), *parts]).astype(np.float32)


def sounds(
    wav_S: Wave, sample_rate: int, *, threshold: float = THRESHOLD, seconds: float = SECONDS
) -> list[tuple[int, int]]:
    """Return what ``cut_silence`` keeps: (first, last + 1) of each stretch, in order.

    Arguments and errors are those of ``cut_silence``.
    """
    _check(wav_S)
    if not 0 <= threshold <= 1:
        raise ValueError(f"a threshold must be in 0..1 of full scale, got {threshold}")
    if not (np.isfinite(seconds) and seconds > 0) or sample_rate < _WINDOWS_PER_SECOND:
        raise ValueError(
            f"seconds must be positive and the rate at least {_WINDOWS_PER_SECOND} Hz, got "
            f"{seconds} s, {sample_rate} Hz"
        )
    window = sample_rate // _WINDOWS_PER_SECOND
    run = max(1, round(seconds * sample_rate))
    energy_S1 = np.concatenate([[0.0], np.cumsum(wav_S.astype(np.float64) ** 2)])
    loud_S = _loud(energy_S1, 0, len(wav_S), window, threshold)
    stretches = []
    at = 0
    while (first := _run(loud_S, at, run, value=True)) is not None:
        pause = _run(loud_S, first + run, run, value=False)
        if pause is None:
            stretches.append((first, len(wav_S)))
            break
        stretches.append((first, pause))
        at = pause + run
        memory = min(at + window, len(wav_S))  # the level starts anew here
        loud_S[at:memory] = _loud(energy_S1, at, memory, window, threshold)
    return stretches


def _loud(energy_S1: NDArray[np.float64], start: int, end: int, window: int, level: float) -> Flags:
    """Return which samples of ``start`` to ``end`` are loud if nothing is heard before ``start``."""
    last = np.arange(start + 1, end + 1)
    heard = energy_S1[last] - energy_S1[np.maximum(last - window, start)]
    loud: Flags = heard > level**2 * window
    return loud


def _run(flags_S: Flags, start: int, length: int, *, value: bool) -> int | None:
    """Return where the first run of ``length`` equal flags begins, at ``start`` or later."""
    at: int | None = start
    while at is not None and (at := _next(flags_S, at, value=value)) is not None:
        end = _next(flags_S, at, value=not value)
        if (len(flags_S) if end is None else end) - at >= length:
            return at
        at = end
    return None


def _next(flags_S: Flags, start: int, *, value: bool) -> int | None:
    """Return the first place of a flag, at ``start`` or later."""
    for begin in range(start, len(flags_S), _CHUNK):
        chunk = flags_S[begin : begin + _CHUNK] == value
        place = int(chunk.argmax())
        if chunk[place]:
            return begin + place
    return None


def _check(wav_S: Wave) -> None:
    if wav_S.ndim != 1:
        raise ValueError(f"one channel of samples is wanted, got an array of shape {wav_S.shape}")
    if not np.isfinite(wav_S).all():
        raise ValueError("samples must be finite numbers")
