"""The nouns of the task contract: what a task is, how it is trained, what it is given and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mynah.tasks.corpora.hearing import Hearing
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.rttm import Turn

Decoded = str | NDArray[np.float32]
"""What a head says of one utterance: text, or an array (an embedding, activities, waveforms)."""

ProtocolName = Literal["superb", "fixed"]
Resolution = Literal["utterance", "frame"]
Sampler = Literal["shuffle", "balanced", "length-window", "length-bucket", "bucket"]
Splits = Literal["corpus", "made"]
Heads = Literal["protocol", "small"]
Schedule = Literal["constant", "linear", "sqrt", "sqrt-cliff"]

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
        optimizer: ``adam`` is torch's Adam, ``adamw`` its AdamW.
        eps: of the optimiser.
        weight_decay: of ``adamw``.
        schedule: of the learning rate after ``warmup`` updates of linear growth: ``constant``,
            ``linear`` (to zero at the last update), ``sqrt`` (times the root of warmup / update)
            or ``sqrt-cliff`` (times the root of 1 / update: s3prl's, which falls off a cliff).
        warmup: updates.
        learning_rates: the grid that is searched (the one thing SUPERB searches), trained at once.
        batch_size: utterances per micro-batch.
        batch_seconds: where given, a batch of ``bucket`` ends before it holds more audio.
        accumulate: micro-batches per update.
        clip: gradient-norm limit.
        steps: optimiser updates at most.
        eval_every: updates between evaluations on dev.
        patience: training ends early when this many evaluations in a row bettered no seed's best
            dev score; None trains all the steps.
        sampler: ``shuffle`` (epochs without replacement), ``balanced`` (with replacement, weight
            1/class count, last partial batch of an epoch dropped), ``length-window`` (SUPERB's
            overlapping windows of the utterances in order of label length), ``length-bucket``
            (SUPERB's ASR: batches cut once of the utterances in order of duration, only their order
            differs between epochs) or ``bucket`` (epochs without replacement, utterances of like
            duration together, cut anew in each).
        dev_sampler: ``all`` or ``balanced`` (SUPERB's KS dev set, drawn with replacement).
        crop_seconds: longest training crop, None for whole utterances.
        crops: how many random crops of an utterance longer than that are kept to draw from.
        ties: between equal dev scores of one head ``first`` keeps the earlier step, ``loss`` the
            lower dev loss. Between learning rates the lower dev loss decides under both.
        hearing: what is done to audio before the upstream hears it.
    """

    optimizer: Literal["adam", "adamw"] = "adam"
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    warmup: int = 0
    learning_rates: tuple[float, ...] = GRID
    batch_size: int
    batch_seconds: float | None = None
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
    hearing: Hearing = "recorded"


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


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a task may know of the upstream.

    Attributes:
        dim: width D of its features.
        layers: number of hidden states.
        stride: samples between frames.
        sample_rate: Hz.
    """

    dim: int
    layers: int
    stride: int
    sample_rate: int

    @property
    def frame_seconds(self) -> float:
        """Seconds between frames."""
        return self.stride / self.sample_rate


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is scored: one row per utterance, or per trial, recording or query.

    Attributes:
        ids: of the rows.
        units: what the bootstrap resamples, one per row.
        unit: its name: ``speaker``, ``query`` ...
        references: as text.
        predictions: as text.
    """

    ids: Sequence[str]
    units: Sequence[str]
    unit: str
    references: Sequence[str]
    predictions: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Presented:
    """What a trained head says of a recording, for people and programs.

    Attributes:
        text: one line.
        json: the same, and what else is known, as JSON can hold it.
        rttm: who speaks when, where that is the answer.
        wavs: name -> samples (S,) at the upstream's rate, where audio is the answer.
        embedding: (D,), where the answer is to be compared with that of another recording.
    """

    text: str
    json: Mapping[str, Any]
    rttm: Sequence[Turn] | None = None
    wavs: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    embedding: NDArray[np.float32] | None = None
