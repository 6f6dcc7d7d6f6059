"""Product quantisation by the nearest code, with codes that learn by gradient (vq-wav2vec).

A frame is projected within each of G groups of channels, normalised over an utterance's frames and
the group's channels, and replaced by the nearest of V codes of the group. The gradient passes
straight through to the projection; two squared distances pull codes and frames together.

That collapses easily: codes that are nearest to no frame get no gradient. With ``patience``, a code
that no frame has chosen for so many steps is put on a random frame, and all codes begin that way.
fairseq has no such remedy; its published model was trained for 400 000 steps without.

Source: Baevski, Schneider and Auli 2020 (arXiv 1910.05453) section 3.2 and equation 2, after van den
Oord et al. 2017 (arXiv 1711.00937); fairseq's ``KmeansVectorQuantizer``.

Shape suffixes: B batch, T frames, N frames of any number of utterances, M true frames of a padded
batch, F channels, G groups, V codes per group, C = F / G width of a code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.aggregator import utterance_norm
from mynah.upstream.core.gumbel import perplexity


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """What the quantiser makes of a padded batch.

    Attributes:
        vectors_MF: the nearest codes of the true frames, the groups side by side; their gradient
            is that of the projected frames.
        codes_MG: int64 index of each.
        loss: scalar, mean square of (code - fixed frame) + ``commitment`` times that of
            (frame - fixed code).
        code_perplexity: detached scalar, exp(entropy) of the codes' histogram summed over the
            groups (G .. V G).
    """

    vectors_MF: Tensor
    codes_MG: Tensor
    loss: Tensor
    code_perplexity: Tensor


class KmeansQuantizer(nn.Module):
    """G groups of V codes; fairseq's ``embedding`` (V, G, C) is ``vectors_GVC`` transposed.

    Args:
        channels: F, a multiple of ``groups``.
        groups: G.
        codes: V.
        shared: one set of codes for all groups (fairseq: ``combine_groups``).
        commitment: weight of the term that pulls frames towards codes.
        patience: steps without a frame after which a code is put on one; None never does that.

    Raises:
        ValueError: ``channels`` is not a multiple of ``groups``, or a number is not positive.
    """

    idle_GV: Tensor
    used_GV: Tensor
    spare_GVC: Tensor

    def __init__(
        self,
        channels: int,
        *,
        groups: int,
        codes: int,
        shared: bool,
        commitment: float = 0.25,
        patience: int | None = None,
    ) -> None:
        super().__init__()
        if min(channels, groups, codes, patience or 1) < 1 or channels % groups or patience == 0:
            raise ValueError(
                "channels, groups, codes and patience must be positive and channels a multiple of "
                f"groups, got channels={channels}, groups={groups}, codes={codes}, "
                f"patience={patience}"
            )
        self.groups, self.codes = groups, codes
        self.commitment = commitment
        self.patience = patience
        self.proj = nn.Conv1d(channels, channels, 1, groups=groups, bias=False)
        self.norm = nn.GroupNorm(groups, channels)
        rows = 1 if shared else groups
        self.vectors_GVC = nn.Parameter(0.01 * torch.randn(rows, codes, channels // groups))
        if patience is not None:
            self.register_buffer("idle_GV", torch.full((rows, codes), patience))
            self.register_buffer("used_GV", torch.zeros(rows, codes, dtype=torch.int64))
            self.register_buffer("spare_GVC", torch.zeros(rows, codes, channels // groups))

    def forward(
        self, x_BTF: Tensor, valid_BT: Tensor | None, *, generator: torch.Generator | None = None
    ) -> Nearest:
        """Quantise the true frames of a padded batch.

        Args:
            x_BTF: frames.
            valid_BT: which are true; None if all are.
            generator: CPU generator, of the frames on which codes may be put; needed in training
                mode with ``patience``.

        Raises:
            ValueError: no generator where one is needed.
        """
        z_BTF = self.project(x_BTF, valid_BT)
        z_MF = z_BTF.flatten(0, 1) if valid_BT is None else z_BTF[valid_BT]
        codes_MG = self.nearest(z_MF)
        if self.training and self.patience is not None:
            self._watch(z_MF.detach(), codes_MG, generator)
        vectors_MF = self.lookup(codes_MG)
        loss = F.mse_loss(vectors_MF, z_MF.detach())
        loss = loss + self.commitment * F.mse_loss(z_MF, vectors_MF.detach())
        share_GV = F.one_hot(codes_MG, self.codes).float().mean(dim=0)
        return Nearest(
            vectors_MF=vectors_MF.detach() + (z_MF - z_MF.detach()),
            codes_MG=codes_MG,
            loss=loss,
            code_perplexity=perplexity(share_GV),
        )

    def project(self, x_BTF: Tensor, valid_BT: Tensor | None) -> Tensor:
        """Return the projected and normalised frames (B, T, F), float32."""
        z_BFT = self.proj(x_BTF.transpose(1, 2))
        return utterance_norm(z_BFT, self.norm, valid_BT).transpose(1, 2)

    @torch.no_grad()
    def nearest(self, z_NF: Tensor) -> Tensor:
        """Return the index (N, G) of the nearest code of projected frames in each group."""
        z_GNC = z_NF.float().unflatten(1, (self.groups, -1)).transpose(0, 1)
        vectors_GVC = self.vectors_GVC.float().expand(self.groups, -1, -1)
        with torch.autocast(z_NF.device.type, enabled=False):
            # |z - v|^2 without |z|^2, which is the same for all codes
            dots_GNV = z_GNC @ vectors_GVC.transpose(1, 2)
        distance_GNV: Tensor = vectors_GVC.square().sum(dim=2)[:, None] - 2 * dots_GNV
        return distance_GNV.argmin(dim=2).T

    def choose(self, x_TF: Tensor) -> Tensor:
        """Return the codes (T, G) of one utterance's frames."""
        return self.nearest(self.project(x_TF[None], None)[0])

    def lookup(self, codes_NG: Tensor) -> Tensor:
        """Return the codes' vectors (N, F), the groups side by side."""
        vectors_GVC = self.vectors_GVC.expand(self.groups, -1, -1)
        group_G = torch.arange(self.groups, device=codes_NG.device)
        return vectors_GVC[group_G, codes_NG].flatten(1)

    @torch.no_grad()
    def after_step(self) -> None:
        """Put codes that were idle for too long on frames, the same ones in all processes."""
        if self.patience is None:
            return
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.used_GV)
            dist.broadcast(self.spare_GVC, src=0)
        if not self.used_GV.any():  # nothing was quantised
            return
        self.idle_GV.add_(1).masked_fill_(self.used_GV > 0, 0)
        dead_GV = self.idle_GV >= self.patience
        self.vectors_GVC.copy_(torch.where(dead_GV[..., None], self.spare_GVC, self.vectors_GVC))
        self.idle_GV.masked_fill_(dead_GV, 0)
        self.used_GV.zero_()

    @torch.no_grad()
    def _watch(self, z_MF: Tensor, codes_MG: Tensor, generator: torch.Generator | None) -> None:
        """Count which codes are in use, and keep random frames of the step's first batch."""
        if generator is None:
            raise ValueError("training mode with patience draws frames and needs a generator")
        rows = len(self.vectors_GVC)
        count_GV = F.one_hot(codes_MG, self.codes).sum(dim=0)
        z_MGC = z_MF.float().nan_to_num(0.0, 0.0, 0.0).unflatten(1, (self.groups, -1))
        frames_GV = torch.randint(len(z_MGC), (rows, self.codes), generator=generator)
        group_G1 = torch.arange(rows, device=z_MF.device)[:, None]
        spare_GVC = z_MGC[frames_GV.to(z_MF.device), group_G1]
        self.spare_GVC.copy_(torch.where(self.used_GV.any(), self.spare_GVC, spare_GVC))
        self.used_GV.add_(count_GV.sum(dim=0, keepdim=True) if rows == 1 else count_GV)
