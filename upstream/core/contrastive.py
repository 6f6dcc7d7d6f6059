"""The contrastive task of wav2vec 2.0: tell the true code from those of other masked frames.

Shape suffixes: B utterances, M masked frames of all utterances laid end to end, K negatives per
frame, D width, G groups, V codes per group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mynah.upstream.core.gumbel import perplexity
from mynah.upstream.core.select import sent


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Outcome of the contrastive task.

    Attributes:
        loss: scalar, mean cross-entropy over the masked frames, in nats.
        accuracy: detached scalar, share of frames whose positive strictly beats every negative
            that differs from it, among frames that have such a negative.
    """

    loss: Tensor
    accuracy: Tensor


def sample_negatives(counts_B: Tensor, n: int, *, generator: torch.Generator) -> Tensor:
    """Draw n negatives for each masked frame, uniformly from its utterance's other masked frames.

    Drawn with replacement, as in Baevski et al. 2020 (arXiv 2006.11477) section 3.2 and fairseq.
    A frame that is its utterance's only masked one has no other: it gets itself, whose code equals
    the positive's, so that :func:`contrastive_loss` leaves it out.

    Args:
        counts_B: number of masked frames of each utterance (0 allowed).
        n: number of negatives K, at least 1.
        generator: decides the device too.

    Returns:
        int64 (M, K) indices into the masked frames of all utterances laid end to end, on the
        generator's device.

    Raises:
        ValueError: n < 1, or a negative count.
    """
    if n < 1:
        raise ValueError(f"the number of negatives must be at least 1, got {n}")
    counts_B_cpu = counts_B.cpu()
    if counts_B_cpu.ndim != 1 or (counts_B_cpu < 0).any():
        raise ValueError(f"counts_B must hold one count >= 0 per utterance, got {counts_B}")
    device = generator.device
    first_B = counts_B_cpu.cumsum(0) - counts_B_cpu
    first_M1 = sent(first_B.repeat_interleave(counts_B_cpu)[:, None], device)
    others_M1 = sent((counts_B_cpu - 1).repeat_interleave(counts_B_cpu)[:, None], device)
    total = first_M1.shape[0]
    own_M1 = torch.arange(total, device=device)[:, None] - first_M1
    # float64 has 53 random bits: the floor is uniform to 1e-11 for any utterance
    u_MK = torch.rand(total, n, generator=generator, dtype=torch.float64, device=device)
    drawn_MK = (u_MK * others_M1).long()
    drawn_MK = drawn_MK + (drawn_MK >= own_M1).long()
    drawn_MK = torch.where(others_M1 > 0, drawn_MK, own_M1)
    return drawn_MK + first_M1


def contrastive_loss(
    pred_MD: Tensor,
    target_MD: Tensor,
    *,
    negatives_MK: Tensor,
    codes_MG: Tensor,
    counts_B: Tensor,
    temperature: float = 0.1,
) -> Contrast:
    """Return -log softmax of the positive's cosine among positive and negatives, averaged.

    A negative whose *codes* equal the positive's gets the logit -inf: comparing indices instead of
    vectors keeps rounding out of the comparison. A frame without any valid negative has nothing to
    tell apart and a loss of zero.

    The cosines of an utterance are one product of its predictions and its targets from which the
    negatives' entries are picked, so memory is M_b ** 2 and not M_b K D.

    Source: Baevski et al. 2020 (arXiv 2006.11477) equation 3; computed in float32.

    Args:
        pred_MD: context network's prediction for each masked frame.
        target_MD: projected quantised vector of each masked frame.
        negatives_MK: from :func:`sample_negatives`; each points into its own utterance.
        codes_MG: chosen code of each masked frame in each group.
        counts_B: number of masked frames of each utterance, summing to M.
        temperature: divisor of the cosines.

    Raises:
        ValueError: shapes that do not belong together, or no masked frame at all.
    """
    m = pred_MD.shape[0]
    if m == 0:
        raise ValueError("no masked frame: the batch's utterances are too short for the mask")
    counts = counts_B.tolist()
    shapes = (target_MD.shape, negatives_MK.shape[:1], codes_MG.shape[:1], sum(counts))
    if shapes != (pred_MD.shape, (m,), (m,), m):
        raise ValueError(
            f"predictions {tuple(pred_MD.shape)}, targets {tuple(target_MD.shape)}, negatives "
            f"{tuple(negatives_MK.shape)}, codes {tuple(codes_MG.shape)} and counts adding up to "
            f"{sum(counts)} do not belong together"
        )
    pred_MD = F.normalize(pred_MD.float(), dim=-1)
    target_MD = F.normalize(target_MD.float(), dim=-1)
    # outside autocast's reach: bfloat16 cosines divided by 0.1 are too coarse
    with torch.autocast(pred_MD.device.type, enabled=False):
        cosines_M1K = _cosines(pred_MD, target_MD, negatives_MK, [c for c in counts if c])
    logits_M1K = cosines_M1K / temperature
    same_MK = (codes_MG[negatives_MK] == codes_MG[:, None]).all(dim=-1)
    same_M1K = F.pad(same_MK, (1, 0), value=False)
    logits_M1K = logits_M1K.masked_fill(same_M1K, float("-inf"))
    positive = torch.zeros(m, dtype=torch.int64, device=logits_M1K.device)
    loss = F.cross_entropy(logits_M1K, positive)
    with torch.no_grad():
        decided_M = ~same_MK.all(dim=1)
        wins_M = (logits_M1K[:, :1] > logits_M1K[:, 1:]).all(dim=1) & decided_M
        accuracy = wins_M.sum() / decided_M.sum().clamp_min(1)
    return Contrast(loss=loss, accuracy=accuracy)


def _cosines(pred_MD: Tensor, target_MD: Tensor, negatives_MK: Tensor, counts: list[int]) -> Tensor:
    """Return each prediction's products with its own target and its negatives, (M, 1 + K)."""
    own_M1 = torch.arange(len(pred_MD), device=pred_MD.device)[:, None]
    picks_M1K = torch.cat([own_M1, negatives_MK], dim=1)
    if len(set(counts)) == 1:  # as many in each utterance: one batched product
        batch, count = len(counts), counts[0]
        first_B11 = count * torch.arange(batch, device=pred_MD.device)[:, None, None]
        products_Bmm = pred_MD.view(batch, count, -1) @ target_MD.view(batch, count, -1).mT
        picks_BmK = picks_M1K.view(batch, count, -1) - first_B11
        return products_Bmm.gather(2, picks_BmK).flatten(0, 1)
    found, first = [], 0
    for count in counts:
        block = slice(first, first + count)
        products_mm = pred_MD[block] @ target_MD[block].T
        found.append(products_mm.gather(1, picks_M1K[block] - first))
        first += count
    return torch.cat(found)


def diversity_loss(probs_GV: Tensor) -> Tensor:
    """Return (G V - sum of the groups' perplexities) / (G V): 0 if all codes are used equally.

    Source: fairseq's form of equation 4 of Baevski et al. 2020 (arXiv 2006.11477), which takes the
    exponential of the entropy.

    Args:
        probs_GV: mean probabilities over the masked frames (``Quantised.probs_GV``).
    """
    total = probs_GV.numel()
    return (total - perplexity(probs_GV)) / total
