"""What stands between encoder and decoder: continuous, variational or discrete codes.

The narrower it is, the less of the speaker gets through, and of the words. Each takes hidden frames
and gives a code of the same length, terms to add to the loss, and figures that show a collapse.

Shape suffixes: B batch, T frames, H hidden width, C width of the code, V codes, N valid frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Passed:
    """What came through.

    Attributes:
        code_BCT: the code.
        terms: loss terms by name, with their weights applied.
        parts: figures to log.
    """

    code_BCT: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    parts: Mapping[str, Tensor] = field(default_factory=dict)


class Bottleneck(nn.Module, ABC):
    """Base class; ``width`` is the width C of the code."""

    width: int
    floors: Mapping[str, float] = MappingProxyType({})

    @abstractmethod
    def forward(self, h_BHT: Tensor, mask_B1T: Tensor) -> Passed:
        """Return what comes through; in eval mode nothing is drawn at random."""

    def after_step(self, share: float) -> None:
        """Update what is kept beside the gradient.

        Args:
            share: of the training steps that are done, 0 to 1.
        """


class Plain(Bottleneck):
    """A linear map, nothing more."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.code = nn.Conv1d(hidden, width, 1)

    def forward(self, h_BHT: Tensor, mask_B1T: Tensor) -> Passed:
        """Return the code; its deviation over time shows a collapse."""
        code_BCT = self.code(h_BHT) * mask_B1T
        return Passed(code_BCT=code_BCT, parts={"code_std": _spread(code_BCT, mask_B1T)})


class Variational(Bottleneck):
    """Mean and variance of a Gaussian, drawn from while training (Kingma and Welling 2013).

    Args:
        hidden: width H.
        width: width C.
        weight: of the divergence from a standard Gaussian, mean over frames of the sum over C.
        warm: share of the steps over which that weight grows from 0.
    """

    share: Tensor

    def __init__(self, hidden: int, width: int, *, weight: float, warm: float = 0.2) -> None:
        super().__init__()
        self.width = width
        self.weight = weight
        self.warm = warm
        self.mean = nn.Conv1d(hidden, width, 1)
        self.log_variance = nn.Conv1d(hidden, width, 1)
        self.register_buffer("share", torch.zeros(()))

    def forward(self, h_BHT: Tensor, mask_B1T: Tensor) -> Passed:
        """Return a drawn code while training, else the mean."""
        mean_BCT = self.mean(h_BHT) * mask_B1T
        logs_BCT = self.log_variance(h_BHT).clamp(-10, 10)
        kl_B1T = 0.5 * (mean_BCT.square() + logs_BCT.exp() - 1 - logs_BCT).sum(1, keepdim=True)
        kl = (kl_B1T * mask_B1T).sum() / mask_B1T.sum()
        code_BCT = mean_BCT
        if self.training:
            code_BCT = mean_BCT + torch.randn_like(mean_BCT) * (0.5 * logs_BCT).exp() * mask_B1T
        ramp = (self.share / self.warm).clamp(max=1.0)
        return Passed(
            code_BCT=code_BCT,
            terms={"kl": self.weight * ramp * kl},
            parts={"kl_nats": kl.detach(), "code_std": _spread(mean_BCT, mask_B1T)},
        )

    def after_step(self, share: float) -> None:
        """Raise the divergence's weight."""
        self.share.fill_(share)


class VectorQuantiser(Bottleneck):
    """The nearest of V code vectors, straight through (van den Oord et al. 2017, arXiv:1711.00937).

    The codebook follows the frames by moving averages (appendix A.1); a code that hardly any frame
    chooses starts again at a frame of the batch.

    Args:
        hidden: width H.
        width: width C.
        codes: number V.
        decay: of the moving averages.
        commitment: weight of the distance between frame and code.
        least: average number of frames per batch below which a code starts again.
    """

    floors: Mapping[str, float] = MappingProxyType({"perplexity": 4.0})
    codebook_VC: Tensor
    counts_V: Tensor
    sums_VC: Tensor

    def __init__(
        self,
        hidden: int,
        width: int,
        *,
        codes: int,
        decay: float = 0.99,
        commitment: float = 0.25,
        least: float = 0.05,
    ) -> None:
        super().__init__()
        self.width, self.decay, self.commitment, self.least = width, decay, commitment, least
        self.into = nn.Conv1d(hidden, width, 1)
        self.register_buffer("codebook_VC", torch.randn(codes, width))
        self.register_buffer("counts_V", torch.zeros(codes))
        self.register_buffer("sums_VC", torch.zeros(codes, width))
        self._pending: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, h_BHT: Tensor, mask_B1T: Tensor) -> Passed:
        """Return the nearest code vectors; the gradient goes to the frames as if they were those."""
        z_BCT = self.into(h_BHT)
        index_BT = self.indices(z_BCT)
        chosen_BCT = self.codebook_VC[index_BT].transpose(1, 2)
        apart = ((z_BCT - chosen_BCT.detach()).square().mean(1, keepdim=True) * mask_B1T).sum()
        commitment = apart / mask_B1T.sum()
        valid_BT = mask_B1T[:, 0] > 0
        usage_V = torch.bincount(index_BT[valid_BT], minlength=len(self.codebook_VC)).float()
        if self.training:
            frames_NC = z_BCT.detach().transpose(1, 2)[valid_BT].float()
            sums_VC = torch.zeros_like(self.sums_VC).index_add_(0, index_BT[valid_BT], frames_NC)
            spare = torch.randint(len(frames_NC), (len(usage_V),), device=frames_NC.device)
            self._pending = (usage_V, sums_VC, frames_NC[spare])
        return Passed(
            code_BCT=(z_BCT + (chosen_BCT - z_BCT).detach()) * mask_B1T,
            terms={"commitment": self.commitment * commitment},
            parts={
                "perplexity": perplexity(usage_V),
                "unused_codes": (usage_V == 0).float().mean(),
            },
        )

    def indices(self, z_BCT: Tensor) -> Tensor:
        """Return the nearest code (B, T) of each frame."""
        frames_BTC = z_BCT.detach().transpose(1, 2).float()
        # |z - e|^2 without |z|^2, which is the same for all codes
        distance_BTV = self.codebook_VC.square().sum(1) - 2 * frames_BTC @ self.codebook_VC.T
        return distance_BTV.argmin(-1)

    @torch.no_grad()
    def after_step(self, share: float) -> None:
        """Move the codebook towards the frames of the step's last batch."""
        if self._pending is None:
            return
        usage_V, sums_VC, spare_VC = self._pending
        self._pending = None
        if torch.distributed.is_initialized():
            for total in (usage_V, sums_VC):
                torch.distributed.all_reduce(total)
            torch.distributed.broadcast(spare_VC, 0)
        if not self.counts_V.any():  # the first batch: begin at its frames
            self.codebook_VC.copy_(spare_VC)
            self.counts_V.fill_(1.0)
            self.sums_VC.copy_(spare_VC)
            return
        self.counts_V.mul_(self.decay).add_(usage_V, alpha=1 - self.decay)
        self.sums_VC.mul_(self.decay).add_(sums_VC, alpha=1 - self.decay)
        dead_V = self.counts_V < self.least
        self.counts_V[dead_V] = 1.0
        self.sums_VC[dead_V] = spare_VC[dead_V]
        self.codebook_VC.copy_(self.sums_VC / self.counts_V[:, None])


class Gumbel(Bottleneck):
    """One of V code vectors, drawn by the Gumbel-softmax while training (Jang et al. 2017).

    Args:
        hidden: width H.
        width: width C.
        codes: number V.
        hot: temperature at the start.
        cold: at the end; between them it falls geometrically.
        diversity: weight of 1 - perplexity of the mean distribution / V (wav2vec 2.0's term).
    """

    floors: Mapping[str, float] = MappingProxyType({"perplexity": 4.0})
    temperature: Tensor

    def __init__(
        self,
        hidden: int,
        width: int,
        *,
        codes: int,
        hot: float = 2.0,
        cold: float = 0.5,
        diversity: float = 0.1,
    ) -> None:
        super().__init__()
        self.width, self.hot, self.cold, self.diversity = width, hot, cold, diversity
        self.logits = nn.Conv1d(hidden, codes, 1)
        self.vectors = nn.Linear(codes, width, bias=False)
        self.register_buffer("temperature", torch.tensor(hot))

    def forward(self, h_BHT: Tensor, mask_B1T: Tensor) -> Passed:
        """Return one code vector per frame: drawn while training, else the likeliest."""
        logits_BTV = self.logits(h_BHT).transpose(1, 2)
        valid_BT = mask_B1T[:, 0] > 0
        soft_NV = logits_BTV[valid_BT].softmax(-1)
        if self.training:
            one_hot_BTV = F.gumbel_softmax(logits_BTV, tau=float(self.temperature), hard=True)
        else:
            one_hot_BTV = F.one_hot(logits_BTV.argmax(-1), logits_BTV.shape[-1]).to(logits_BTV)
        mean_V = soft_NV.mean(0)
        spread = (-(mean_V * (mean_V + 1e-9).log()).sum()).exp() / len(mean_V)
        return Passed(
            code_BCT=self.vectors(one_hot_BTV).transpose(1, 2) * mask_B1T,
            terms={"diversity": self.diversity * (1 - spread)},
            parts={"perplexity": perplexity(one_hot_BTV.detach()[valid_BT].sum(0))},
        )

    def after_step(self, share: float) -> None:
        """Lower the temperature."""
        self.temperature.fill_(self.hot * (self.cold / self.hot) ** share)


class Binary(Bottleneck):
    """C bits per frame: a sigmoid that is rounded, straight through; drawn while training.

    Args:
        hidden: width H.
        width: number of bits C.
    """

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.logits = nn.Conv1d(hidden, width, 1)

    def forward(self, h_BHT: Tensor, mask_B1T: Tensor) -> Passed:
        """Return bits, -1 or 1."""
        share_BCT = self.logits(h_BHT).sigmoid()
        limit_BCT = torch.rand_like(share_BCT) if self.training else torch.full_like(share_BCT, 0.5)
        bits_BCT = (share_BCT > limit_BCT).to(share_BCT)
        code_BCT = (share_BCT + (bits_BCT - share_BCT).detach()) * 2 - 1
        mean_C = (bits_BCT * mask_B1T).sum((0, 2)) / mask_B1T.sum()
        entropy_C = -(mean_C * (mean_C + 1e-9).log2() + (1 - mean_C) * (1 - mean_C + 1e-9).log2())
        return Passed(code_BCT=code_BCT * mask_B1T, parts={"bits": entropy_C.sum().detach()})


def perplexity(usage_V: Tensor) -> Tensor:
    """Return the exponential of the entropy of a histogram: how many codes are in use."""
    share_V = usage_V / usage_V.sum().clamp(min=1)
    return (-(share_V * (share_V + 1e-12).log()).sum()).exp()


def _spread(code_BCT: Tensor, mask_B1T: Tensor) -> Tensor:
    mean_C = code_BCT.detach().sum((0, 2)) / mask_B1T.sum()
    apart = ((code_BCT.detach() - mean_C[:, None]) * mask_B1T).square().sum((0, 2))
    return (apart / mask_B1T.sum()).sqrt().mean()
