"""Sums over the steps between two records, on one process, and what they make together."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mynah.recipes.training.checkpoint import Progress
from mynah.recipes.training.data import Loaded


class Seen(NamedTuple):
    """A batch that went through the model."""

    loaded: Loaded
    total: Tensor
    parts: Mapping[str, Tensor]
    weight: float


@dataclass(kw_only=True)
class Window:
    """Sums over the steps since the last record, on this process."""

    loss: dict[str, Tensor | float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    norm: float = 0.0
    steps: int = 0
    skipped: int = 0
    waited: float = 0.0
    samples: int = 0
    room: int = 0
    since: float = field(default_factory=time.monotonic)
    began: float = field(default_factory=time.monotonic)

    def add(self, seen: Sequence[Seen], norm: float) -> None:
        """Add a step whose loss is finite; nothing is read back from the device."""
        for _, total, parts, weight in seen:
            for name, value in {"": total, **parts}.items():
                # a part that only some steps have is a mean over those
                self.loss[name] = self.loss.get(name, 0.0) + value * weight
                self.weights[name] = self.weights.get(name, 0.0) + weight
        self.norm += norm
        self.steps += 1

    def heard(self, seen: Sequence[Seen], waited: float) -> None:
        """Add what a step heard, finite or not, and how long it waited for it."""
        self.waited += waited
        for loaded, *_ in seen:
            self.samples += int(loaded.batch.lengths_B.sum())
            self.room += loaded.batch.wav_BS.numel()

    def take(self) -> dict[str, Any]:
        """Return plain sums and begin anew."""
        clock = time.monotonic()
        sums = {
            "loss": {name: float(value) for name, value in self.loss.items()},
            "weights": self.weights,
            "norm": self.norm,
            "steps": self.steps,
            "skipped": self.skipped,
            "waited": self.waited,
            "samples": self.samples,
            "room": self.room,
            "seconds": clock - self.since,
            "elapsed": clock - self.began,
        }
        self.loss, self.weights, self.norm, self.steps, self.skipped = {}, {}, 0.0, 0, 0
        self.waited, self.samples, self.room = 0.0, 0, 0
        self.since = clock
        return sums


@dataclass(kw_only=True)
class Throughput:
    """How fast a session went, over all its processes.

    Attributes:
        sample_rate: Hz.
        steps: done.
        seconds: of the clock.
        waited: seconds that the processes waited for data, added up, per process.
        samples: audio heard.
        room: the same with its padding.
    """

    sample_rate: int
    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    samples: int = 0
    room: int = 0

    def add(self, sums: Sequence[dict[str, Any]]) -> Throughput:
        """Add a window of every process, and return the window's own figures."""
        mine = Throughput(
            sample_rate=self.sample_rate,
            steps=sums[0]["steps"] + sums[0]["skipped"],
            seconds=sums[0]["seconds"],
            waited=sum(s["waited"] for s in sums) / len(sums),
            samples=sum(s["samples"] for s in sums),
            room=sum(s["room"] for s in sums),
        )
        for name in ("steps", "seconds", "waited", "samples", "room"):
            setattr(self, name, getattr(self, name) + getattr(mine, name))
        return mine

    def numbers(self) -> dict[str, float]:
        """Return the figures of a record."""
        return {
            "seconds_per_step": self.seconds / self.steps if self.steps else 0.0,
            "audio_hours_per_second": self._speed() / 3600,
            "data_share": min(1.0, self.waited / self.seconds) if self.seconds else 0.0,
            "padding_share": 1.0 - self.samples / self.room if self.room else 0.0,
        }

    def line(self) -> str:
        """Return the same for people, with what to do where it could be better."""
        found = self.numbers()
        hints = []
        if found["data_share"] > 0.1:
            hints.append("more train.workers or train.cache_mb would help against the waiting")
        if found["padding_share"] > 0.05:
            hints.append("a higher train.equalise or shorter crops would help against the padding")
        return (
            f"{self.steps} steps in {self.seconds / 60:.1f} min: {self._speed():.1f} s of audio per "
            f"second ({found['audio_hours_per_second']:.4f} h/s), "
            f"{found['data_share']:.1%} of the time waiting for data, "
            f"{found['padding_share']:.1%} padding" + "".join(f"; {hint}" for hint in hints)
        )

    def _speed(self) -> float:
        return self.samples / self.sample_rate / self.seconds if self.seconds else 0.0


def record(
    sums: Sequence[dict[str, Any]], now: Progress, lr: float, speed: Throughput
) -> dict[str, Any]:
    """Return the record of a window: weighted means over its steps and all processes."""
    first = sums[0]
    means = {
        name: sum(s["loss"].get(name, 0.0) for s in sums) / weight
        for name in first["loss"]
        if (weight := sum(s["weights"].get(name, 0.0) for s in sums)) > 0
    }
    line: dict[str, Any] = {"step": now.step, "epoch": now.epoch, "lr": lr}
    if first["steps"]:
        line |= {"loss": means.pop(""), "grad_norm": first["norm"] / first["steps"]}
        line["parts"] = {name: value for name, value in means.items() if math.isfinite(value)}
    return line | {
        "skipped": first["skipped"],
        "audio_hours": now.audio_seconds / 3600,
        **speed.numbers(),
        "elapsed": first["elapsed"],
    }


def step_numbers(
    seen: Sequence[Seen], sample_rate: int, stop: bool, device: torch.device
) -> Tensor:
    """Return what processes add up after a step: weight, weighted loss, audio seconds, stops."""
    weight = float(sum(w for *_, w in seen))
    samples = sum(int(loaded.batch.lengths_B.sum()) for loaded, *_ in seen)
    rest = torch.tensor([weight, samples / sample_rate, float(stop)], dtype=torch.float64)
    loss = torch.stack([total.double() * w for _, total, _, w in seen]).sum()
    rest = rest.to(device)
    return torch.stack([rest[0], loss, rest[1], rest[2]])
