"""Speaker turns and frames: labels from timed turns, chunks of recordings, turns from activities.

Frame t covers the time from t to t + 1 times the frame shift. A turn is on the frames from its start
to its end, both rounded to the nearest frame (half to even), as s3prl (and EEND before it) has it.

Shape suffixes: T frames, S speakers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mynah.tasks.core.contract import DataError
from mynah.tasks.core.splits import first_few
from mynah.tasks.corpora.utterance import Interval, Utterance
from mynah.tasks.metrics.rttm import Turn

TIER = "speakers"
TOLERANCE = 0.05  # seconds by which a turn may pass the end of its recording: times are rounded

Active = NDArray[np.bool_]


class Grid(NamedTuple):
    """Frames in time.

    Attributes:
        stride: samples between frames.
        rate: samples in a second.
    """

    stride: int
    rate: int

    @property
    def shift(self) -> float:
        """Seconds between frames."""
        return self.stride / self.rate

    def frame(self, seconds: float) -> int:
        """Return the frame nearest to a time, halves to even."""
        return round(seconds * self.rate / self.stride)  # s3prl's order: ties are common

    def whole(self, seconds: float) -> int:
        """Return how many whole frames there are in a stretch, at least 1."""
        return max(1, math.floor(seconds * self.rate / self.stride + 1e-6))


class Setting(NamedTuple):
    """How activities become turns.

    Attributes:
        threshold: a speaker talks where the activity is above it.
        median: frames of the median filter, odd; 1 filters nothing.
    """

    threshold: float
    median: int


def names(utterance: Utterance) -> tuple[str, ...]:
    """Return the speakers of a recording, sorted."""
    return tuple(sorted({turn.symbol for turn in utterance.intervals.get(TIER, ())}))


def true_turns(recording: Utterance) -> list[Turn]:
    """Return the turns of a recording as they are scored.

    Raises:
        ValueError: a turn that is none, or a speaker that cannot be written down.
    """
    return [Turn(t.start, t.end - t.start, t.symbol) for t in recording.intervals[TIER]]


def check_turns(recordings: Sequence[Utterance]) -> None:
    """Refuse turns that are none, and those that leave their recording by more than 0.05 s.

    Raises:
        DataError: names the first recordings.
    """
    wrong = []
    for u in recordings:
        try:
            last = max(turn.end for turn in true_turns(u))
            if last > u.duration + TOLERANCE:
                raise ValueError(f"a turn ends at {last:g} s, the recording at {u.duration:g} s")
        except ValueError as error:
            wrong.append(f"{u.id}: {error}")
    if wrong:
        raise DataError(f"turns that cannot be scored: {first_few(wrong)}")


def labels(utterance: Utterance, speakers: int, grid: Grid) -> Active:
    """Return who talks in which frame, (T, S); speakers in order of their names, then nobody.

    Args:
        utterance: with its turns.
        speakers: S.
        grid: of the frames.

    Raises:
        ValueError: more speakers than S.
    """
    order = names(utterance)
    if len(order) > speakers:
        raise ValueError(f"{utterance.id} has {len(order)} speakers, the labels {speakers}")
    table_TS = np.zeros((grid.whole(utterance.duration), speakers), dtype=bool)
    for turn in utterance.intervals.get(TIER, ()):
        first, end = grid.frame(turn.start), grid.frame(turn.end)
        table_TS[max(0, first) : end, order.index(turn.symbol)] = True
    return table_TS


def cut(recording: Utterance, grid: Grid, size: int, *, even: bool, hole: bool) -> list[Utterance]:
    """Return a recording in chunks of at most ``size`` frames; whole where it is no longer.

    Args:
        recording: with its turns.
        grid: of the frames.
        size: frames.
        even: chunks of like length, instead of full ones and a rest.
        hole: leave out turns that begin before a chunk and end after it: the mistake of s3prl's
            labels, where nobody talks in such a chunk.

    Returns:
        The chunks as utterances with their turns, their frames in their ids, in order of time.
    """
    frames = grid.whole(recording.duration)
    count = -(-frames // size)
    if count == 1:
        return [recording]
    edges = [i * frames // count for i in range(count)] if even else [*range(0, frames, size)]
    edges.append(frames)
    return [
        dataclasses.replace(
            recording,
            id=f"{recording.id}@{first}-{end}",
            start=recording.start + first * grid.shift,
            duration=(end - first) * grid.shift,
            intervals={TIER: _within(recording, grid, first, end, hole=hole)},
        )
        for first, end in pairwise(edges)
    ]


def _within(
    recording: Utterance, grid: Grid, first: int, end: int, *, hole: bool
) -> tuple[Interval, ...]:
    """Return the turns of a stretch of frames, their times on the frames."""
    kept = []
    for turn in recording.intervals.get(TIER, ()):
        begins, ends = grid.frame(turn.start), grid.frame(turn.end)
        if (hole and begins < first and ends > end) or begins >= end or ends <= first:
            continue
        start, stop = max(begins, first) - first, min(ends, end) - first
        kept.append(Interval(turn.symbol, start * grid.shift, stop * grid.shift))
    return tuple(kept)


def smooth(active_TS: Active, median: int) -> Active:
    """Return activities after a median filter over time, silence before and after.

    Args:
        active_TS: who talks.
        median: frames, odd.

    Raises:
        ValueError: an even number of frames, or none.
    """
    if median < 1 or median % 2 == 0:
        raise ValueError(f"a median filter needs an odd number of frames, got {median}")
    if median == 1:
        return active_TS
    half = median // 2
    padded = np.pad(active_TS.astype(np.int64), ((half + 1, half), (0, 0)))
    sums = padded.cumsum(axis=0)
    majority: Active = sums[median:] - sums[:-median] > half
    return majority


def to_turns(activity_TS: NDArray[np.float32], setting: Setting, grid: Grid) -> list[Turn]:
    """Return the turns of a recording, speakers named ``speaker1`` ..., in order of start.

    Args:
        activity_TS: between 0 and 1.
        setting: threshold and median filter.
        grid: of the frames.
    """
    active_TS = smooth(activity_TS > setting.threshold, setting.median)
    turns = []
    for number, active_T in enumerate(active_TS.T, start=1):
        (edges,) = np.nonzero(np.diff(active_T.astype(np.int8), prepend=0, append=0))
        turns += [
            Turn(int(first) * grid.shift, int(end - first) * grid.shift, f"speaker{number}")
            for first, end in zip(edges[::2], edges[1::2], strict=True)
        ]
    return sorted(turns, key=lambda turn: (turn.start, turn.speaker))


def to_hundredths(turns: Sequence[Turn]) -> list[Turn]:
    """Return turns as s3prl writes them, starts and durations rounded to 0.01 s; none without any."""
    rounded = ((round(t.start, 2), round(t.duration, 2), t.speaker) for t in turns)
    return [Turn(start, duration, name) for start, duration, name in rounded if duration > 0]
