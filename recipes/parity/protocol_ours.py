"""Our side of ``mynah check protocol``: the probe's own loop under ``superb``, step by step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mynah.downstream.core.sweep import Sweep
from mynah.recipes.parity.protocol_data import Given
from mynah.recipes.probing.batches import Source
from mynah.recipes.probing.score import decoded
from mynah.recipes.probing.train import Trained, training
from mynah.tasks.core.contract import Rows, Split

ROUNDINGS = 4


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

    def disturb(self) -> None:
        """Change every weight by a few roundings."""
        with torch.no_grad():
            for stack in self._params.values():
                stack.mul_(1 + ROUNDINGS * torch.finfo(stack.dtype).eps)

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
    """Train, and answer test with the last weights.

    Returns:
        the run, and what is scored.
    """
    task = given.task
    source, split, seconds = train(given, sweep)
    started = time.process_time()
    said = decoded(task, sweep.probe(sweep.state(0)), split, source)
    scored = time.process_time() - started
    rows = task.rows(split, said)
    run = Run(
        losses=sweep.losses,
        predictions=rows.predictions,
        value=task.metrics()[0].score(rows.references, rows.predictions),
        train=seconds,
        score=scored,
    )
    return run, rows


def train(given: Given, sweep: Recorded) -> tuple[Source, Split, float]:
    """Train with the loop of ``mynah probe``, which is left before it looks at dev.

    Returns:
        where features came from, test, and CPU seconds.
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
    return source, fold[2], seconds


def echo(given: Given, *, seed: int) -> list[float]:
    """Return the losses of a run from weights that are a few roundings away.

    What training makes of rounding bounds how long two right implementations can agree.
    """
    sweep = build(given, seed=seed)
    sweep.disturb()
    train(given, sweep)
    return sweep.losses


def _untracked(items: Iterable[int], _description: str, _total: int) -> Iterable[int]:
    return items
