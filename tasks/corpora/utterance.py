"""The unit of every corpus: a stretch of one channel of one audio file, with its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple


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
        intervals: timed labels by tier: ``phones``, ``words``, ``speakers``, ``sounds``.
        gain: dB by which it is heard louder; a protocol's wish, never kept in a corpus.
        sounds: samples of the file (first, last + 1) that are heard, in order, where a protocol cuts
            silences out; ``start`` is then the first of them and ``duration`` that of all. None
            where the whole stretch is heard.
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
    gain: float = 0.0
    sounds: tuple[tuple[int, int], ...] | None = None

    def label(self, name: str) -> str | None:
        """Return a label by name; ``speaker``, ``text``, ``split`` count as labels too."""
        if name in ("speaker", "text", "split"):
            value: str | None = getattr(self, name)
            return value
        return self.labels.get(name)

    def crop(self, offset: float, seconds: float, *, name: str) -> Utterance:
        """Return a part of what is heard, under another id; labels and tiers stay as they are.

        Args:
            offset: where it begins, seconds from the beginning of what is heard.
            seconds: how long it lasts.
            name: its id.

        Raises:
            ValueError: it leaves the utterance by more than a sample.
        """
        if offset < 0 or offset + seconds > self.duration + 1 / self.sample_rate:
            raise ValueError(
                f"{offset:g}-{offset + seconds:g} s leave {self.id!r}, {self.duration} s"
            )
        if self.sounds is None:
            return replace(self, id=name, start=self.start + offset, duration=seconds)
        first = round(offset * self.sample_rate)
        last = first + round(seconds * self.sample_rate)
        kept, heard = [], 0
        for begin, end in self.sounds:
            low, high = max(first, heard), min(last, heard + end - begin)
            if low < high:
                kept.append((begin + low - heard, begin + high - heard))
            heard += end - begin
        return replace(self, id=name, **_only(kept, self.sample_rate))

    def only(self, sounds: Sequence[tuple[int, int]]) -> Utterance:
        """Return the utterance of which only these samples of the file are heard.

        Raises:
            ValueError: no samples.
        """
        if not sounds:
            raise ValueError(f"nothing is left of utterance {self.id!r}")
        return replace(self, **_only(sounds, self.sample_rate))


def _only(sounds: Sequence[tuple[int, int]], rate: int) -> dict[str, Any]:
    return {
        "sounds": tuple(sounds),
        "start": sounds[0][0] / rate,
        "duration": sum(end - begin for begin, end in sounds) / rate,
    }
