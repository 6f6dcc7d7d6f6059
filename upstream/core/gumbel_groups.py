"""Product quantisation as VQ-APC and NPC use it: parts of the channels are coded apart.

Shape suffixes: M frames, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mynah.upstream.core.codebooks import Coded, GumbelOneHot


class GumbelGroups(nn.ModuleList):
    """Product quantisation by :class:`GumbelOneHot`: parts of the channels are coded apart.

    Args:
        codes: number of codes of each group; none for no groups.
        dims: width of each; as many, and together the width D of what is coded.
        temperature: of all groups, all the time.
    """

    def __init__(self, codes: Sequence[int], dims: Sequence[int], *, temperature: float) -> None:
        super().__init__(
            GumbelOneHot(dim, codes=many, start=temperature, end=temperature)
            for many, dim in zip(codes, dims, strict=True)
        )
        self.dims = list(dims)

    def forward(
        self, x_MD: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the codes' vectors (M, D), and exp(entropy) of their use summed over the groups.

        Args:
            x_MD: frames.
            generator: CPU generator of the Gumbel noise; needed in training mode.
        """
        parts = x_MD.split(self.dims, dim=1)
        groups: list[Coded] = [
            quantizer(part, generator=generator)
            for quantizer, part in zip(self, parts, strict=True)
        ]
        vectors_MD = torch.cat([group.vectors_MD for group in groups], dim=1)
        return vectors_MD, torch.stack([group.code_perplexity for group in groups]).sum()
