"""What every task promises: a spec to read before any audio, and a handful of functions.

A task owns everything that decides its number: which labels it needs, its splits, the head of the
protocol, the loss, the decoding, the metrics, and how training is done under each protocol. It
never sees an upstream or a file: it is given utterances and features.

Two protocols exist for every task. ``superb`` repeats the published benchmark, its mistakes
included, to compare with published rows. ``fixed`` (default) mends them: no selection on test data,
speaker-disjoint development set, the true development set. What differs is listed in the docstring
of each task's file. Neither repeats the dependence of s3prl's features on the padding of a batch:
that belongs to an upstream's forward, and ours has none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor, nn

from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.metric import Metric

ProtocolName = Literal["superb", "fixed"]
Resolution = Literal["utterance", "frame"]
Sampler = Literal["shuffle", "balanced", "length-window", "bucket"]
Splits = Literal["corpus", "made"]

GRID = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # five learning rates on a log scale, as entrants search


class DataError(ValueError):
    """A corpus cannot serve a task; the message names the first offenders and how many there are."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The facts of a task, readable before any audio is.

    Attributes:
        name: the stem of the task's file.
        problem: one line: what is asked.
        resolution: ``utterance`` heads see a pooled mean, ``frame`` heads see every frame.
        labels: label names that an utterance must carry; ``a|b`` where either will do.
        metric: name of the metric that ranks.
        higher_is_better: direction of that metric.
        split_unit: what train, dev and test must not share.
        resample_by: label by which the bootstrap resamples (``speaker``).
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
    resample_by: str = "speaker"
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
        steps: optimiser updates at most.
        eval_every: updates between evaluations on dev.
        patience: training ends early when this many evaluations in a row bettered no seed's best
            dev score; None trains all the steps.
        sampler: ``shuffle`` (epochs without replacement), ``balanced`` (with replacement, weight
            1/class count, last partial batch of an epoch dropped), ``length-window`` (SUPERB's
            overlapping windows of the utterances in order of label length) or ``bucket`` (epochs
            without replacement, utterances of like duration together).
        dev_sampler: ``all`` or ``balanced`` (SUPERB's KS dev set, drawn with replacement).
        crop_seconds: longest training crop, None for whole utterances.
        crops: how many random crops of an utterance longer than that are kept to draw from.
        ties: between equal dev scores of one head ``first`` keeps the earlier step, ``loss`` the
            lower dev loss. Between learning rates the lower dev loss decides under both.
    """

    optimizer: Literal["adam"] = "adam"
    learning_rates: tuple[float, ...] = GRID
    batch_size: int
    accumulate: int
    clip: float
    steps: int
    eval_every: int
    patience: int | None = None
    sampler: Sampler = "shuffle"
    dev_sampler: Literal["all", "balanced"] = "all"
    crop_seconds: float | None = None
    crops: int = 4
    ties: Literal["first", "loss"] = "loss"


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
        notes: how the splits came about, for logs and people.
    """

    folds: Mapping[str, tuple[Split, Split, Split]]
    classes: tuple[str, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Task(ABC):
    """One task under one protocol, bound to the data that it made of a corpus.

    Subclasses set ``SPEC`` and ``PROTOCOLS`` and write the abstract methods.

    Args:
        protocol: ``fixed`` or ``superb``.
        splits: ``corpus`` takes the splits that the corpus names, where it names any; ``made``
            ignores them and makes disjoint ones.
        lexicon: file of pronunciations (``WORD P1 P2 ...`` per line), for tasks that can use one.

    Raises:
        ValueError: unknown protocol, or a lexicon for a task that has no use for it.
    """

    SPEC: ClassVar[Spec]
    PROTOCOLS: ClassVar[Mapping[str, Protocol]]
    USES_LEXICON: ClassVar[bool] = False

    def __init__(
        self,
        protocol: ProtocolName = "fixed",
        *,
        splits: Splits = "corpus",
        lexicon: Path | None = None,
    ) -> None:
        if protocol not in self.PROTOCOLS:
            raise ValueError(
                f"protocol must be one of {', '.join(self.PROTOCOLS)}, got {protocol!r}"
            )
        if splits not in ("corpus", "made"):
            raise ValueError(f"splits must be 'corpus' or 'made', got {splits!r}")
        if lexicon is not None and not self.USES_LEXICON:
            raise ValueError(f"task {self.SPEC.name!r} has no use for a lexicon: leave it out")
        self.protocol_name: ProtocolName = protocol
        self.protocol = self.PROTOCOLS[protocol]
        self.splits: Splits = splits
        self.lexicon = lexicon
        self.data: Data | None = None

    @property
    def loaded(self) -> Data:
        """What :meth:`load` made.

        Raises:
            RuntimeError: nothing was loaded.
        """
        if self.data is None:
            raise RuntimeError(f"task {self.SPEC.name!r} has no data yet: call load(utterances)")
        return self.data

    @abstractmethod
    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split a corpus and check it; sets and returns ``self.data``.

        Args:
            utterances: of the corpus.
            seed: of splits that are made here; part of the benchmark, not of a run.

        Raises:
            DataError: a needed label is missing, a class of dev or test is not in train, splits
                share a value of the split unit, or a split is empty; the message names the first
                offenders and how many there are.
        """

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of outputs of the head: classes, or symbols with the blank."""

    @abstractmethod
    def head(self, dim: int) -> nn.Module:
        """Return the protocol's head for features of width ``dim`` (without the weighted sum)."""

    def views(self, utterance: Utterance) -> tuple[Utterance, ...]:
        """Return what training draws from in place of an utterance: itself, or crops of it."""
        return (utterance,)

    def too_short(self, utterance: Utterance, frames: int) -> str | None:
        """Return why ``frames`` frames cannot be trained on, None where they can."""
        return None

    @abstractmethod
    def losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return one loss per item, shape (K, B), for K heads trained on the same batch.

        The loss of a batch is the mean over its items, so a batch may be cut and summed.

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

    def target_length(self, utterance: Utterance) -> int:
        """Return the number of target symbols, by which ``length-window`` sorts."""
        return 1

    def window_limit(self, utterance: Utterance) -> bool:
        """Return whether a window that starts with this utterance loses its second half."""
        return False

    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """Return the metrics over all test utterances; the first is ``SPEC.metric``."""

    def dev_metric(self) -> Metric:
        """Return the metric of one fold's dev set, by which steps and learning rates are chosen."""
        return self.metrics()[0]

    def score(
        self,
        references: Sequence[str],
        predictions: Sequence[str],
        folds: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """Return every metric by name; ``SPEC.metric`` is among them."""
        return {m.name: m.score(references, predictions, folds) for m in self.metrics()}
