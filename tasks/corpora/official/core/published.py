"""Published sizes of a corpus, and what a prepared one has instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mynah.tasks.corpora.utterance import Utterance

Unit = Literal["utterances", "speakers", "trials", "values"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """One published number.

    Attributes:
        count: the number.
        unit: what is counted: ``utterances``, distinct ``speakers``, ``trials``, or distinct
            ``values`` of ``label``.
        split: only of this split.
        label: only where this label is ``value``; for ``values``: the label that is counted.
        value: of the label.
        recalled: from memory of the literature, not read in a source: a mismatch is never an
            error.
    """

    count: int
    unit: Unit = "utterances"
    split: str | None = None
    label: str | None = None
    value: str | None = None
    recalled: bool = False

    def __str__(self) -> str:
        """Return what is counted: ``train keyword=yes``, ``speakers of train``."""
        of = [self.split] if self.split else []
        if self.unit == "values":
            return " of ".join([f"distinct {self.label}", *of])
        if self.label:
            of.append(f"{self.label}={self.value}")
        if self.unit == "utterances":
            return " ".join(of) or "all"
        return " of ".join([self.unit, *of])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A published number and the one that was found."""

    size: Size
    got: int

    @property
    def agrees(self) -> bool:
        """Whether they are equal."""
        return self.got == self.size.count

    def __str__(self) -> str:
        """Return both numbers: ``train: 3, published 28539``."""
        note = " (recalled)" if self.size.recalled else ""
        return f"{self.size}: {self.got}, published {self.size.count}{note}"


def splits(**counts: int) -> tuple[Size, ...]:
    """Return the sizes of splits: ``splits(train=28539, dev=2703)``."""
    return tuple(Size(count=count, split=split) for split, count in counts.items())


def by_value(split: str | None, label: str, counts: Mapping[str, int]) -> tuple[Size, ...]:
    """Return the sizes of the values of a label, in a split or in all."""
    return tuple(
        Size(count=count, split=split, label=label, value=value) for value, count in counts.items()
    )


def compare(
    sizes: Iterable[Size], utterances: Sequence[Utterance], trials: int
) -> list[Comparison]:
    """Hold a corpus against its published sizes.

    Args:
        sizes: what is published.
        utterances: what can be used of the corpus.
        trials: number of its trials.
    """
    return [Comparison(size=size, got=_count(size, utterances, trials)) for size in sizes]


def _count(size: Size, utterances: Sequence[Utterance], trials: int) -> int:
    if size.unit == "trials":
        return trials
    chosen = [u for u in utterances if size.split in (None, u.split)]
    if size.unit == "values":
        return len({value for u in chosen if (value := u.label(str(size.label)))})
    if size.label:
        chosen = [u for u in chosen if u.label(size.label) == size.value]
    if size.unit == "speakers":
        return len({u.speaker for u in chosen if u.speaker})
    return len(chosen)
