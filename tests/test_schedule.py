"""Learning rates: the published shapes, at their corners."""

from itertools import pairwise

import pytest

from mynah.recipes.training.schedule import share, span
from mynah.recipes.training.values import ScheduleConfig


def rates(total: int, **values: object) -> list[float]:
    schedule = ScheduleConfig.model_validate(values)
    return [share(schedule, step, total) for step in range(total)]


def test_lengths_are_shares_below_one_and_steps_above() -> None:
    assert span(0.07, 1000) == 70
    assert span(32000, 400_000) == 32000
    assert span(0.0, 10) == 0


def test_linear_rises_to_the_peak_and_falls_to_its_floor() -> None:
    line = rates(100, kind="linear", warmup=10)
    assert line[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert line[10] == 1.0
    assert line[55] == pytest.approx(0.5)
    assert line[-1] == pytest.approx(1 / 90)  # the last update moves something
    assert rates(100, kind="linear", warmup=0, floor=0.5)[50] == pytest.approx(0.75)


def test_constant_stays_after_its_warmup() -> None:
    assert rates(50, kind="constant", warmup=0) == [1.0] * 50
    assert rates(50, kind="constant", warmup=5)[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_cosine_is_half_way_in_the_middle() -> None:
    line = rates(210, kind="cosine", warmup=10, floor=0.1)
    assert line[110] == pytest.approx(0.55)
    assert line[-1] == pytest.approx(0.1, abs=1e-3)
    assert all(a > b for a, b in pairwise(line[10:]))


def test_tri_stage_holds_then_decays_exponentially() -> None:
    # SpidR: 12 k of warm-up, 188 k of hold, 200 k of decay
    schedule = ScheduleConfig(kind="tri-stage", warmup=12_000, hold=188_000, start=0.01, floor=0.05)
    total = 400_000
    assert share(schedule, 0, total) == pytest.approx(0.01 + 0.99 / 12_000)
    assert share(schedule, 11_999, total) == share(schedule, 199_999, total) == 1.0
    assert share(schedule, 300_000, total) == pytest.approx(0.05**0.5)
    assert share(schedule, 399_999, total) == pytest.approx(0.05, rel=1e-4)


def test_a_step_outside_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"step must be in 0\.\.9, got 10"):
        share(ScheduleConfig(), 10, 10)
