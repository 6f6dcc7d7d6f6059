"""Online clustering: codebooks that follow the frames for which each code was the nearest.

Liu, Chang, Auli, Hsu and Glass 2023, DinoSR (arXiv 2305.10005) section 3.2.

Shape suffixes: G codebooks, V codes, D width, M frames.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


class OnlineCodebook(nn.Module):
    """G codebooks of V codes, each code the moving average of the frames nearest to it.

    With n_v frames of sum s_v nearest to code v in a step, a code that was used moves by
    S <- decay S + (1 - decay) s and N <- decay N + (1 - decay) n (equation 3) and lies at S / N;
    an unused one stays as it is. :meth:`follow` moves them after the step, not during the forward:
    batches that are accumulated, or spread over processes, count as one.

    Codes begin as normal vectors, shifted and scaled so that over a codebook every channel has mean
    0 and variance 1 as instance-normalised frames do, with counts of 1 (the authors' code). They are
    drawn and kept in float32.

    Args:
        groups: G.
        codes: V.
        dim: D.
        decay: share of sums and counts that is kept.

    Attributes:
        sums_GVD: buffer S.
        counts_GV: buffer N.

    Raises:
        ValueError: an argument out of range.
    """

    sums_GVD: Tensor
    counts_GV: Tensor

    def __init__(self, groups: int, codes: int, dim: int, *, decay: float = 0.9) -> None:
        super().__init__()
        if min(groups, dim) < 1 or codes < 2 or not 0 <= decay <= 1:
            raise ValueError(
                "groups and dim must be at least 1, codes at least 2 and decay between 0 and 1, got "
                f"groups={groups}, dim={dim}, codes={codes}, decay={decay}"
            )
        self.decay = decay
        drawn_GDV = torch.randn(groups, dim, codes)
        sums_GVD = F.layer_norm(drawn_GDV, (codes,)).transpose(1, 2).contiguous()
        self.register_buffer("sums_GVD", sums_GVD)
        self.register_buffer("counts_GV", torch.ones(groups, codes))
        self._seen: tuple[Tensor, Tensor] | None = None  # sums and counts of the current step

    @torch.no_grad()
    def nearest(self, x_GMD: Tensor) -> Tensor:
        """Return the nearest code of each frame, int64 (G, M), in Euclidean distance.

        |x - c|^2 = |x|^2 + |c|^2 - 2 x c, of which |x|^2 is the same for every code.

        Args:
            x_GMD: float32 frames of each codebook.
        """
        with torch.autocast(x_GMD.device.type, enabled=False):
            codes_GVD = self.vectors()
            size_GV = codes_GVD.square().sum(dim=2)
            score_GMV = torch.baddbmm(
                size_GV[:, None], x_GMD, codes_GVD.transpose(1, 2), beta=-0.5, alpha=1.0
            )
        return score_GMV.argmax(dim=2)

    def vectors(self) -> Tensor:
        """Return where the codes lie, (G, V, D)."""
        return self.sums_GVD / self.counts_GV[..., None]

    @torch.no_grad()
    def gather(self, x_GMD: Tensor, codes_GM: Tensor) -> None:
        """Note which frames (float32) were nearest to which code, for :meth:`follow`."""
        with torch.autocast(x_GMD.device.type, enabled=False):
            chosen_GMV = F.one_hot(codes_GM, self.counts_GV.shape[1]).to(x_GMD.dtype)
            sums_GVD = chosen_GMV.transpose(1, 2) @ x_GMD
            counts_GV = chosen_GMV.sum(dim=1)
        if self._seen is not None:
            sums_GVD, counts_GV = sums_GVD + self._seen[0], counts_GV + self._seen[1]
        self._seen = (sums_GVD, counts_GV)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the codes that were used since the last call; without frames nothing happens.

        A codebook whose frames were not finite rests: the loop skips such a step.
        """
        if self._seen is None:
            return
        sums_GVD, counts_GV = self._seen
        self._seen = None
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums_GVD)
            dist.all_reduce(counts_GV)
        used_GV = (counts_GV > 0) & sums_GVD.isfinite().all(dim=2)
        weight_GV = (1 - self.decay) * used_GV
        self.counts_GV.lerp_(counts_GV, weight_GV)
        self.sums_GVD.lerp_(sums_GVD.nan_to_num(0.0, 0.0, 0.0), weight_GV[..., None])
