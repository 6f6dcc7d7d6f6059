"""Training of all heads of one fold at once: every learning rate, every seed, the same batches.

Shape suffixes: K heads, B batch.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mynah.downstream.core.sweep import Sweep
from mynah.recipes.probing.batches import Source
from mynah.tasks.core.contract import Decoded, Protocol, Split, Task
from mynah.tasks.core.sampling import SUPERB_SEED, Pool, balanced_draw, batches
from mynah.tasks.corpora.utterance import Utterance

log = logging.getLogger(__name__)

ORDER_SEED = 0  # of batches: common to all heads, so that a seed's result does not depend on others

Track = Callable[[Iterable[int], str, int], Iterable[int]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One head on dev: ``dev`` and ``dev_loss`` are None where they are not finite."""

    head: int
    step: int
    train_loss: float | None
    dev: float | None
    dev_loss: float | None


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best evaluation of one head, with its weights."""

    evaluation: Evaluation
    state: dict[str, Tensor]


@dataclass(kw_only=True)
class Trained:
    """What training one fold gave.

    Attributes:
        sweep: the heads.
        evaluations: every evaluation of every head.
        best: the best of each head that had any.
        steps: updates done.
        passes: how often each training utterance was seen on average.
        skipped: training utterances that could not be used, id -> reason.
        cpu: seconds of the process.
        wall: seconds on the clock.
    """

    sweep: Sweep
    evaluations: list[Evaluation] = field(default_factory=list)
    best: dict[int, Best] = field(default_factory=dict)
    steps: int = 0
    passes: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    cpu: float = 0.0
    wall: float = 0.0


def better(new: Evaluation, old: Evaluation, protocol: Protocol, higher: bool) -> bool:
    """Return whether an evaluation replaces the head's best so far."""
    assert new.dev is not None and old.dev is not None
    if new.dev != old.dev:
        return (new.dev > old.dev) == higher
    if protocol.ties == "loss" and new.dev_loss is not None:
        return old.dev_loss is None or new.dev_loss < old.dev_loss
    return False


def usable(task: Task, split: Split, source: Source) -> tuple[list[Utterance], dict[str, str]]:
    """Return the utterances that can be trained on, and why the others cannot.

    One that is seen in crops is judged by the first of them, for they are alike in length and the
    whole of it has no features.
    """
    kept, skipped = [], {}
    lengths = source.lengths([task.views(u)[0] for u in split.utterances])
    for u, frames in zip(split.utterances, lengths, strict=True):
        reason = task.too_short(u, frames)
        if reason is None:
            kept.append(u)
        else:
            skipped[u.id] = reason
    return kept, skipped


def training_batches(
    task: Task, protocol: Protocol, train: Sequence[Utterance]
) -> Iterator[list[Utterance]]:
    """Yield training batches without end; longer utterances are replaced by one of their crops."""
    pool = Pool(
        classes=[task.reference(u) if protocol.sampler == "balanced" else "" for u in train],
        seconds=[u.duration for u in train],
        target_lengths=[task.target_length(u) for u in train],
        halved=[task.window_limit(u) for u in train],
    )
    views = [task.views(u) for u in train]
    rng = random.Random(ORDER_SEED)
    stream = batches(
        pool,
        protocol.sampler,
        protocol.batch_size,
        seed=ORDER_SEED,
        seconds=protocol.batch_seconds,
    )
    for batch in stream:
        yield [views[i][0] if len(views[i]) == 1 else rng.choice(views[i]) for i in batch]


def rate_factor(protocol: Protocol, step: int) -> float:
    """Return by what the learning rate is multiplied at an update, counted from 1.

    ``sqrt-cliff`` is s3prl's ``get_sqrt_decay_schedule_with_warmup``: after the warm-up it lacks the
    factor sqrt(warmup), so that the rate falls by that factor at once.
    """
    done, warmup = step - 1, protocol.warmup
    if done < warmup:
        return done / max(1, warmup)
    if protocol.schedule == "linear":
        return (protocol.steps - done) / max(1, protocol.steps - warmup)
    if protocol.schedule == "sqrt":
        return math.sqrt(max(1, warmup) / max(1, done))
    if protocol.schedule == "sqrt-cliff":
        return 1 / math.sqrt(max(1, done))
    return 1.0


class DevSet:
    """A dev set, and how the protocol scores it."""

    def __init__(self, task: Task, protocol: Protocol, split: Split, source: Source) -> None:
        self.task = task
        self.source = source
        self.split = split
        self.utterances = list(split.utterances)
        self.at = {u.id: i for i, u in enumerate(self.utterances)}
        self.picked = list(range(len(self.utterances)))
        if protocol.dev_sampler == "balanced":
            import numpy as np

            classes = [task.reference(u) for u in self.utterances]
            self.picked = balanced_draw(classes, np.random.default_rng(SUPERB_SEED))
        self.metric = task.dev_metric()

    @torch.no_grad()
    def evaluate(self, sweep: Sweep) -> list[tuple[float | None, float | None]]:
        """Return (score, mean loss) of each head, None where it is not finite."""
        heads, count = len(sweep), len(self.utterances)
        decoded: list[list[Decoded]] = [[""] * count for _ in range(heads)]
        losses = torch.full((heads, count), math.nan, dtype=torch.float64)
        sweep.train(False)
        by_infer = self.task.DEV_BY == "infer"
        probes = {k: sweep.probe(sweep.state(k)) for k in sweep.living()} if by_infer else {}
        for group in self.source.sweep(self.utterances):
            features, lengths_B = self.source(group)
            outputs = sweep(features, lengths_B, *self.task.head_inputs(group))
            rows = [self.at[u.id] for u in group]
            losses[:, rows] = self.task.dev_losses(outputs, lengths_B, group).double().cpu()
            for k in sweep.living():
                said = (
                    self.task.infer(probes[k], features, lengths_B, group)
                    if by_infer
                    else self.task.decode(outputs[k], lengths_B, group)
                )
                for row, one in zip(rows, said, strict=True):
                    decoded[k][row] = one
        sweep.train(True)
        alive = set(sweep.living())
        return [self._score(decoded[k], losses[k]) if k in alive else (None, None)
                for k in range(heads)]  # fmt: skip

    def _score(self, decoded: list[Decoded], losses: Tensor) -> tuple[float | None, float | None]:
        loss = float(losses[self.picked].mean())
        if not math.isfinite(loss):
            return None, None
        split = Split(name=self.split.name, utterances=[self.utterances[i] for i in self.picked])
        rows = self.task.rows(split, [decoded[i] for i in self.picked])
        return self.metric.score(rows.references, rows.predictions), loss


def train(
    task: Task,
    protocol: Protocol,
    fold: tuple[Split, Split, Split],
    source: Source,
    sweep: Sweep,
    *,
    track: Track,
    description: str = "training",
) -> Trained:
    """Train all heads on one fold; returns every evaluation and each head's best weights.

    Takes the arguments of :func:`training`.
    """
    done = Trained(sweep=sweep)
    for _ in training(task, protocol, fold, source, done, track=track, description=description):
        pass
    return done


def training(
    task: Task,
    protocol: Protocol,
    fold: tuple[Split, Split, Split],
    source: Source,
    done: Trained,
    *,
    track: Track,
    description: str = "training",
) -> Iterator[float]:
    """Train all heads on one fold, yielding after each update how often the data was seen so far.

    Whoever iterates may let other heads train in between, on the same features.

    Args:
        task: loaded.
        protocol: numbers of the loop.
        fold: train, dev and test, of which test is not looked at.
        source: features.
        done: holds the heads, new, and receives every evaluation and each head's best weights.
        track: shows progress: (items, description, total) -> items.
        description: what to call it there.

    Raises:
        DataError: no training utterance can be used.
    """
    from mynah.tasks.core.contract import DataError
    from mynah.tasks.core.splits import first_few

    sweep = done.sweep
    cpu, wall = time.process_time(), time.monotonic()
    kept, done.skipped = usable(task, fold[0], source)
    if not kept:
        raise DataError(
            f"no training utterance is long enough: "
            f"{first_few(f'{name}: {why}' for name, why in done.skipped.items())}"
        )
    stream = training_batches(task, protocol, kept)
    dev = DevSet(task, protocol, fold[1], source)
    total_K, items = torch.zeros(len(sweep), dtype=torch.float64), 0
    stale = seen = 0
    for step in track(range(1, protocol.steps + 1), description, protocol.steps):
        sweep.scale_rates(rate_factor(protocol, step))
        for _ in range(protocol.accumulate):
            batch = next(stream)
            share = 1.0 / (len(batch) * protocol.accumulate)
            for group in source.cut(batch):
                features, lengths_B = source(group)
                outputs = sweep(features, lengths_B, *task.head_inputs(group))
                losses_KB = task.losses(outputs, lengths_B, group)
                sweep.backward(losses_KB.sum(dim=1) * share)
                total_K += losses_KB.detach().sum(dim=1).double().cpu()
            items += len(batch)
        sweep.update()
        done.steps = step
        done.cpu += time.process_time() - cpu
        done.wall += time.monotonic() - wall
        yield (seen + items) / len(kept)
        cpu, wall = time.process_time(), time.monotonic()
        if not any(sweep.alive):
            break
        if step % protocol.eval_every and step != protocol.steps:
            continue
        improved = _evaluate(done, dev, protocol, step, (total_K / items).tolist())
        seen, items = seen + items, 0
        total_K.zero_()
        stale = 0 if improved else stale + 1
        if protocol.patience is not None and stale >= protocol.patience:
            log.info("%s: dev did not improve in %d evaluations", description, stale)
            break
    done.passes = (seen + items) / len(kept)
    done.cpu += time.process_time() - cpu
    done.wall += time.monotonic() - wall


def _evaluate(
    done: Trained, dev: DevSet, protocol: Protocol, step: int, losses: Sequence[float]
) -> bool:
    """Record one evaluation of every head; returns whether any seed has a better dev score."""
    higher = dev.metric.higher_is_better
    seeds = [seed for seed, _ in done.sweep.grid]

    def tops() -> dict[int, float]:
        top: dict[int, float] = {}
        for k, best in done.best.items():
            score = best.evaluation.dev
            assert score is not None
            old = top.get(seeds[k])
            if old is None or (score > old) == higher:
                top[seeds[k]] = score
        return top

    before = tops()
    for k, (score, loss) in enumerate(dev.evaluate(done.sweep)):
        new = Evaluation(
            head=k,
            step=step,
            train_loss=losses[k] if math.isfinite(losses[k]) else None,
            dev=score,
            dev_loss=loss,
        )
        done.evaluations.append(new)
        if score is None:
            continue
        old = done.best.get(k)
        if old is None or better(new, old.evaluation, protocol, higher):
            done.best[k] = Best(evaluation=new, state=done.sweep.state(k))
    return tops() != before
