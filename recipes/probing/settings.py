"""What decides the number of a probe, besides upstream, task and corpus. Light to import."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mynah.tasks.core.contract import Protocol, Task

Rerun = Literal["missing", "always", "never"]
Features = Literal["auto", "pooled", "frames", "stream"]
EVALUATIONS = 20  # at least, where --steps shortens a run


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the number, besides upstream, task and corpus.

    Attributes:
        protocol: ``fixed`` or ``superb``.
        seeds: of the head's initial weights; one result each.
        steps: optimiser updates at most, None for the protocol's.
        learning_rates: the grid, None for the protocol's.
        features: what to keep: ``pooled`` means, ``frames``, ``stream`` (nothing), or ``auto``.
        layer: use one layer only, None for the weighted sum.
        layer_norm: layer-norm every frame of every layer before the sum.
        splits: ``corpus`` or ``made``.
        lexicon: for pr.
        lm: n-gram language model, for tasks that decode with one.
        heads: ``protocol``, or ``small`` ones of the same kind where a task has them.
    """

    protocol: Literal["fixed", "superb"] = "fixed"
    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    learning_rates: tuple[float, ...] | None = None
    features: Features = "auto"
    layer: int | None = None
    layer_norm: bool = False
    splits: Literal["corpus", "made"] = "corpus"
    lexicon: Path | None = None
    lm: Path | None = None
    heads: Literal["protocol", "small"] = "protocol"


def settings_of(task: Task, protocol: Protocol, settings: Settings) -> dict[str, str]:
    """Return the settings as they are kept in a result and compared by ``--rerun missing``.

    Files are ``NAME#DIGITS``, of their sha256: another file of the same name is another setting, and
    so is what older versions kept, the name alone, which does not say what it was of.

    Raises:
        BadAudioError: a file that cannot be read.
    """
    return {
        "steps": str(protocol.steps),
        "learning_rates": " ".join(f"{rate:g}" for rate in protocol.learning_rates),
        "layer": "weighted sum" if settings.layer is None else str(settings.layer),
        "layer_norm": str(settings.layer_norm).lower(),
        "splits": task.splits,
        "lexicon": _named(settings.lexicon),
        "lm": _named(settings.lm),
        "heads": "small" if task.small else "protocol",
    }


def _named(path: Path | None) -> str:
    """Return name and content of a file as in signatures of decoding, "" without one."""
    if path is None:
        return ""
    from mynah.tasks.corpora.audio import file_digest

    return f"{path.name}#{file_digest(path)[:8]}"


def numbers(task: Task, settings: Settings) -> Protocol:
    """Return the protocol's numbers with the steps and learning rates that were asked for.

    Raises:
        ValueError: no positive number of steps.
    """
    protocol = task.protocol
    if settings.learning_rates is not None:
        rates = tuple(dict.fromkeys(settings.learning_rates))
        protocol = dataclasses.replace(protocol, learning_rates=rates)
    if settings.steps is not None:
        if settings.steps < 1:
            raise ValueError(f"steps must be at least 1, got {settings.steps}")
        every = min(protocol.eval_every, max(1, settings.steps // EVALUATIONS))
        protocol = dataclasses.replace(
            protocol,
            steps=settings.steps,
            eval_every=every,
            warmup=min(protocol.warmup, settings.steps // 3),
        )
    return protocol


def kind_of(task: Task, settings: Settings) -> str:
    """Return the store's kind for what the head reads.

    Raises:
        ValueError: means for a head that reads frames or for a layer-norm of frames.
    """
    frames = task.SPEC.resolution == "frame" or settings.layer_norm
    if settings.features == "pooled" and frames:
        why = "layer-norm" if settings.layer_norm else f"the head of {task.SPEC.name}"
        raise ValueError(f"{why} needs every frame: use --features auto, frames or stream")
    if settings.features == "auto":
        return "auto" if frames else "pooled"
    return settings.features
