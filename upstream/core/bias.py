"""What attention adds to its scores for the distance between two frames.

* :class:`RelativeBias`: a learned value per head and bucket of distances, WavLM's form of T5's.
  Chen et al. 2022 (arXiv 2110.13900) section 3.1; Raffel et al. 2020 (arXiv 1910.10683) section 2.1.
* :class:`Alibi`: a penalty that grows evenly with the distance, in both directions, with a learned
  factor per head. Press et al. 2022 (arXiv 2108.12409); data2vec 2.0 (arXiv 2212.07525) section 3.

Both depend on the distance (key minus query) alone, so that a block of queries needs a table of
distances only: :func:`rows` lays it out.

Shape suffixes: H heads, Q queries, T keys, X distances, ... any leading dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RelativeBias(nn.Module):
    """One learned value per head and bucket of distances.

    Half of the buckets are for keys after the query. Of each half, the first half hold one distance
    each, the others ranges that grow logarithmically up to ``max_distance``; what is further shares
    the last.

    Args:
        heads: H.
        buckets: number of buckets, a multiple of 4.
        max_distance: where the logarithmic buckets end, above ``buckets / 4``.
    """

    def __init__(self, heads: int, *, buckets: int = 320, max_distance: int = 800) -> None:
        super().__init__()
        if buckets < 4 or buckets % 4 or max_distance <= buckets // 4:
            raise ValueError(
                "relative_buckets must be a positive multiple of 4 and relative_distance above a "
                f"quarter of it, got {buckets} and {max_distance}"
            )
        self.buckets, self.max_distance = buckets, max_distance
        self.values = nn.Embedding(buckets, heads)

    def forward(self, distance: Tensor) -> Tensor:
        """Return (H, ...) values for int64 distances (...), key minus query."""
        half = self.buckets // 2
        exact = half // 2
        size = distance.abs()
        # float32 and this order of operations, as published: buckets at their edges depend on it
        ratio = size.clamp_min(1).float() / exact
        spread = torch.log(ratio) / math.log(self.max_distance / exact) * (half - exact)
        far = (exact + spread).to(torch.int64).clamp_max(half - 1)
        bucket = torch.where(size < exact, size, far) + (distance > 0) * half
        values: Tensor = self.values(bucket)
        return values.movedim(-1, 0)


class Alibi(nn.Module):
    """Minus slope times distance, the slopes a geometric series over the heads.

    Args:
        heads: H.
    """

    slopes_H: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes_H", torch.tensor(slopes(heads)), persistent=False)
        self.scale_H = nn.Parameter(torch.ones(heads))

    def forward(self, distance: Tensor) -> Tensor:
        """Return (H, ...) values for int64 distances (...)."""
        weight_H = self.slopes_H * self.scale_H.clamp_min(0.0)
        return -weight_H.view(-1, *[1] * distance.ndim) * distance.abs()


def slopes(heads: int) -> list[float]:
    """Return ALiBi's slopes: 2^(-8 h / H) for a power of two, else interleaved with the next one's."""
    power = 2 ** math.floor(math.log2(heads))
    series = [2.0 ** (-8 * (h + 1) / power) for h in range(power)]
    if power == heads:
        return series
    return series + slopes(2 * power)[0::2][: heads - power]


def distances(frames: int, device: torch.device) -> Tensor:
    """Return (T, T) int64: key minus query."""
    place_T = torch.arange(frames, device=device)
    return place_T - place_T[:, None]


def rows(table_HX: Tensor, start: int, stop: int, frames: int) -> Tensor:
    """Return the biases (H, Q, T) of queries ``start:stop`` from a table over all distances.

    Args:
        table_HX: values for the distances 1 - T ... T - 1.
        start: first query.
        stop: one past the last.
        frames: T.
    """
    first_Q1 = frames - 1 - torch.arange(start, stop, device=table_HX.device)[:, None]
    return table_HX[:, first_Q1 + torch.arange(frames, device=table_HX.device)]
