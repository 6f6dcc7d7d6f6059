"""What every task promises: a spec to read before any audio, and five functions.

A task owns everything that decides its number: which labels it needs, the head of the protocol,
the loss, the decoding, the metric, and how training is done under each protocol. It never sees an
upstream or a file: it is given utterances and features.

Two protocols exist for every task. ``superb`` repeats the published benchmark, its mistakes
included, to compare with published rows. ``fixed`` (default) mends them: no selection on test data,
speaker-disjoint development set, the true development set, correct schedules. What differs is
listed in the docstring of each task's file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn

from mynah.tasks.corpora.utterance import Utterance

ProtocolName = Literal["superb", "fixed"]
Resolution = Literal["utterance", "frame"]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The facts of a task, readable before any audio is.

    Attributes:
        name: the stem of the task's file.
        problem: one line: what is asked.
        resolution: ``utterance`` heads see a pooled mean, ``frame`` heads see every frame.
        labels: label names that each utterance must carry.
        metric: name of the metric that ranks.
        higher_is_better: direction of that metric.
        split_unit: label whose values must not be shared by train, dev and test, and by which the
            bootstrap resamples (``speaker``, ``session`` ...).
        version: raised whenever a change can change a score.
        licence: of the official corpus.
        citation: paper of the task or its corpus.
    """

    name: str
    problem: str
    resolution: Resolution
    labels: tuple[str, ...]
    metric: str
    higher_is_better: bool
    split_unit: str
    version: int
    licence: str
    citation: str


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a head is trained under one protocol; numbers only, the loop is shared.

    Attributes:
        optimizer: ``adam`` is torch's Adam with its defaults.
        learning_rates: the grid that is searched (the one thing SUPERB searches), trained at once.
        batch_size: utterances per micro-batch.
        accumulate: micro-batches per update.
        clip: gradient-norm limit.
        steps: optimiser updates.
        eval_every: updates between evaluations on dev.
        sampler: ``shuffle`` (epochs without replacement), ``balanced`` (with replacement, weight
            1/class count) or ``length-window`` (SUPERB's contiguous windows by label length).
        dev_sampler: ``all`` or ``balanced`` (SUPERB's KS dev set, drawn with replacement).
        crop_seconds: longest training crop, None for whole utterances.
    """

    optimizer: Literal["adam"] = "adam"
    learning_rates: tuple[float, ...]
    batch_size: int
    accumulate: int
    clip: float
    steps: int
    eval_every: int
    sampler: Literal["shuffle", "balanced", "length-window"] = "shuffle"
    dev_sampler: Literal["all", "balanced"] = "all"
    crop_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Split:
    """The utterances of one part of a task's data, in a fixed order.

    Attributes:
        name: ``train``, ``dev`` or ``test``.
        utterances: in the order that predictions come back.
    """

    name: str
    utterances: Sequence[Utterance]


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a task makes of a corpus: folds of train/dev/test and the label inventory.

    Attributes:
        folds: fold name -> (train, dev, test); one fold named ``""`` unless the task
            cross-validates (ER).
        classes: the label inventory (classes, or symbols without the blank).
        skipped: utterances of the corpus that could not be used, id -> reason.
    """

    folds: Mapping[str, tuple[Split, Split, Split]]
    classes: tuple[str, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)


class Task(ABC):
    """One task under one protocol, bound to the data that it made of a corpus.

    Subclasses set ``SPEC`` and ``PROTOCOLS`` and write the abstract methods.
    """

    SPEC: ClassVar[Spec]
    PROTOCOLS: ClassVar[Mapping[str, Protocol]]

    def __init__(self, protocol: ProtocolName = "fixed") -> None:
        if protocol not in self.PROTOCOLS:
            raise ValueError(
                f"protocol must be one of {', '.join(self.PROTOCOLS)}, got {protocol!r}"
            )
        self.protocol_name: ProtocolName = protocol
        self.protocol = self.PROTOCOLS[protocol]
        self.data: Data | None = None

    @abstractmethod
    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split a corpus and check it; sets and returns ``self.data``.

        Raises:
            ValueError: a needed label is missing, a class of dev or test is not in train, splits
                share a value of the split unit, or a split is empty; the message names the first
                offenders and how many there are.
        """

    @abstractmethod
    def head(self, dim: int) -> nn.Module:
        """Return the protocol's head for features of width ``dim`` (without the weighted sum)."""

    @abstractmethod
    def losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return one loss per item, shape (K, B), for K heads trained on the same batch.

        Args:
            outputs: what K heads gave: (K, B, C) for utterance tasks, (K, B, T, C) for frame tasks.
            lengths_B: frames of each item.
            batch: the B utterances.
        """

    @abstractmethod
    def decode(self, outputs: Tensor, lengths_B: Tensor) -> list[str]:
        """Return one prediction per item from one head's outputs (B, C) or (B, T, C)."""

    @abstractmethod
    def reference(self, utterance: Utterance) -> str:
        """Return the reference string that predictions are scored against."""

    @abstractmethod
    def score(self, references: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
        """Return the corpus-level metrics; ``SPEC.metric`` is among the keys."""
