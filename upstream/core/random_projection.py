"""Labels from nothing: a random projection and the nearest of random codes, never trained.

Chiu, Qin, Zhang, Yu and Wu 2022, BEST-RQ (arXiv 2202.01855) section 3.1.

Shape suffixes: M frames, C input width, E width of a code, V codes, H codebooks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RandomProjection(nn.Module):
    """H fixed quantisers: argmin_v || norm(c_v) - norm(A x) ||.

    Between vectors of length 1 the nearest is the one with the largest product, and the length of
    A x does not change which that is: two matrix products and an argmax. A has Xavier-uniform
    entries, codes are normal and scaled to length 1. Both are buffers, saved with the weights: other
    random numbers would be another task. Frames should be normalised, or few codes are used.

    Args:
        channels: input width C.
        codes: V.
        code_dim: E.
        codebooks: H independent pairs of projection and codebook.

    Attributes:
        projection_HCE: A of each codebook.
        codes_HVE: its unit-length codes.

    Raises:
        ValueError: an argument below 1.
    """

    projection_HCE: Tensor
    codes_HVE: Tensor

    def __init__(self, channels: int, *, codes: int, code_dim: int, codebooks: int = 1) -> None:
        super().__init__()
        if min(channels, codes, code_dim, codebooks) < 1:
            raise ValueError(
                "channels, codes, code_dim and codebooks must be at least 1, got "
                f"{channels}, {codes}, {code_dim} and {codebooks}"
            )
        projections = [
            nn.init.xavier_uniform_(torch.empty(channels, code_dim)) for _ in range(codebooks)
        ]
        codes_HVE = F.normalize(torch.randn(codebooks, codes, code_dim), dim=-1)
        self.register_buffer("projection_HCE", torch.stack(projections))
        self.register_buffer("codes_HVE", codes_HVE)

    @torch.no_grad()
    def forward(self, x_MC: Tensor) -> Tensor:
        """Return the codes of frames, int64 (M, H), computed in float32 whatever the autocast.

        A frame of zeros has code 0.
        """
        with torch.autocast(x_MC.device.type, enabled=False):
            x_MC = x_MC.float()
            found = [
                (x_MC @ projection_CE @ codes_VE.T).argmax(dim=1)
                for projection_CE, codes_VE in zip(self.projection_HCE, self.codes_HVE, strict=True)
            ]
        return torch.stack(found, dim=1)
