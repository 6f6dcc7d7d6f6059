"""A run in progress: the model, its optimiser and where it stands; one method for each thing done.

It knows nothing about the method: a model returns a loss, and that is all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mynah.recipes.errors import DivergedError
from mynah.recipes.training import checkpoint, optim, schedule
from mynah.recipes.training.arithmetic import autocast, moved
from mynah.recipes.training.checkpoint import Progress
from mynah.recipes.training.collapse import Watch
from mynah.recipes.training.data import AudioStream, Loaded, mix
from mynah.recipes.training.distributed import World
from mynah.recipes.training.kernels import cpu_kernels
from mynah.recipes.training.layers import prepare_layers
from mynah.recipes.training.nonfinite import dump_nonfinite
from mynah.recipes.training.sharding import Keeper, shared_drops
from mynah.recipes.training.values import TrainConfig
from mynah.recipes.training.window import Seen, Throughput, Window, record, step_numbers
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.narrow_convs import bf16_is_right
from mynah.upstream.core.packed_linear import compute_dtype


@dataclass(frozen=True, kw_only=True)
class Step:
    """An optimiser step that was done.

    Attributes:
        loss: weighted mean over all processes.
        lr: learning rate.
        finite: whether it was taken; else it was skipped.
        stopping: whether some process is to stop.
    """

    loss: float
    lr: float
    finite: bool
    stopping: bool


class Session:
    """A run in progress.

    Args:
        upstream: on its device; its weights change (with ``config.fsdp`` they end up sharded).
        config: the recipe's ``train`` part.
        stream: numbered batches.
        world: this process among its peers.
        folder: of the run.
        identity: written into every checkpoint.
        resume_from: checkpoint to go on from.

    Raises:
        ValueError: the upstream has nothing to train, or cannot be compiled or sharded as asked.
    """

    def __init__(
        self,
        upstream: Upstream,
        config: TrainConfig,
        stream: AudioStream,
        *,
        world: World,
        folder: Path,
        identity: Mapping[str, Any],
        resume_from: Path | None = None,
    ) -> None:
        self.upstream, self.config, self.stream, self.world = upstream, config, stream, world
        self.folder, self.identity = folder, identity
        self.now = Progress()
        if resume_from is not None:
            self.now = checkpoint.load(resume_from, upstream)
            stream.seek(self.now.epoch, self.now.epoch_start)
        upstream.train()
        self._keeper = Keeper(upstream, first=world.first) if config.fsdp else None
        prepare_layers(upstream, config, world.device)
        self._model = world.wrap(upstream, fsdp=config.fsdp)
        self._drops = shared_drops(upstream) if config.fsdp else None
        self._optimizer = optim.build(upstream, config.optimizer, config.lr)
        if resume_from is not None:
            checkpoint.load_optimizer(resume_from, upstream, self._optimizer)
        self._parameters = list(optim.trainable(upstream).values())
        stream.pin = world.device.type == "cuda"
        self._kernels = config.cpu_kernels and not config.compile
        dtype = compute_dtype(config.precision, world.device)
        self._lower = dtype == torch.bfloat16 and bf16_is_right(upstream, world.device)
        self._window, self._watch = Window(), Watch(upstream.floors, config)
        self.speed = Throughput(sample_rate=stream.sample_rate)

    @property
    def per_step(self) -> int:
        """Batches of one optimiser step, all processes together."""
        return self.config.accumulate * self.world.size

    def gradients(self, turns: Iterator[Loaded]) -> tuple[list[Seen], float]:
        """Add up the gradients of this process's batches of one step.

        Returns:
            what was heard, and the seconds that were spent waiting for it.
        """
        device = self.world.device
        self._optimizer.zero_grad(set_to_none=True)
        seen: list[Seen] = []
        waited = 0.0
        for turn in range(self.config.accumulate):
            asked = time.monotonic()
            loaded = next(turns)
            waited += time.monotonic() - asked
            batch = moved(loaded.batch, device)
            torch.manual_seed(loaded.seed)
            if self._drops is not None:  # of the round of batches, which all processes share
                self._drops.manual_seed(mix(self.config.seed, loaded.number // self.world.size, 2))
            last = turn == self.config.accumulate - 1
            with self.world.accumulating(self._model, last=last):
                with cpu_kernels(device, self._kernels), autocast(device, lower=self._lower):
                    total, parts, weight = self._model(batch)
                (total * weight).backward()
            seen.append(Seen(loaded, total.detach(), parts, weight))
        return seen, waited

    def update(self, seen: Sequence[Seen], waited: float, *, stop: bool) -> Step:
        """Make one gradient of those of all processes and take the step, if it is finite.

        Args:
            seen: what this process heard.
            waited: seconds that it waited for it.
            stop: whether this process is to stop.

        Raises:
            DivergedError: ``config.patience`` consecutive steps were not finite.
        """
        raw_norm = optim.gradient_norm(self._parameters)  # before the CPU waits for the sums
        weight_sum, loss_sum, seconds, stops = self.world.total(
            step_numbers(seen, self.stream.sample_rate, stop, self.world.device)
        ).tolist()
        # Gradients are the mean over processes of weighted sums: make them one weighted mean.
        # A step in which nothing counted (no frame of it was masked) has no mean: it is skipped.
        share = self.world.size / weight_sum if weight_sum > 0 else math.nan
        norm = optim.finish_gradients(self._parameters, share, self.config.clip, found=raw_norm)
        done = self.now.step + 1
        lr = self.config.lr * schedule.share(self.config.schedule, self.now.step, self.config.steps)
        finite = weight_sum > 0 and math.isfinite(loss_sum) and math.isfinite(norm)
        self._window.heard(seen, waited)
        if finite:
            optim.set_lr(self._optimizer, lr)
            self._optimizer.step()
            self.upstream.after_step(done, self.config.steps)
            self._window.add(seen, norm)
        else:
            dump_nonfinite(self.folder, done, seen, norm, self.world)
            self._window.skipped += 1
        epoch, epoch_start = self.stream.locate(done * self.per_step)
        self.now = replace(
            self.now,
            step=done,
            epoch=epoch,
            epoch_start=epoch_start,
            bad_run=0 if finite else self.now.bad_run + 1,
            skipped=self.now.skipped + (not finite),
            audio_seconds=self.now.audio_seconds + seconds,
        )
        if self.now.bad_run >= self.config.patience:
            kept = checkpoint.names(self.folder / "checkpoints")
            raise DivergedError(
                f"{self.now.bad_run} steps in a row had a loss or gradient that is not finite, or "
                f"nothing to learn from, the last at step {done}; their batches are in "
                f"{self.folder / 'nonfinite'}. Lower train.lr, lengthen train.schedule.warmup, or "
                "look at the audio; then begin anew with "
                + ("another --out" if kept else "the same --out, which holds no checkpoint")
            )
        loss = loss_sum / weight_sum if finite else math.nan
        return Step(loss=loss, lr=lr, finite=finite, stopping=stops > 0)

    def record(self, lr: float) -> tuple[dict[str, Any], list[str]]:
        """Return the line of the log since the last one, and what is to be warned of."""
        sums = self.world.gather(self._window.take())
        line = record(sums, self.now, lr, self.speed.add(sums))
        warnings = self._watch.look(self.now.step, line.get("parts", {}))
        collapsed = self._watch.collapsed
        return line | ({"collapsed": collapsed} if collapsed else {}), warnings

    def save(self) -> None:
        """Write the model at the end of the run, a checkpoint before it.

        Raises:
            OSError: it could not be written.
        """
        moments = optim.state_tensors(self._optimizer, self.upstream)
        kept = self.upstream
        if self._keeper is not None:
            kept, moments = self._keeper.whole(kept, moments)
        if self.now.step == self.config.steps:
            self.world.from_first(partial(self._save_final, kept))
            return
        self.world.from_first(
            partial(
                checkpoint.save,
                self.folder / "checkpoints",
                kept,
                moments,
                self.now,
                identity=self.identity,
                keep=self.config.keep,
            )
        )

    def _save_final(self, whole: Upstream) -> None:
        trained = {
            "steps": self.now.step,
            "skipped_steps": self.now.skipped,
            "audio_hours": self.now.audio_seconds / 3600,
            "seed": self.identity["recipe"]["train"]["seed"],
            "data": self.identity["data"],
            "versions": self.identity["versions"],
            "collapsed": list(self._watch.collapsed),
        }
        modelfolder.save(whole, self.folder / "final", extra={"trained": trained})
