"""Which timed label a moment of an utterance lies in: hand-labelled phones as labels of frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mynah.tasks.corpora.utterance import Utterance


def phones_at(
    utterance: Utterance, tier: str, seconds_T: NDArray[np.float64]
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the phones of an utterance's intervals and which of them holds each moment.

    Args:
        utterance: with timed labels, in order; a label's first word is the phone.
        tier: name of the timed labels.
        seconds_T: moments (T,) in seconds from the utterance's start.

    Returns:
        One phone per interval, and the interval's number (T,) at each moment, -1: none. An interval
        holds its start and not its end.

    Raises:
        KeyError: the utterance has no such tier.
    """
    intervals = utterance.intervals[tier]
    phones = [interval.symbol.split()[0] for interval in intervals]
    starts = np.array([interval.start for interval in intervals])
    ends = np.array([interval.end for interval in intervals])
    index_T = np.searchsorted(starts, seconds_T, side="right") - 1
    inside_T = (index_T >= 0) & (seconds_T < ends[index_T.clip(0)])
    return phones, np.where(inside_T, index_T, -1)
