"""Recordings in chunks, and what was said of the chunks put together again.

Shape suffixes: T frames, S speakers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mynah.tasks.core.contract import Split
from mynah.tasks.core.turns import Grid, cut
from mynah.tasks.corpora.utterance import Utterance


class Chunks:
    """The chunks of recordings, and which recording each is of.

    Args:
        grid: frames in time.
        frames: of a chunk, at most.
        even: cut a recording into chunks of like length, not into whole ones and a rest.
        hole: a speaker whose turn spans a chunk is silent in it (see
            :func:`~mynah.tasks.core.turns.cut`).
    """

    def __init__(self, grid: Grid, frames: int, *, even: bool, hole: bool) -> None:
        self.grid = grid
        self.frames = frames
        self.even = even
        self.hole = hole
        self._recording: dict[str, Utterance] = {}

    def of(self, split: Split) -> Split:
        """Return a split of the chunks of its recordings, in their order."""
        pieces: list[Utterance] = []
        for recording in split.utterances:
            own = cut(recording, self.grid, self.frames, even=self.even, hole=self.hole)
            self._recording |= {piece.id: recording for piece in own}
            pieces += own
        return Split(name=split.name, utterances=tuple(pieces))

    def joined(
        self, chunks: Sequence[Utterance], activities: Sequence[NDArray[np.float32]]
    ) -> tuple[list[Utterance], list[NDArray[np.float32]]]:
        """Return recordings and their activities, those of chunks one after the other.

        Args:
            chunks: in their order; what is no chunk is taken as a whole recording.
            activities: (T, S) of each.
        """
        recordings: dict[str, Utterance] = {}
        found: dict[str, list[NDArray[np.float32]]] = {}
        for u, activity_TS in zip(chunks, activities, strict=True):
            whole = self._recording.get(u.id, u)
            recordings[whole.id] = whole
            found.setdefault(whole.id, []).append(activity_TS)
        return [*recordings.values()], [np.concatenate(pieces) for pieces in found.values()]
