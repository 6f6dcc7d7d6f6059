"""Learning-rate schedules as pure functions of the step, so that a resumed run needs no state.

Every schedule returns a share of the peak rate for the update about to be done; ``step`` counts the
updates already done, so the first update of a warm-up has a rate above zero and the last update of
a decay to zero has one too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mynah.recipes.training.values import ScheduleConfig


def span(value: float, total: int) -> int:
    """Return a length in steps: ``value`` below 1 is a share of ``total``, else it counts steps."""
    return round(value * total) if value < 1 else int(value)


def share(schedule: ScheduleConfig, step: int, total: int) -> float:
    """Return the learning rate of an update as a share of its peak.

    Args:
        schedule: kind, warm-up, hold and where the rate starts and ends.
        step: updates already done, ``0 <= step < total``.
        total: updates planned.

    Raises:
        ValueError: ``step`` is not in range.
    """
    if not 0 <= step < total:
        raise ValueError(f"step must be in 0..{total - 1}, got {step}")
    warmup = span(schedule.warmup, total)
    if step < warmup:
        return schedule.start + (1.0 - schedule.start) * (step + 1) / warmup
    hold = span(schedule.hold, total)
    if schedule.kind == "constant" or step < warmup + hold:
        return 1.0
    progress = (step - warmup - hold) / (total - warmup - hold)
    if schedule.kind == "linear":
        return 1.0 + (schedule.floor - 1.0) * progress
    if schedule.kind == "cosine":
        return schedule.floor + (1.0 - schedule.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return math.exp(math.log(schedule.floor) * progress)  # tri-stage: exponential decay
