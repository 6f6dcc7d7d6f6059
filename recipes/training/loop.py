"""The training loop: step, record, save, until the steps are done or somebody wants to stop."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mynah.recipes.training.arithmetic import reproducible
from mynah.recipes.training.data import AudioStream
from mynah.recipes.training.distributed import World
from mynah.recipes.training.metrics_log import MetricsLog, Reporter
from mynah.recipes.training.session import Session
from mynah.recipes.training.stopping import UNFINISHED, Stop
from mynah.recipes.training.values import TrainConfig
from mynah.upstream.core.contract import Upstream


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: optimiser steps done.
        code: exit status: 0 finished, else stopped after a checkpoint.
        reason: what stopped it.
    """

    step: int
    code: int = 0
    reason: str = ""


def train(
    upstream: Upstream,
    config: TrainConfig,
    stream: AudioStream,
    *,
    world: World,
    stop: Stop,
    folder: Path,
    identity: Mapping[str, Any],
    resume_from: Path | None = None,
) -> Outcome:
    """Train an upstream on its own objective until ``config.steps`` steps are done.

    Args:
        upstream: on its device; its weights change (with ``config.fsdp`` they end up sharded).
        config: the recipe's ``train`` part.
        stream: numbered batches.
        world: this process among its peers.
        stop: says when to checkpoint and leave.
        folder: of the run.
        identity: written into every checkpoint.
        resume_from: checkpoint to go on from.

    Raises:
        ValueError: the upstream has nothing to train, or cannot be compiled or sharded as asked.
        DivergedError: ``config.patience`` consecutive steps were not finite.
        OSError: a checkpoint or a record could not be written.
    """
    run = Session(
        upstream,
        config,
        stream,
        world=world,
        folder=folder,
        identity=identity,
        resume_from=resume_from,
    )
    with ExitStack() as stack:
        stack.enter_context(reproducible(world.device, config))
        log = stack.enter_context(MetricsLog(folder, step=run.now.step)) if world.first else None
        reporter = Reporter(config.steps, done=run.now.step)
        if world.first:
            stack.enter_context(reporter.running())
        turns = stack.enter_context(
            stream.turns(
                run.now.step * run.per_step + world.rank,
                (config.steps - run.now.step) * config.accumulate,
                stride=world.size,
            )
        )
        stopping = False
        while run.now.step < config.steps and not stopping:
            seen, waited = run.gradients(turns)
            step = run.update(seen, waited, stop=stop.wanted())
            done, stopping = run.now.step, step.stopping
            if log and step.finite:
                reporter.update(done, step.loss, step.lr)
            saving = stopping or done == config.steps or done % config.save_every == 0
            if saving or done % config.log_every == 0:
                line, warnings = run.record(step.lr)
                if log:
                    for warning in warnings:
                        reporter.say(warning)
                    log.write(line)
            if saving:
                if log:
                    log.sync()  # a checkpoint is never ahead of its log
                run.save()
        if log:
            log.sync()
            reporter.say(run.speed.line())
    if run.now.step < config.steps:
        return Outcome(step=run.now.step, code=stop.code or UNFINISHED, reason=stop.reason)
    return Outcome(step=run.now.step)
