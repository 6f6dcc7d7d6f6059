"""The training loop. It knows nothing about the method: a model returns a loss, and that is all."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.files import write_bytes
from mynah.recipes.errors import DivergedError
from mynah.recipes.training import checkpoint, optim, schedule
from mynah.recipes.training.checkpoint import Progress
from mynah.recipes.training.collapse import Watch
from mynah.recipes.training.data import AudioStream, mix
from mynah.recipes.training.distributed import World
from mynah.recipes.training.kernels import cpu_kernels
from mynah.recipes.training.layers import prepare_layers
from mynah.recipes.training.metrics_log import MetricsLog, Reporter
from mynah.recipes.training.sharding import Keeper, shared_drops
from mynah.recipes.training.stopping import UNFINISHED, Stop
from mynah.recipes.training.values import TrainConfig
from mynah.recipes.training.window import Seen, Throughput, Window, record, step_numbers
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Batch, Upstream
from mynah.upstream.core.narrow_convs import bf16_is_right


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
    now = Progress()
    if resume_from is not None:
        now = checkpoint.load(resume_from, upstream)
        stream.seek(now.epoch, now.epoch_start)
    upstream.train()
    keeper = Keeper(upstream, first=world.first) if config.fsdp else None
    prepare_layers(upstream, config, world.device)
    model = world.wrap(upstream, fsdp=config.fsdp)
    drops = shared_drops(upstream) if config.fsdp else None
    optimizer = optim.build(upstream, config.optimizer, config.lr)
    if resume_from is not None:
        checkpoint.load_optimizer(resume_from, upstream, optimizer)
    parameters = list(optim.trainable(upstream).values())
    per_step = config.accumulate * world.size
    stream.pin = world.device.type == "cuda"
    kernels = config.cpu_kernels and not config.compile
    window, watch = Window(), Watch(upstream.floors, config)
    lower = config.precision == "bf16" and bf16_is_right(upstream, world.device)
    speed = Throughput(sample_rate=stream.sample_rate)

    def whole() -> tuple[Upstream, optim.State]:
        moments = optim.state_tensors(optimizer, upstream)
        return (upstream, moments) if keeper is None else keeper.whole(upstream, moments)

    with ExitStack() as stack:
        stack.enter_context(reproducible(world.device, config))
        log = stack.enter_context(MetricsLog(folder, step=now.step)) if world.first else None
        reporter = Reporter(config.steps, done=now.step)
        if world.first:
            stack.enter_context(reporter.running())
        turns = stack.enter_context(
            stream.turns(
                now.step * per_step + world.rank,
                (config.steps - now.step) * config.accumulate,
                stride=world.size,
            )
        )
        while now.step < config.steps:
            lr = config.lr * schedule.share(config.schedule, now.step, config.steps)
            optim.set_lr(optimizer, lr)
            optimizer.zero_grad(set_to_none=True)
            seen: list[Seen] = []
            waited = 0.0
            for turn in range(config.accumulate):
                asked = time.monotonic()
                loaded = next(turns)
                waited += time.monotonic() - asked
                batch = moved(loaded.batch, world.device)
                torch.manual_seed(loaded.seed)
                if drops is not None:  # of the round of batches, which all processes share
                    drops.manual_seed(mix(config.seed, loaded.number // world.size, 2))
                with world.accumulating(model, last=turn == config.accumulate - 1):
                    with (
                        cpu_kernels(world.device, kernels),
                        autocast(world.device, lower=lower),
                    ):
                        total, parts, weight = model(batch)
                    (total * weight).backward()
                seen.append(Seen(loaded, total.detach(), parts, weight))

            raw_norm = optim.gradient_norm(parameters)  # before the CPU waits for the sums
            weight_sum, loss_sum, seconds, stops = world.total(
                step_numbers(seen, stream.sample_rate, stop.wanted(), world.device)
            ).tolist()
            # Gradients are the mean over processes of weighted sums: make them one weighted mean.
            # A step in which nothing counted (no frame of it was masked) has no mean: it is skipped.
            share = world.size / weight_sum if weight_sum > 0 else math.nan
            norm = optim.finish_gradients(parameters, share, config.clip, found=raw_norm)
            done = now.step + 1
            finite = weight_sum > 0 and math.isfinite(loss_sum) and math.isfinite(norm)
            window.heard(seen, waited)
            if finite:
                optimizer.step()
                upstream.after_step(done, config.steps)
                window.add(seen, norm)
            else:
                dump_nonfinite(folder, done, seen, norm, world)
                window.skipped += 1
            epoch, epoch_start = stream.locate(done * per_step)
            now = replace(
                now,
                step=done,
                epoch=epoch,
                epoch_start=epoch_start,
                bad_run=0 if finite else now.bad_run + 1,
                skipped=now.skipped + (not finite),
                audio_seconds=now.audio_seconds + seconds,
            )
            if now.bad_run >= config.patience:
                raise DivergedError(
                    f"{now.bad_run} steps in a row had a loss or gradient that is not finite, or "
                    f"nothing to learn from, the last at step {done}; their batches are in "
                    f"{folder / 'nonfinite'}. Lower train.lr, lengthen train.schedule.warmup, or "
                    "look at the audio"
                )
            finished, stopping = done == config.steps, stops > 0
            if log and finite:
                reporter.update(done, loss_sum / weight_sum, lr)
            saving = stopping or finished or done % config.save_every == 0
            if saving or done % config.log_every == 0:
                sums = world.gather(window.take())
                line = record(sums, now, lr, speed.add(sums))
                warnings = watch.look(done, line.get("parts", {}))
                if log:
                    for warning in warnings:
                        reporter.say(warning)
                    log.write(line | ({"collapsed": watch.collapsed} if watch.collapsed else {}))
            if saving:
                kept, moments = whole()
            if finished:
                world.from_first(partial(save_final, kept, folder, now, identity, watch.collapsed))
            elif saving:
                if log:
                    log.sync()
                world.from_first(
                    partial(
                        checkpoint.save,
                        folder / "checkpoints",
                        kept,
                        moments,
                        now,
                        identity=identity,
                        keep=config.keep,
                    )
                )
            if finished or stopping:
                break
        if log:
            log.sync()
            reporter.say(speed.line())
    if now.step < config.steps:
        return Outcome(step=now.step, code=stop.code or UNFINISHED, reason=stop.reason)
    return Outcome(step=now.step)


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return a batch with its audio on a device; lengths and generator, read on the CPU, stay."""
    if device.type == "cpu":
        return batch
    # from pinned memory the copy goes on while the CPU draws masks
    speakers = None if batch.speakers_B is None else batch.speakers_B.to(device)
    return replace(batch, wav_BS=batch.wav_BS.to(device, non_blocking=True), speakers_B=speakers)


def autocast(device: torch.device, *, lower: bool) -> AbstractContextManager[Any]:
    """Return the context of the forward pass, in bfloat16 where ``lower`` is true."""
    if lower:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def reproducible(device: torch.device, config: TrainConfig) -> Iterator[None]:
    """Choose a GPU's arithmetic, and kernels that give the same bits each time where that is wanted.

    Torch's settings are left as they were. On a CPU kernels repeat their bits already, for a given
    number of threads.
    """
    with ExitStack() as stack:
        stack.enter_context(
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
        )
        if device.type == "cuda":
            rounding = torch.get_float32_matmul_precision()
            convolutions = torch.backends.cudnn.allow_tf32
            stack.callback(torch.set_float32_matmul_precision, rounding)
            stack.callback(setattr, torch.backends.cudnn, "allow_tf32", convolutions)
            torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = config.tf32
            if config.deterministic:
                stack.enter_context(_deterministic())
        yield


@contextmanager
def _deterministic() -> Iterator[None]:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark


def dump_nonfinite(
    folder: Path,
    step: int,
    seen: Sequence[Seen],
    norm: float,
    world: World,
) -> None:
    """Write what was in a step whose loss or gradient is not finite, or of no weight."""
    batches = [
        {
            "rank": world.rank,
            "batch": loaded.number,
            "loss": plain(total),
            "parts": {name: plain(value) for name, value in parts.items()},
            "weight": plain(weight),
            "utterances": [
                {"id": name, "samples": int(n)}
                for name, n in zip(loaded.batch.ids, loaded.batch.lengths_B, strict=True)
            ],
        }
        for loaded, total, parts, weight in seen
    ]
    gathered = [batch for rank in world.gather(batches) for batch in rank]
    if world.first:
        (folder / "nonfinite").mkdir(exist_ok=True)
        content = {"step": step, "grad_norm": plain(norm), "batches": gathered}
        text = json.dumps(content, indent=1, allow_nan=False)
        write_bytes(folder / "nonfinite" / f"step-{step}.json", text.encode())


def plain(value: Tensor | float) -> float | str:
    """Return a number as JSON can hold it: ``nan`` and ``inf`` become words."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


def save_final(
    upstream: Upstream,
    folder: Path,
    now: Progress,
    identity: Mapping[str, Any],
    collapsed: Sequence[str],
) -> None:
    """Write the model at the end of a run.

    Args:
        upstream: whole.
        folder: of the run.
        now: where it stands.
        identity: of the run.
        collapsed: parts of the loss that ended below their floors.
    """
    trained = {
        "steps": now.step,
        "skipped_steps": now.skipped,
        "audio_hours": now.audio_seconds / 3600,
        "seed": identity["recipe"]["train"]["seed"],
        "data": identity["data"],
        "versions": identity["versions"],
        "collapsed": list(collapsed),
    }
    modelfolder.save(upstream, folder / "final", extra={"trained": trained})
