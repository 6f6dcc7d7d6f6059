"""bfloat16 convolutions of few channels: right here, or not computed in bfloat16."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core import narrow_convs
from mynah.upstream.core.narrow_convs import bf16_is_right, has_narrow
from mynah.upstream.core.packed_linear import PackedConv1d
from mynah.upstream.core.posconv import PositionalConv

CPU = torch.device("cpu")


def apart(found: Tensor, exact: Tensor) -> float:
    return float((found.detach().float() - exact.detach()).norm() / exact.detach().norm())


@pytest.mark.usefixtures("bfloat16_products")
@pytest.mark.parametrize(("taps", "stride"), [(8, 4), (16, 1), (16, 8), (32, 1), (10, 5)])
@pytest.mark.parametrize("channels", [1, 4, 8, 12, 16, 24, 32, 64])
def test_frozen_convolutions_in_bf16_are_those_of_float32(
    taps: int, stride: int, channels: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight_OIK = torch.randn(40, channels, taps, generator=generator) / (channels * taps) ** 0.5
    layer = PackedConv1d(weight_OIK, None, stride=stride, dtype=torch.bfloat16)
    for length in (60, 200, 517):
        x_TI = torch.randn(length, channels, generator=generator)
        exact = F.conv1d(x_TI.t()[None], weight_OIK, stride=stride)[0].t()
        assert apart(layer(x_TI.bfloat16()), exact) < 0.02, length


@pytest.mark.usefixtures("bfloat16_products")
@pytest.mark.parametrize("dim", [96, 192, 768])
def test_positions_in_bf16_are_those_of_float32(dim: int) -> None:
    torch.manual_seed(0)
    layer = PositionalConv(dim, kernel=32)
    x_BTD = torch.randn(2, 300, dim)
    exact = layer(x_BTD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert apart(layer(x_BTD), exact) < 0.02


def test_which_convolutions_are_narrow() -> None:
    assert has_narrow(nn.Sequential(nn.Conv1d(16, 8, 8)))
    assert has_narrow(nn.Conv1d(96, 96, 32, groups=16))
    assert not has_narrow(nn.Conv1d(1, 512, 10, stride=5))  # over samples
    assert not has_narrow(nn.Conv1d(16, 8, 4))
    assert not has_narrow(nn.Sequential(nn.Conv1d(32, 8, 8), nn.Linear(4, 4)))


def test_a_model_stays_in_float32_where_sums_are_wrong(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    narrow, wide = nn.Conv1d(16, 8, 8), nn.Conv1d(64, 8, 8)
    monkeypatch.setattr(narrow_convs, "adds_up", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert bf16_is_right(wide, CPU)
        assert bf16_is_right(narrow, torch.device("cuda"))
        assert not caplog.records
        assert not bf16_is_right(narrow, CPU)
    assert "ONEDNN_MAX_CPU_ISA" in caplog.text
    monkeypatch.setattr(narrow_convs, "adds_up", lambda: True)
    assert bf16_is_right(narrow, CPU)
