"""bfloat16 convolutions of few channels, which oneDNN adds up wrongly on CPUs with AMX.

With torch 2.11 on a Xeon with AMX, sums over 2 to 31 channels per group and 8 or more taps come out
with errors as large as the values, at some lengths, without any message; float32, one channel
and 32 or more are right, and so is everything under ``ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16``. So the
machine is asked, once, and a model that has such a convolution stays in float32 where it answers
wrongly.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

log = logging.getLogger(__name__)

TILE = 32  # bfloat16 values in a row of an AMX tile: more channels are right
TAPS = 8  # fewer are right
_ALLOWED = 0.05  # rounding gives 0.003, the fault 1


def is_narrow(channels: int, taps: int) -> bool:
    """Return whether a convolution over so many channels (of a group) and taps can be wrong."""
    return 1 < channels < TILE and taps >= TAPS


@cache
def adds_up() -> bool:
    """Return whether this CPU's bfloat16 convolutions of few channels are those of float32."""
    generator = torch.Generator().manual_seed(0)
    for channels, taps, stride, length in ((8, 16, 1, 200), (16, 8, 4, 200), (8, 8, 4, 517)):
        x_1IT = torch.randn(1, channels, length, generator=generator)
        weight_OIK = torch.randn(32, channels, taps, generator=generator)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):  # the caller may be under it
            exact = F.conv1d(x_1IT, weight_OIK, stride=stride)
            try:
                found = F.conv1d(x_1IT.bfloat16(), weight_OIK.bfloat16(), stride=stride).float()
            except RuntimeError:  # oneDNN refuses: torch says so itself where it matters
                return True
        if not (found - exact).norm() < _ALLOWED * exact.norm():
            return False
    return True


def has_narrow(module: nn.Module) -> bool:
    """Return whether a model has a convolution of the kind that can be wrong."""
    return any(
        isinstance(layer, nn.Conv1d)
        and is_narrow(layer.in_channels // layer.groups, layer.kernel_size[0])
        for layer in module.modules()
    )


def bf16_is_right(module: nn.Module, device: torch.device) -> bool:
    """Return whether a model may compute in bfloat16 here; a warning says why where it may not.

    Args:
        module: that computes by torch's own convolutions.
        device: where.
    """
    if device.type != "cpu" or not has_narrow(module) or adds_up():
        return True
    log.warning(
        "bf16 was asked for, float32 is used: on this CPU (AMX) bfloat16 convolutions of fewer than "
        "%d channels come out wrong; ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 in the environment avoids it",
        TILE,
    )
    return False
