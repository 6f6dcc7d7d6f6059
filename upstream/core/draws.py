"""Random numbers where they are needed.

Objectives draw from a batch's CPU generator, so that a resumed run draws what it would have drawn.
Big draws (a noise value for each code of each frame) would keep a GPU waiting: they come of a
generator on the device, which is seeded from the CPU's and so repeats as well.
"""

from __future__ import annotations

import torch

_SEEDS = 1 << 62


def on_device(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """Return a generator on a device: the given one for the CPU, else one seeded from it.

    Args:
        generator: CPU generator; one number is drawn from it for another device.
        device: where the numbers are needed.
    """
    if device.type == generator.device.type:
        return generator
    seed = int(torch.randint(_SEEDS, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)
