"""One vector per utterance from its frames, and the heads that compare such vectors.

Shape suffixes: B batch, T frames, D width.
"""

from __future__ import annotations

from torch import Tensor, nn


def mean_over_time(x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
    """Return the mean (B, D), in float32, of the frames where ``valid_BT`` is true."""
    weight_BT1 = valid_BT[..., None].to(x_BTD.device).float()
    pooled_BD: Tensor = (x_BTD.float() * weight_BT1).sum(dim=1) / weight_BT1.sum(dim=1)
    return pooled_BD


def projection_head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return SimCLR's head: linear, ReLU, linear. Chen et al. 2020 (arXiv 2002.05709) section 2.1."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
