"""Discrete bottlenecks: each frame becomes one of finitely many codes, and gradients still pass.

Three kinds behind one interface, :class:`Bottleneck`; each returns the vectors that go on to a
decoder, the codes, loss terms that are already weighted, and how many codes are in use:

* :class:`VectorQuantizer`: the nearest vector of a codebook that follows the frames by a moving
  average (van den Oord, Vinyals and Kavukcuoglu 2017, arXiv 1711.00937, equation 3 and appendix
  A.1);
* :class:`GumbelOneHot`: one of V codes, drawn with Gumbel noise (Jang, Gu and Poole 2017, arXiv
  1611.01144), as VQ-APC does it (Chung, Tang and Glass 2020, arXiv 2005.08392);
* :class:`BinaryCode`: K independent bits, after the multilabel-binary vectors of Liu, Hsu and Lee
  2019 (arXiv 1905.11563), here with the straight-through gradient of Bengio, Leonard and Courville
  2013 (arXiv 1308.3432).

In training mode the last two draw noise from a generator, and the first draws frames with which it
will replace codes that nobody uses; in eval mode the best code is chosen.

Shape suffixes: M frames, D width, V codes, K bits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.gumbel import gumbel_noise, perplexity

MAX_BITS = 62  # of a code in an int64


@dataclass(frozen=True, kw_only=True)
class Coded:
    """What a bottleneck makes of a set of frames.

    Attributes:
        vectors_MD: what a decoder sees; carries gradients to the frames.
        codes_M: int64 number of each frame's code.
        losses: name -> scalar to add to the objective, already weighted.
        code_perplexity: scalar, exp(entropy) of the codes' histogram, detached: between 1 and the
            number of codes.
    """

    vectors_MD: Tensor
    codes_M: Tensor
    losses: Mapping[str, Tensor]
    code_perplexity: Tensor


class Bottleneck(nn.Module, ABC):
    """What every discrete bottleneck promises.

    Attributes:
        dim: width D of frames and vectors.
        codes: number of different codes.
    """

    dim: int
    codes: int

    @abstractmethod
    def forward(self, x_MD: Tensor, *, generator: torch.Generator | None = None) -> Coded:
        """Code frames.

        Args:
            x_MD: frames, at least one.
            generator: CPU generator of all random choices; needed in training mode only.

        Raises:
            ValueError: no frames, or training mode without a generator.
        """

    def after_step(self, step: int, total_steps: int) -> None:
        """Update what is kept beside the gradient, as an upstream does; default: nothing."""

    def _check(self, x_MD: Tensor, generator: torch.Generator | None) -> None:
        if x_MD.ndim != 2 or x_MD.shape[1] != self.dim or not len(x_MD):
            raise ValueError(
                f"expected at least one frame of width {self.dim}, shape (M, {self.dim}), "
                f"got {tuple(x_MD.shape)}"
            )
        if self.training and generator is None:
            raise ValueError("training mode draws random numbers and needs a generator")


class VectorQuantizer(Bottleneck):
    """The nearest vector of a codebook, straight through; the codebook is a moving average.

    With n_v frames of sum s_v assigned to code v in a step, counts and sums move by
    N <- decay N + (1 - decay) n and S <- decay S + (1 - decay) s, and the code becomes S / N' where
    N' = (N + epsilon) / (sum N + V epsilon) sum N is Laplace-smoothed. The loss term is
    ``commitment`` times the mean square distance of frames to their codes. bshall's ZeroSpeech code
    does the same, except that it stores the smoothed counts and starts them at 0, which throws
    every code that is not used in the first step far away.

    A code that no frame has chosen for ``patience`` steps is dead: it is put on a random frame of
    the batch, with the count of one frame. All codes begin that way: after the first step, those
    that no frame was nearest to lie on frames.

    :meth:`after_step` moves the codebook, not the forward: batches that are accumulated, or spread
    over processes, count as one.

    Args:
        dim: width D.
        codes: number of codes V.
        commitment: weight of the commitment loss.
        decay: share of counts and sums that is kept per step.
        epsilon: of the Laplace smoothing.
        patience: steps without a frame after which a code is dead.

    Raises:
        ValueError: an argument out of range.
    """

    codebook_VD: Tensor
    count_V: Tensor
    sum_VD: Tensor
    idle_V: Tensor
    step_count_V: Tensor
    step_sum_VD: Tensor
    spare_VD: Tensor

    def __init__(
        self,
        dim: int,
        *,
        codes: int = 512,
        commitment: float = 0.25,
        decay: float = 0.999,
        epsilon: float = 1e-5,
        patience: int = 100,
    ) -> None:
        super().__init__()
        if min(dim, codes, patience) < 1 or not 0 <= decay < 1 or epsilon < 0 or commitment < 0:
            raise ValueError(
                "dim, codes and patience must be at least 1, decay in [0, 1), epsilon and "
                f"commitment at least 0, got dim={dim}, codes={codes}, patience={patience}, "
                f"decay={decay}, epsilon={epsilon}, commitment={commitment}"
            )
        self.dim, self.codes = dim, codes
        self.commitment, self.decay, self.epsilon = commitment, decay, epsilon
        self.patience = patience
        codebook_VD = torch.empty(codes, dim).uniform_(-1 / codes, 1 / codes)
        self.register_buffer("codebook_VD", codebook_VD)
        self.register_buffer("count_V", torch.ones(codes))
        self.register_buffer("sum_VD", codebook_VD.clone())
        self.register_buffer("idle_V", torch.full((codes,), patience, dtype=torch.int64))
        self.register_buffer("step_count_V", torch.zeros(codes))
        self.register_buffer("step_sum_VD", torch.zeros(codes, dim))
        self.register_buffer("spare_VD", torch.zeros(codes, dim))

    def forward(self, x_MD: Tensor, *, generator: torch.Generator | None = None) -> Coded:
        """Code frames by their nearest vectors, in float32 whatever the autocast."""
        self._check(x_MD, generator)
        with torch.autocast(x_MD.device.type, enabled=False):
            x_MD = x_MD.float()
            fixed_MD = x_MD.detach()
            square_V = self.codebook_VD.square().sum(dim=1)
            codes_M = torch.addmm(square_V, fixed_MD, self.codebook_VD.T, alpha=-2).argmin(dim=1)
            chosen_MD = self.codebook_VD[codes_M]
            count_V = torch.bincount(codes_M, minlength=self.codes)
            if self.training and generator is not None:
                self._gather(fixed_MD, codes_M, count_V, generator)
            commitment = self.commitment * F.mse_loss(x_MD, chosen_MD)
            # (code - frame) is a constant: the gradient of the vector goes to the frame as it is
            vectors_MD = x_MD + (chosen_MD - fixed_MD) if self.training else chosen_MD
        return Coded(
            vectors_MD=vectors_MD,
            codes_M=codes_M,
            losses={"commitment": commitment},
            code_perplexity=_perplexity(count_V),
        )

    @torch.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """Move the codebook by the frames of this step, of all processes, and restart dead codes.

        Nothing happens if no frame was coded in training mode since the last call.
        """
        del step, total_steps
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.step_count_V)
            dist.all_reduce(self.step_sum_VD)
            dist.broadcast(self.spare_VD, src=0)
        if not self.step_count_V.any():
            return
        self.count_V.lerp_(self.step_count_V, 1 - self.decay)
        self.sum_VD.lerp_(self.step_sum_VD, 1 - self.decay)
        total = self.count_V.sum()
        smooth_V = (self.count_V + self.epsilon) / (total + self.codes * self.epsilon) * total
        self.codebook_VD.copy_(self.sum_VD / smooth_V[:, None])
        self.idle_V.add_(1).masked_fill_(self.step_count_V > 0, 0)
        dead_V = self.idle_V >= self.patience
        for kept_VD in (self.codebook_VD, self.sum_VD):
            kept_VD.copy_(torch.where(dead_V[:, None], self.spare_VD, kept_VD))
        self.count_V.masked_fill_(dead_V, 1.0)
        self.idle_V.masked_fill_(dead_V, 0)
        self.step_count_V.zero_()
        self.step_sum_VD.zero_()

    def _gather(
        self, x_MD: Tensor, codes_M: Tensor, count_V: Tensor, generator: torch.Generator
    ) -> None:
        """Add frames to the sums of this step, and keep some of its first batch as spares."""
        x_MD = x_MD.nan_to_num(0.0, 0.0, 0.0)  # the loop skips a step that is not finite; so do we
        picks_V = torch.randint(len(x_MD), (self.codes,), generator=generator).to(x_MD.device)
        first = ~self.step_count_V.any()
        self.spare_VD.copy_(torch.where(first, x_MD[picks_V], self.spare_VD))
        self.step_count_V.add_(count_V)
        self.step_sum_VD.index_add_(0, codes_M, x_MD)


class GumbelOneHot(Bottleneck):
    """One of V codes by a linear layer; in training by (logits + Gumbel noise) / temperature.

    The forward uses the argmax, the backward the softmax (straight through). The codes' vectors are
    the columns of a linear layer without bias. With ``diversity`` > 0 there is a loss term
    ``diversity`` (1 - exp(H) / V), H the entropy of the mean softmax of the logits: 0 when all
    codes are equally likely over the batch, as fairseq computes equation 4 of arXiv 2006.11477.

    Args:
        dim: width D.
        codes: number of codes V.
        start: first temperature.
        end: last temperature; it falls evenly (in logarithm) from start to end over the run.
        diversity: weight of the diversity term.

    Attributes:
        temperature: 0-dim buffer, saved with the weights so that a resumed run goes on with it.

    Raises:
        ValueError: an argument out of range.
    """

    temperature: Tensor

    def __init__(
        self,
        dim: int,
        *,
        codes: int = 512,
        start: float = 2.0,
        end: float = 0.5,
        diversity: float = 0.0,
    ) -> None:
        super().__init__()
        if min(dim, codes) < 1 or min(start, end) <= 0 or diversity < 0:
            raise ValueError(
                "dim and codes must be at least 1, temperatures positive and diversity at least "
                f"0, got dim={dim}, codes={codes}, start={start}, end={end}, diversity={diversity}"
            )
        self.dim, self.codes = dim, codes
        self.start, self.end, self.diversity = start, end, diversity
        self.logits = nn.Linear(dim, codes)
        self.codebook = nn.Linear(codes, dim, bias=False)
        self.register_buffer("temperature", torch.tensor(start))

    def forward(self, x_MD: Tensor, *, generator: torch.Generator | None = None) -> Coded:
        """Code frames by the largest logit, noisy in training mode."""
        self._check(x_MD, generator)
        logits_MV = soft_MV = self.logits(x_MD).float()
        if self.training and generator is not None:
            noise_MV = gumbel_noise(logits_MV.shape, generator=generator).to(logits_MV.device)
            soft_MV = ((logits_MV + noise_MV) / self.temperature).softmax(dim=1)
        codes_M = soft_MV.argmax(dim=1)
        choice_MV = F.one_hot(codes_M, self.codes).to(soft_MV.dtype)
        if self.training:
            choice_MV = choice_MV + (soft_MV - soft_MV.detach())
        losses = {}
        if self.diversity:
            probs_V = logits_MV.softmax(dim=1).mean(dim=0)
            losses["diversity"] = self.diversity * (1 - perplexity(probs_V[None]) / self.codes)
        return Coded(
            vectors_MD=self.codebook(choice_MV),
            codes_M=codes_M,
            losses=losses,
            code_perplexity=_perplexity(torch.bincount(codes_M, minlength=self.codes)),
        )

    def after_step(self, step: int, total_steps: int) -> None:
        """Lower the temperature."""
        share = min(1.0, step / max(1, total_steps))
        self.temperature.fill_(self.start * (self.end / self.start) ** share)


class BinaryCode(Bottleneck):
    """K independent bits; in training each is drawn with the probability that a sigmoid gives it.

    The forward uses the bits as -1 and 1, the backward the sigmoid (straight through); in eval mode
    a bit is 1 where its probability is above one half. Bit k of a code's number is bit k of the
    frame. With ``diversity`` > 0 there is a loss term ``diversity`` times the mean over bits of
    1 - H / ln 2, H the entropy of a bit's mean probability: 0 when every bit is 1 half of the time.

    Args:
        dim: width D.
        bits: number of bits K.
        diversity: weight of the diversity term.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(self, dim: int, *, bits: int = 9, diversity: float = 0.0) -> None:
        super().__init__()
        if dim < 1 or not 1 <= bits <= MAX_BITS or diversity < 0:
            raise ValueError(
                f"dim must be at least 1, bits between 1 and {MAX_BITS} and diversity at least 0, "
                f"got dim={dim}, bits={bits}, diversity={diversity}"
            )
        self.dim, self.bits, self.codes, self.diversity = dim, bits, 1 << bits, diversity
        self.logits = nn.Linear(dim, bits)
        self.codebook = nn.Linear(bits, dim, bias=False)

    def forward(self, x_MD: Tensor, *, generator: torch.Generator | None = None) -> Coded:
        """Code frames by the sign of their logits, drawn at random in training mode."""
        self._check(x_MD, generator)
        probs_MK = self.logits(x_MD).float().sigmoid()
        if self.training and generator is not None:
            drawn_MK = torch.rand(probs_MK.shape, generator=generator).to(probs_MK.device)
            hard_MK = drawn_MK < probs_MK
            bits_MK = hard_MK + (probs_MK - probs_MK.detach())
        else:
            hard_MK = probs_MK > 0.5
            bits_MK = hard_MK.to(probs_MK.dtype)
        places_K = torch.arange(self.bits, device=probs_MK.device)
        codes_M = (hard_MK.long() << places_K).sum(dim=1)
        losses = {}
        if self.diversity:
            mean_K = probs_MK.mean(dim=0).clamp(1e-6, 1 - 1e-6)  # where the slope is finite
            entropy_K = torch.special.entr(mean_K) + torch.special.entr(1 - mean_K)
            losses["diversity"] = self.diversity * (1 - entropy_K.mean() / math.log(2))
        return Coded(
            vectors_MD=self.codebook(2 * bits_MK - 1),
            codes_M=codes_M,
            losses=losses,
            code_perplexity=_perplexity(codes_M.unique(return_counts=True)[1]),
        )


def _perplexity(count_V: Tensor) -> Tensor:
    """Return exp(entropy) of a histogram."""
    share_V = count_V.float() / count_V.sum()
    return perplexity(share_V[None]).detach()
