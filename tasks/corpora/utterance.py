"""The unit of every corpus: a stretch of one channel of one audio file, with its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Interval(NamedTuple):
    """A labelled stretch of time inside an utterance, in seconds from the utterance's start."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One utterance of a prepared corpus.

    Attributes:
        id: unique in the corpus.
        path: absolute path of the audio file.
        start: seconds from the start of the file.
        duration: seconds.
        sample_rate: Hz of the file (audio is resampled when it is read).
        channel: which channel of the file.
        speaker: speaker id, or None where unknown.
        text: transcript, or None.
        split: ``train``, ``dev``, ``test`` or whatever the corpus names; None where it has none.
        labels: every other label by name: ``gender``, ``keyword``, ``phones`` (space-separated),
            ``emotion``, ``intent``, ``slots``, ``language``, ``session`` ...
        intervals: timed labels by tier: ``phones``, ``words``, ``speakers``.
    """

    id: str
    path: str
    start: float
    duration: float
    sample_rate: int
    channel: int = 0
    speaker: str | None = None
    text: str | None = None
    split: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    intervals: Mapping[str, tuple[Interval, ...]] = field(default_factory=dict)

    def label(self, name: str) -> str | None:
        """Return a label by name; ``speaker``, ``text``, ``split`` count as labels too."""
        if name in ("speaker", "text", "split"):
            value: str | None = getattr(self, name)
            return value
        return self.labels.get(name)
