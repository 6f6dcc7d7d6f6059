"""Probes of content codes: what they find, and that they never hear the groups that they answer for."""

from __future__ import annotations

import pytest
import torch

from mynah.recipes.conversion.code_probes import CAPACITIES, probe_codes


def test_codes_are_probed_on_groups_that_were_held_out() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = [str(i % 2) for i in range(40)]
    groups = [str(i // 8) for i in range(40)]
    told = [torch.randn(30, 4, generator=draw) + 3 * float(label) for label in labels]
    blind = [torch.randn(30, 4, generator=draw) for _ in labels]
    # the label of each group: a probe that had heard the groups would know it
    whose = [torch.randn(30, 4, generator=draw) + 5 * float(group) for group in groups]
    for capacity in CAPACITIES:
        found = probe_codes(told, labels, groups, capacity=capacity, unit="group", steps=60)
        assert found.accuracy.value > 0.9
        assert found.chance == 0.5
        assert found.accuracy.unit == "group"
        for codes in (blind, whose):
            found = probe_codes(codes, labels, groups, capacity=capacity, unit="group", steps=60)
            assert found.accuracy.value < 0.8
    with pytest.raises(ValueError, match="two classes"):
        probe_codes(told, ["a"] * 40, groups, capacity="linear", unit="group")
