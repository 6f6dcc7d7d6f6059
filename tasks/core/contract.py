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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from mynah.tasks.core.crops import random_crops
from mynah.tasks.core.types import (
    GRID,
    Data,
    DataError,
    Decoded,
    Facts,
    Heads,
    Presented,
    Protocol,
    ProtocolName,
    Resolution,
    Rows,
    Sampler,
    Schedule,
    Spec,
    Split,
    Splits,
)
from mynah.tasks.corpora import hearing
from mynah.tasks.corpora.official.core.trials import Trial
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.metric import Measure

__all__ = [
    "GRID",
    "Data",
    "DataError",
    "Decoded",
    "Facts",
    "Heads",
    "Presented",
    "Protocol",
    "ProtocolName",
    "Resolution",
    "Rows",
    "Sampler",
    "Schedule",
    "Spec",
    "Split",
    "Splits",
    "Task",
]


class Task(ABC):
    """One task under one protocol, bound to the data that it made of a corpus.

    Subclasses set ``SPEC`` and ``PROTOCOLS`` and write the abstract methods. The life of a task:
    :meth:`load` (a corpus), :meth:`bind` (an upstream), :meth:`head`, then batches through
    :meth:`losses`, dev and test through :meth:`infer` and :meth:`rows`; :meth:`state` and
    :meth:`restore` carry what decoding needs to where the corpus is not.

    Args:
        protocol: ``fixed`` or ``superb``.
        splits: ``corpus`` takes the splits that the corpus names, where it names any; ``made``
            ignores them and makes disjoint ones.
        lexicon: file of pronunciations (``WORD P1 P2 ...`` per line), for tasks that can use one.
        lm: file of an n-gram language model (ARPA or KenLM), for tasks that can use one.
        heads: ``protocol`` builds the head of the protocol; ``small`` a narrower one of the same
            kind, for small data and machines, where the task has one (its docstring says).

    Raises:
        ValueError: unknown protocol, or a file for a task that has no use for it.
    """

    SPEC: ClassVar[Spec]
    PROTOCOLS: ClassVar[Mapping[str, Protocol]]
    USES_LEXICON: ClassVar[bool] = False
    USES_LM: ClassVar[bool] = False
    USES_TRIALS: ClassVar[bool] = False
    """Whether the task is given the corpus' own list of trials, by :meth:`take_trials`."""
    HAS_SMALL_HEAD: ClassVar[bool] = False
    PROBED: ClassVar[bool] = True
    """False where a frozen upstream alone cannot be probed on it."""
    TRAINED: ClassVar[bool] = True
    """False where there is no head: the task is solved by :meth:`decode_layers`."""
    DEV_BY: ClassVar[Literal["outputs", "infer"]] = "outputs"
    """Whether dev is decoded from what training computes, or by :meth:`infer`, head by head."""

    def __init__(
        self,
        protocol: ProtocolName = "fixed",
        *,
        splits: Splits = "corpus",
        lexicon: Path | None = None,
        lm: Path | None = None,
        heads: Heads = "protocol",
    ) -> None:
        if protocol not in self.PROTOCOLS:
            raise ValueError(
                f"protocol must be one of {', '.join(self.PROTOCOLS)}, got {protocol!r}"
            )
        if splits not in ("corpus", "made"):
            raise ValueError(f"splits must be 'corpus' or 'made', got {splits!r}")
        if lexicon is not None and not self.USES_LEXICON:
            raise ValueError(f"task {self.SPEC.name!r} has no use for a lexicon: leave it out")
        if lm is not None and not self.USES_LM:
            raise ValueError(f"task {self.SPEC.name!r} has no use for a language model")
        if heads not in ("protocol", "small"):
            raise ValueError(f"heads must be 'protocol' or 'small', got {heads!r}")
        self.protocol_name: ProtocolName = protocol
        self.protocol = self.PROTOCOLS[protocol]
        self.splits: Splits = splits
        self.lexicon = lexicon
        self.lm = lm
        self.small = heads == "small" and self.HAS_SMALL_HEAD
        self.data: Data | None = None
        self._facts: Facts | None = None

    @property
    def loaded(self) -> Data:
        """What :meth:`load` made.

        Raises:
            RuntimeError: nothing was loaded.
        """
        if self.data is None:
            raise RuntimeError(f"task {self.SPEC.name!r} has no data yet: call load(utterances)")
        return self.data

    def take_trials(self, trials: Sequence[Trial]) -> None:
        """Take the corpus' own list of trials, empty where it has none; before :meth:`load`.

        Raises:
            ValueError: a task that compares no pairs of utterances.
        """
        raise ValueError(f"task {self.SPEC.name!r} has no use for trials: leave them out")

    def heard(self, utterances: Sequence[Utterance]) -> list[Utterance]:
        """Return utterances as the protocol hears them (its ``hearing``).

        :meth:`load` hears its utterances so; whoever asks a trained head about others does, too.

        Returns:
            in order; an utterance of which nothing would be left is left out.

        Raises:
            ValueError: where silences are to be cut is not known, or audio cannot be read.
        """
        return hearing.heard(utterances, self.protocol.hearing)[0]

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
    def facts(self) -> Facts:
        """The upstream's facts.

        Raises:
            RuntimeError: nothing was bound.
        """
        if self._facts is None:
            raise RuntimeError(f"task {self.SPEC.name!r} knows no upstream yet: call bind(facts)")
        return self._facts

    def bind(self, facts: Facts) -> None:
        """Say which upstream's features will come; before :meth:`head`.

        Raises:
            DataError: the task cannot be done with such an upstream.
        """
        self._facts = facts

    def state(self) -> dict[str, Any]:
        """Return what decoding needs besides the head's weights, as JSON can hold it."""
        return {"classes": list(self.loaded.classes)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be ready to decode, from what :meth:`state` gave; there are no splits then."""
        self.data = Data(folds={}, classes=tuple(state["classes"]))

    @property
    def outputs(self) -> int:
        """Number of outputs of the head: classes, or symbols with the blank."""
        return len(self.loaded.classes)

    @abstractmethod
    def head(self, dim: int) -> nn.Module:
        """Return the protocol's head for features of width ``dim`` (without the weighted sum)."""

    def views(self, utterance: Utterance) -> tuple[Utterance, ...]:
        """Return what training draws from in place of an utterance: itself, or crops of it.

        Crops are of an utterance that is longer than the protocol's.
        """
        limit = self.protocol.crop_seconds
        if limit is None or utterance.duration <= limit:
            return (utterance,)
        return random_crops(utterance, limit, self.protocol.crops)

    def too_short(self, utterance: Utterance, frames: int) -> str | None:
        """Return why ``frames`` frames cannot be trained on, None where they can."""
        return None

    def head_inputs(self, batch: Sequence[Utterance]) -> tuple[Tensor, ...]:
        """Return what the head is given in training beside features and lengths: its own targets."""
        return ()

    @abstractmethod
    def losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return one loss per item, shape (K, B), for K heads trained on the same batch.

        The loss of a batch is the mean over its items, so a batch may be cut and summed.

        Args:
            outputs: what K heads gave: (K, B, C) for utterance tasks, (K, B, T, C) for frame tasks.
            lengths_B: frames of each item.
            batch: the B utterances.
        """

    def dev_losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return one loss per dev item (K, B): those of training, unless they are not defined."""
        return self.losses(outputs, lengths_B, batch)

    @abstractmethod
    def decode(
        self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> Sequence[Decoded]:
        """Return what one head says of each item, from its outputs (B, C) or (B, T, C)."""

    def infer(
        self, probe: nn.Module, features: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> Sequence[Decoded]:
        """Return what a trained head says of each item, as test does.

        Args:
            probe: weighted sum and head (``probe.featurizer``, ``probe.head``).
            features: pooled (B, L, D) or frames (L, B, T, D).
            lengths_B: frames of each item.
            batch: the B utterances.
        """
        return self.decode(probe(features, lengths_B), lengths_B, batch)

    def present(self, decoded: Decoded, utterance: Utterance) -> Presented:
        """Return what a head said of an utterance, for people: text as it is, a row as an embedding.

        Tasks that decode to anything else define their own.

        Raises:
            NotImplementedError: anything else.
        """
        if isinstance(decoded, str):
            return Presented(text=decoded, json={"text": decoded})
        if decoded.ndim != 1:
            raise NotImplementedError(f"task {self.SPEC.name!r} cannot show its answers yet")
        size = f"{len(decoded)} numbers"
        return Presented(text=size, json={"embedding": decoded.tolist()}, embedding=decoded)

    def predict(
        self, probe: nn.Module, features: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> Sequence[Presented]:
        """Return what a trained head says of each item, for people, labels being unknown.

        Tasks whose outputs tell more than :meth:`infer` does (probabilities, times) show that.

        Args:
            probe: as in :meth:`infer`.
            features: likewise.
            lengths_B: likewise.
            batch: likewise.
        """
        said = self.infer(probe, features, lengths_B, batch)
        return [self.present(one, u) for one, u in zip(said, batch, strict=True)]

    def decode_layers(
        self, split: Split, read: Callable[[Sequence[Utterance]], list[Tensor]]
    ) -> list[Sequence[Decoded]]:
        """Return, for each layer of the upstream, what is said of a split, without any training.

        Args:
            split: dev or test.
            read: returns the frames of utterances, each (L, T, D).

        Raises:
            NotImplementedError: a task that trains a head.
        """
        raise NotImplementedError(f"task {self.SPEC.name!r} trains a head")

    @abstractmethod
    def reference(self, utterance: Utterance) -> str:
        """Return the reference string that predictions are scored against."""

    def rows(self, split: Split, decoded: Sequence[Decoded]) -> Rows:
        """Return what is scored on a split, given what a head said of each of its utterances."""
        utterances = split.utterances
        names = [u.label(self.SPEC.resample_by) for u in utterances]
        known = all(names)
        return Rows(
            ids=[u.id for u in utterances],
            units=[str(n) for n in names] if known else [u.id for u in utterances],
            unit=self.SPEC.resample_by if known else "utterance",
            references=[self.reference(u) for u in utterances],
            predictions=[str(text) for text in decoded],
        )

    def target_length(self, utterance: Utterance) -> int:
        """Return the number of target symbols, by which ``length-window`` sorts."""
        return 1

    def window_limit(self, utterance: Utterance) -> bool:
        """Return whether a window that starts with this utterance loses its second half."""
        return False

    @abstractmethod
    def metrics(self) -> tuple[Measure, ...]:
        """Return the metrics over all test rows; the first is ``SPEC.metric``."""

    def dev_metric(self) -> Measure:
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
