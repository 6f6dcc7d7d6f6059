"""How a family is compared with s3prl: a checkpoint in its form, run by its hub, read by us."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mynah.recipes.parity.compare import Measured, Pair, distance

if TYPE_CHECKING:
    from mynah.upstream.core.contract import Upstream

Make = Callable[..., tuple[dict[str, Any], Any]]
"""Builds a small random model of s3prl's; returns the content of its checkpoint, and the model."""
LossOf = Callable[["Upstream", Any], float]
"""Returns the relative difference of our model's loss to that of s3prl's model."""


def pair(
    family: str,
    entry: str,
    make: Make,
    *,
    setting: str = "",
    loss: LossOf | None = None,
    **settings: Any,
) -> Pair:
    """Return the pair of one of our families and an entry of s3prl's hub.

    Args:
        family: ours.
        entry: its name in the hub.
        make: builds the checkpoint.
        setting: how the table calls the settings.
        loss: compares the losses.
        settings: given to ``make``.
    """
    return Pair(
        family=family,
        reference=f"s3prl {entry}",
        setting=setting,
        measure=partial(measure, entry=entry, make=make, loss=loss, **settings),
    )


def measure(
    folder: Path, *, entry: str, make: Make, loss: LossOf | None, **settings: Any
) -> Measured:
    """Compare a checkpoint as we read it with itself as s3prl's hub runs it."""
    from mynah.upstream.interop import s3prl, s3prl_hub

    path, model = saved(folder, make, **settings)
    ours = s3prl.convert(path).eval()
    with s3prl_hub.quietly():
        lost = None if loss is None else loss(ours, model)
    return Measured(distance(ours, s3prl_hub.wrap(entry, checkpoint=path)), lost)


def saved(folder: Path, make: Make, **settings: Any) -> tuple[Path, Any]:
    """Write what ``make`` builds; return the file and the model."""
    import torch

    from mynah.upstream.interop import s3prl_hub

    s3prl_hub.ensure_importable()
    with s3prl_hub.quietly():
        content, model = make(**settings)
    path = folder / "checkpoint.ckpt"
    torch.save(content, path)
    return path, model
