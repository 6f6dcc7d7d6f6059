"""The training loop. It knows nothing about the method: a model returns a loss, and that is all."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.recipes.errors import DivergedError
from mynah.recipes.training import checkpoint, optim, schedule
from mynah.recipes.training.checkpoint import Progress, replace_file
from mynah.recipes.training.config import TrainConfig
from mynah.recipes.training.data import AudioStream, Loaded
from mynah.recipes.training.distributed import World
from mynah.recipes.training.metrics_log import MetricsLog, Reporter
from mynah.recipes.training.stopping import UNFINISHED, Stop
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Batch, Upstream


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
        upstream: on its device; its weights change.
        config: the recipe's ``train`` part.
        stream: numbered batches.
        world: this process among its peers.
        stop: says when to checkpoint and leave.
        folder: of the run.
        identity: written into every checkpoint.
        resume_from: checkpoint to go on from.

    Raises:
        ValueError: the upstream has nothing to train.
        DivergedError: ``config.patience`` consecutive steps were not finite.
        OSError: a checkpoint or a record could not be written.
    """
    optimizer = optim.build(upstream, config.optimizer, config.lr)
    now = Progress()
    if resume_from is not None:
        now = checkpoint.load(resume_from, upstream, optimizer)
        stream.seek(now.epoch, now.epoch_start)
    upstream.train()
    model = world.wrap(upstream)
    parameters = list(optim.trainable(upstream).values())
    per_step = config.accumulate * world.size
    root = folder / "checkpoints"
    window = Window()

    with ExitStack() as stack:
        stack.enter_context(reproducible(world.device, config.deterministic))
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
            seen: list[tuple[Loaded, Tensor, Mapping[str, Tensor], float]] = []
            for turn in range(config.accumulate):
                loaded = next(turns)
                batch = moved(loaded.batch, world.device)
                torch.manual_seed(loaded.seed)
                with world.accumulating(model, last=turn == config.accumulate - 1):
                    with autocast(world.device, config.precision):
                        total, parts, weight = model(batch)
                    (total * weight).backward()
                seen.append((loaded, total.detach(), parts, weight))

            weight_sum, loss_sum, seconds, stops = world.total(
                step_numbers(seen, stream.sample_rate, stop.wanted(), world.device)
            ).tolist()
            # Gradients are the mean over processes of weighted sums: make them one weighted mean.
            norm = optim.finish_gradients(parameters, world.size / weight_sum, config.clip)
            done = now.step + 1
            finite = math.isfinite(loss_sum) and math.isfinite(norm)
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
                    f"{now.bad_run} steps in a row had a loss or gradient that is not finite, the "
                    f"last at step {done}; their batches are in {folder / 'nonfinite'}. Lower "
                    "train.lr, lengthen train.schedule.warmup, or look at the audio"
                )
            finished, stopping = done == config.steps, stops > 0
            if log and finite:
                reporter.update(done, loss_sum / weight_sum, lr)
            saving = stopping or finished or done % config.save_every == 0
            if saving or done % config.log_every == 0:
                sums = world.gather(window.take())
                if log:
                    log.write(record(sums, now, lr))
            if finished:
                world.from_first(partial(save_final, upstream, folder, now, identity))
            elif saving:
                if log:
                    log.sync()
                world.from_first(
                    partial(
                        checkpoint.save,
                        root,
                        upstream,
                        optimizer,
                        now,
                        identity=identity,
                        keep=config.keep,
                    )
                )
            if stopping and not finished:
                return Outcome(step=done, code=stop.code or UNFINISHED, reason=stop.reason)
        if log:
            log.sync()
    return Outcome(step=now.step)


@dataclass(kw_only=True)
class Window:
    """Sums over the steps since the last record, on this process."""

    loss: dict[str, Tensor | float] = field(default_factory=dict)
    weight: float = 0.0
    norm: float = 0.0
    steps: int = 0
    skipped: int = 0
    since: float = field(default_factory=time.monotonic)
    began: float = field(default_factory=time.monotonic)

    def add(
        self, seen: list[tuple[Loaded, Tensor, Mapping[str, Tensor], float]], norm: float
    ) -> None:
        """Add a step; nothing is read back from the device."""
        for _, total, parts, weight in seen:
            for name, value in {"": total, **parts}.items():
                self.loss[name] = self.loss.get(name, 0.0) + value * weight
            self.weight += weight
        self.norm += norm
        self.steps += 1

    def take(self) -> dict[str, Any]:
        """Return plain sums and begin anew."""
        clock = time.monotonic()
        sums = {
            "loss": {name: float(value) for name, value in self.loss.items()},
            "weight": self.weight,
            "norm": self.norm,
            "steps": self.steps,
            "skipped": self.skipped,
            "seconds": clock - self.since,
            "elapsed": clock - self.began,
        }
        self.loss, self.weight, self.norm, self.steps, self.skipped = {}, 0.0, 0.0, 0, 0
        self.since = clock
        return sums


def record(sums: list[dict[str, Any]], now: Progress, lr: float) -> dict[str, Any]:
    """Return the record of a window: weighted means over its steps and all processes."""
    first = sums[0]
    weight = sum(s["weight"] for s in sums)
    steps = first["steps"] + first["skipped"]
    means = {name: sum(s["loss"].get(name, 0.0) for s in sums) / weight for name in first["loss"]}
    line: dict[str, Any] = {"step": now.step, "epoch": now.epoch, "lr": lr}
    if first["steps"]:
        line |= {"loss": means.pop(""), "grad_norm": first["norm"] / first["steps"]}
        line["parts"] = {name: value for name, value in means.items() if math.isfinite(value)}
    return line | {
        "skipped": first["skipped"],
        "audio_hours": now.audio_seconds / 3600,
        "seconds_per_step": first["seconds"] / steps if steps else 0.0,
        "elapsed": first["elapsed"],
    }


def step_numbers(
    seen: list[tuple[Loaded, Tensor, Mapping[str, Tensor], float]],
    sample_rate: int,
    stop: bool,
    device: torch.device,
) -> Tensor:
    """Return what processes add up after a step: weight, weighted loss, audio seconds, stops."""
    weight = float(sum(w for *_, w in seen))
    samples = sum(int(loaded.batch.lengths_B.sum()) for loaded, *_ in seen)
    rest = torch.tensor([weight, samples / sample_rate, float(stop)], dtype=torch.float64)
    loss = torch.stack([total.double() * w for _, total, _, w in seen]).sum()
    rest = rest.to(device)
    return torch.stack([rest[0], loss, rest[1], rest[2]])


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return a batch with its audio on a device; lengths and generator, read on the CPU, stay."""
    if device.type == "cpu":
        return batch
    return replace(batch, wav_BS=batch.wav_BS.to(device))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context of the forward pass."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def reproducible(device: torch.device, wanted: bool) -> Iterator[None]:
    """Choose kernels that give the same bits each time, and leave torch's settings as they were.

    On a CPU they do already, for a given number of threads.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type != "cuda" or not wanted:
            yield
            return
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
    seen: list[tuple[Loaded, Tensor, Mapping[str, Tensor], float]],
    norm: float,
    world: World,
) -> None:
    """Write what was in a step whose loss or gradient is not finite."""
    batches = [
        {
            "rank": world.rank,
            "batch": loaded.number,
            "loss": plain(total),
            "parts": {name: plain(value) for name, value in parts.items()},
            "utterances": [
                {"id": name, "samples": int(n)}
                for name, n in zip(loaded.batch.ids, loaded.batch.lengths_B, strict=True)
            ],
        }
        for loaded, total, parts, _ in seen
    ]
    gathered = [batch for rank in world.gather(batches) for batch in rank]
    if world.first:
        (folder / "nonfinite").mkdir(exist_ok=True)
        content = {"step": step, "grad_norm": plain(norm), "batches": gathered}
        text = json.dumps(content, indent=1, allow_nan=False)
        replace_file(folder / "nonfinite" / f"step-{step}.json", text.encode())


def plain(value: Tensor | float) -> float | str:
    """Return a number as JSON can hold it: ``nan`` and ``inf`` become words."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


def save_final(
    upstream: Upstream, folder: Path, now: Progress, identity: Mapping[str, Any]
) -> None:
    """Write the model at the end of a run."""
    trained = {
        "steps": now.step,
        "skipped_steps": now.skipped,
        "audio_hours": now.audio_seconds / 3600,
        "seed": identity["recipe"]["train"]["seed"],
        "data": identity["data"],
        "versions": identity["versions"],
    }
    modelfolder.save(upstream, folder / "final", extra={"trained": trained})
