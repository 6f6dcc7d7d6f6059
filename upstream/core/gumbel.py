"""Product quantisation with a straight-through Gumbel softmax, as wav2vec 2.0 uses it.

Shape suffixes: M quantised frames, F input width, G groups, V codes per group, C width of one
code, D = G * C width of a quantised vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """What the quantiser makes of a set of frames.

    Attributes:
        vectors_MD: the chosen code of each group, concatenated.
        codes_MG: int64 index of the chosen code in each group.
        probs_GV: mean over the frames of softmax(logits), without noise or temperature: what the
            diversity term looks at.
        perplexity: scalar, exp(entropy) of ``probs_GV`` summed over the groups (1 G .. V G).
        code_perplexity: scalar, the same of the chosen codes' histogram, detached.
    """

    vectors_MD: Tensor
    codes_MG: Tensor
    probs_GV: Tensor
    perplexity: Tensor
    code_perplexity: Tensor


class GumbelQuantizer(nn.Module):
    """G groups of V codes; each frame picks one code per group.

    In training mode the choice is the argmax of (logits + Gumbel noise) / temperature and its
    gradient that of the softmax (straight through); in eval mode the argmax of the logits.
    Source: Baevski et al. 2020 (arXiv 2006.11477) section 2 and fairseq's
    ``GumbelVectorQuantizer`` (``vars`` = ``vectors_GVC`` reshaped to (1, G V, C),
    ``weight_proj`` = ``logits``).

    Attributes:
        temperature: 0-dim float buffer, saved with the weights so that a resumed run goes on
            with the temperature that it had; set it with :meth:`set_temperature`.
    """

    temperature: Tensor

    def __init__(
        self,
        input_dim: int,
        *,
        dim: int,
        groups: int,
        codes: int,
        temperature: float = 2.0,
        shared: bool = False,
    ) -> None:
        """Draw N(0, 1) logit weights, zero biases and U(0, 1) code vectors.

        Args:
            input_dim: width F of the frames.
            dim: width D of a quantised vector, a multiple of ``groups``.
            groups: number of groups G.
            codes: number of codes V per group.
            temperature: initial temperature, positive.
            shared: one set of code vectors for all groups (fairseq: ``combine_groups``).

        Raises:
            ValueError: ``dim`` is not a multiple of ``groups``, or an argument is not positive.
        """
        super().__init__()
        if min(input_dim, dim, groups, codes) < 1 or dim % groups:
            raise ValueError(
                "input_dim, dim, groups and codes must be positive and dim a multiple of groups, "
                f"got input_dim={input_dim}, dim={dim}, groups={groups}, codes={codes}"
            )
        self.groups = groups
        self.codes = codes
        self.logits = nn.Linear(input_dim, groups * codes)
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        self.vectors_GVC = nn.Parameter(torch.rand(1 if shared else groups, codes, dim // groups))
        self.register_buffer("temperature", torch.tensor(0.0))
        self.set_temperature(temperature)

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature of the next training steps.

        Raises:
            ValueError: not positive.
        """
        if not temperature > 0.0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature.fill_(temperature)

    def forward(self, x_MF: Tensor, *, generator: torch.Generator | None = None) -> Quantised:
        """Quantise frames; for wav2vec 2.0 give the masked ones only.

        The choice and the probabilities are computed in float32 whatever the autocast.

        Args:
            x_MF: frames, at least one.
            generator: of the Gumbel noise, on the CPU or with the frames; needed in training mode only.

        Raises:
            ValueError: no frames, or training mode without a generator.
        """
        if x_MF.ndim != 2 or x_MF.shape[0] == 0:
            raise ValueError(f"expected at least one frame, shape (M, F), got {tuple(x_MF.shape)}")
        logits_MGV = self.logits(x_MF).float().unflatten(1, (self.groups, self.codes))
        if self.training:
            if generator is None:
                raise ValueError("training mode draws Gumbel noise and needs a generator")
            noise_MGV = gumbel_noise(logits_MGV.shape, generator=generator).to(logits_MGV.device)
            soft_MGV = ((logits_MGV + noise_MGV) / self.temperature).softmax(dim=-1)
        else:
            soft_MGV = logits_MGV
        codes_MG = soft_MGV.argmax(dim=-1)
        hard_MGV = F.one_hot(codes_MG, self.codes).to(logits_MGV.dtype)
        code_probs_GV = hard_MGV.mean(dim=0)
        choice_MGV = hard_MGV + (soft_MGV - soft_MGV.detach()) if self.training else hard_MGV
        vectors_GVC = self.vectors_GVC.expand(self.groups, -1, -1)
        vectors_MGC = torch.einsum("mgv,gvc->mgc", choice_MGV, vectors_GVC)
        probs_GV = logits_MGV.softmax(dim=-1).mean(dim=0)
        return Quantised(
            vectors_MD=vectors_MGC.flatten(1),
            codes_MG=codes_MG,
            probs_GV=probs_GV,
            perplexity=perplexity(probs_GV),
            code_perplexity=perplexity(code_probs_GV),
        )


def gumbel_noise(shape: torch.Size | tuple[int, ...], *, generator: torch.Generator) -> Tensor:
    """Return float32 samples of the standard Gumbel distribution, on the generator's device."""
    exponential = torch.empty(shape, device=generator.device).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(torch.float32).tiny).log()


def perplexity(probs_GV: Tensor) -> Tensor:
    """Return exp(entropy) of each group's distribution, summed over the groups.

    A code of probability zero contributes nothing and has a finite gradient.
    """
    tiny = torch.finfo(probs_GV.dtype).tiny
    entropy_G = -(probs_GV * probs_GV.clamp_min(tiny).log()).sum(dim=-1)
    return entropy_G.exp().sum()
