"""What a conversion keeps of its source's intonation, and how far its pitch is from the target's.

Neither needs the target's own recording of the sentence.

* **F0 correlation to the source** (Pearson, of the logarithm): frame by frame, where both are voiced.
  Nothing is aligned, because a conversion has its source's timing; correlation does not see by which
  interval pitch was moved, nor how far it was stretched, only whether it rises and falls together.
* **F0 off** (semitones): between the medians of the conversion and of the target's recordings that
  the converter heard. A median is deaf to the octave errors of single frames; an interval, unlike a
  difference in Hz, is the same for high and for low voices.

Shape suffixes: T frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mynah.tasks.metrics.mean import mean_metric
from mynah.tasks.metrics.metric import Floats, Metric

LEAST = 10
"""Frames voiced in both, 50 ms, below which a correlation says nothing."""
OCTAVE = 12.0  # semitones


def log_f0_correlation(one_T: Floats, other_T: Floats) -> float | None:
    """Return Pearson's correlation of the logarithm of two contours, frame by frame.

    Args:
        one_T: F0 in Hz, 0 where unvoiced.
        other_T: likewise, of the same timing; what the longer one has at its end is left out.

    Returns:
        The correlation; None where fewer than ``LEAST`` frames are voiced in both, or one of the
        contours is constant there.
    """
    size = min(len(one_T), len(other_T))
    one_T, other_T = one_T[:size], other_T[:size]
    both_T = (one_T > 0) & (other_T > 0)
    if both_T.sum() < LEAST:
        return None
    x_T, y_T = np.log(one_T[both_T]), np.log(other_T[both_T])
    if not (np.ptp(x_T) > 0 and np.ptp(y_T) > 0):
        return None
    return float(np.corrcoef(x_T, y_T)[0, 1])


def median_f0(contours: Sequence[Floats]) -> float | None:
    """Return the median F0 in Hz over the voiced frames of all contours, None without any."""
    voiced = [f0_T[f0_T > 0] for f0_T in contours]
    if not sum(map(len, voiced)):
        return None
    return float(np.median(np.concatenate(voiced)))


def semitones_apart(one: float, other: float) -> float:
    """Return the interval between two frequencies in semitones, never negative.

    Raises:
        ValueError: a frequency that is not above 0.
    """
    if not (one > 0 and other > 0):
        raise ValueError(f"frequencies must be above 0 Hz, got {one} and {other}")
    return float(OCTAVE * abs(np.log2(one / other)))


def f0_to_source_metric() -> Metric:
    """Mean over utterances of the correlation of log F0 with the source's."""
    options = f"analysis:world|f0:log|frames:voiced-in-both,{LEAST}+|aligned:no"
    return mean_metric("f0_corr_source", higher_is_better=True, options=options)


def f0_off_metric() -> Metric:
    """Mean over utterances of the interval to the target's median F0, in semitones."""
    options = "analysis:world|f0:median|of:references|unit:semitones"
    return mean_metric("f0_off", higher_is_better=False, options=options)
