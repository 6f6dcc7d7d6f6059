"""Has the representation collapsed? Told once, written down for good.

Self-supervised objectives can be met by giving every input the same output. A family names the parts
of its loss that show it and their smallest healthy values (``Upstream.floors``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from mynah.recipes.training.schedule import span
from mynah.recipes.training.values import TrainConfig

GRACE = 0.1  # share of the steps before which a low value is no sign


class Watch:
    """Compares what is logged with the floors once a run is under way.

    Args:
        floors: part of the loss -> its smallest healthy value.
        config: its warm-up and steps say when the watch begins.
    """

    def __init__(self, floors: Mapping[str, float], config: TrainConfig) -> None:
        self.floors = dict(floors)
        warmup = span(config.schedule.warmup, config.steps)
        self.start = max(warmup, math.ceil(GRACE * config.steps))
        self.collapsed: list[str] = []
        self._told: set[str] = set()

    def look(self, step: int, parts: Mapping[str, float]) -> list[str]:
        """Return a line for every part that is found below its floor for the first time.

        Afterwards ``collapsed`` holds the names of all that are below at this step.

        Args:
            step: steps done.
            parts: means since the last record; where there are none, what was seen before stands.
        """
        if step < self.start or not parts:
            return []
        self.collapsed = [n for n, floor in self.floors.items() if parts.get(n, floor) < floor]
        new = [name for name in self.collapsed if name not in self._told]
        self._told |= set(new)
        return [
            f"collapsed: {name} {parts[name]:.3g} is below {self.floors[name]:g} at step {step}: "
            "the model gives nearly the same output for every input. Stop and try a lower train.lr, "
            "a longer train.schedule.warmup or larger batches (train.batch_seconds, "
            "train.accumulate)"
            for name in new
        ]
