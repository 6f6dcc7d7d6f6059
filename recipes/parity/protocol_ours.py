"""Our side of ``mynah check protocol``: the probe's own loop under ``superb``, step by step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mynah.downstream.core.sweep import Sweep
from mynah.recipes.parity.protocol_data import Given
from mynah.recipes.probing.batches import Source
from mynah.recipes.probing.score import decoded
from mynah.recipes.probing.train import Trained, training
from mynah.tasks.core.contract import Rows


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one side did.

    Attributes:
        losses: of each update, the mean of its batches.
        predictions: of test, as the task scores them.
        value: what the side's own metric makes of them.
        train: CPU seconds of all updates.
        score: CPU seconds from features to predictions of test.
    """

    losses: Sequence[float]
    predictions: Sequence[str]
    value: float
    train: float
    score: float


class Recorded(Sweep):
    """A sweep of one head that notes the loss of every update.

    Attributes:
        losses: so far.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses: list[float] = []
        self._loss = 0.0

    def backward(self, losses_K: Tensor) -> None:
        """Add a gradient; the losses of an update's parts add up to its own."""
        self._loss += float(losses_K.detach().sum())
        super().backward(losses_K)

    def update(self) -> Tensor:
        """Take the step."""
        self.losses.append(self._loss)
        self._loss = 0.0
        return super().update()


def build(given: Given, *, seed: int) -> Recorded:
    """Return the head of the protocol, new, with its weighted sum and optimiser."""
    protocol, reader = given.protocol, given.reader
    return Recorded(
        lambda: given.task.head(reader.dim),
        layers=reader.num_layers,
        learning_rates=protocol.learning_rates,
        seeds=(seed,),
        clip=protocol.clip,
        optimizer=protocol.optimizer,
        eps=protocol.eps,
        weight_decay=protocol.weight_decay,
    )


def race(given: Given, sweep: Recorded) -> tuple[Run, Rows]:
    """Train with the loop of ``mynah probe``, and answer test with the last weights.

    The loop is left after its last update, before dev is looked at.

    Returns:
        the run, and what is scored.
    """
    task = given.task
    source = Source(given.reader, pooled=task.SPEC.resolution == "utterance", heads=1)
    (fold,) = task.loaded.folds.values()
    done = Trained(sweep=sweep)
    seconds = 0.0
    for _ in training(task, given.protocol, fold, source, done, track=_untracked):
        seconds = done.cpu
        if done.steps == given.protocol.steps:
            break
    started = time.process_time()
    said = decoded(task, sweep.probe(sweep.state(0)), fold[2], source)
    scored = time.process_time() - started
    rows = task.rows(fold[2], said)
    run = Run(
        losses=sweep.losses,
        predictions=rows.predictions,
        value=task.metrics()[0].score(rows.references, rows.predictions),
        train=seconds,
        score=scored,
    )
    return run, rows


def _untracked(items: Iterable[int], _description: str, _total: int) -> Iterable[int]:
    return items
