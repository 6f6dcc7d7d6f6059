"""What was in a step whose loss or gradient is not finite, kept for whoever looks for the reason."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from mynah.files import write_bytes
from mynah.recipes.training.distributed import World
from mynah.recipes.training.window import Seen


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
