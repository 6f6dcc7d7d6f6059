"""InfoNCE, the objective of CPC: tell a later frame from others, for each of several steps ahead.

Van den Oord et al. 2018 (arXiv 1807.03748) equation 4, with the score of ``CPC_audio``: the mean
over channels of prediction times frame. That is the paper's log-bilinear score with its matrix
divided by the number of channels.

Shape suffixes: B utterances, N frames of all utterances laid end to end, A anchors (the frames that
are predicted from) laid end to end, K steps, M negatives per anchor, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Scope = Literal["batch", "utterance"]


@dataclass(frozen=True, kw_only=True)
class FutureContrast:
    """Outcome of the task.

    Attributes:
        loss: scalar, mean cross-entropy over steps and anchors, in nats.
        accuracy_K: detached, for each step the share of anchors whose true frame strictly beats
            every negative.
    """

    loss: Tensor
    accuracy_K: Tensor


def anchor_counts(counts: Sequence[int], steps: int) -> list[int]:
    """Return how many frames of each utterance have ``steps`` frames after them."""
    return [count - steps for count in counts]


def draw_negatives(
    counts: Sequence[int], *, steps: int, n: int, scope: Scope, generator: torch.Generator
) -> Tensor:
    """Draw negatives for each anchor, with replacement; all steps share them.

    ``batch``: an utterance of the batch, each as likely, then one of its frames other than the
    anchor's own place in it; ``utterance``: the same within the anchor's utterance. With equal
    lengths ``batch`` is what ``CPC_audio`` does.

    Args:
        counts: frames of each utterance, each more than ``steps``.
        steps: K.
        n: negatives per anchor M, at least 1.
        scope: where they come from.
        generator: CPU generator.

    Returns:
        int64 (A, M) indices into the frames of all utterances laid end to end, on the CPU.

    Raises:
        ValueError: n < 1, an unknown scope, or an utterance without anchors.
    """
    if n < 1:
        raise ValueError(f"the number of negatives must be at least 1, got {n}")
    if scope not in ("batch", "utterance"):
        raise ValueError(f"negatives_from must be 'batch' or 'utterance', got {scope!r}")
    anchors = anchor_counts(counts, steps)
    if not counts or steps < 1 or min(anchors) < 1:
        raise ValueError(f"every utterance needs more than {steps} frames, got {list(counts)}")
    counts_B = torch.tensor(list(counts))
    first_B = counts_B.cumsum(0) - counts_B
    own_A = torch.arange(len(counts)).repeat_interleave(torch.tensor(anchors))
    place_A1 = torch.cat([torch.arange(count) for count in anchors])[:, None]
    if scope == "batch":
        from_AM = torch.randint(len(counts), (len(own_A), n), generator=generator)
    else:
        from_AM = own_A[:, None].expand(-1, n)
    # float64 has 53 random bits: the floor is uniform to 1e-11 for any utterance
    u_AM = torch.rand(len(own_A), n, generator=generator, dtype=torch.float64)
    offset_AM = 1 + (u_AM * (counts_B[from_AM] - 1)).long()
    return first_B[from_AM] + (place_A1 + offset_AM) % counts_B[from_AM]


def info_nce(
    pred_KAD: Tensor,
    z_ND: Tensor,
    *,
    negatives_AM: Tensor,
    counts: Sequence[int],
    scope: Scope,
) -> FutureContrast:
    """Return the mean over steps and anchors of -log softmax of the true frame's score.

    A negative that is the true frame of a step does not count in that step (``CPC_audio`` lets it
    count, as a second and wrong answer).

    Scores are entries of one product of predictions and frames per step (and utterance, where
    negatives stay within it), so that memory does not grow with M times D; computed in float32.

    Args:
        pred_KAD: predictions of step k = 1 .. K at each anchor.
        z_ND: encoded frames.
        negatives_AM: from :func:`draw_negatives`.
        counts: frames of each utterance, summing to N.
        scope: the one that the negatives were drawn with.

    Raises:
        ValueError: shapes that do not belong together.
    """
    steps, anchors, dim = pred_KAD.shape
    shapes = (sum(anchor_counts(counts, steps)), sum(counts), negatives_AM.shape[0])
    if shapes != (anchors, z_ND.shape[0], anchors) or z_ND.shape[1] != dim:
        raise ValueError(
            f"predictions {tuple(pred_KAD.shape)}, frames {tuple(z_ND.shape)}, negatives "
            f"{tuple(negatives_AM.shape)} and counts adding up to {sum(counts)} do not belong together"
        )
    z_ND = z_ND.float()
    losses, accuracies = [], []
    for step, pred_AD in enumerate(pred_KAD.float(), start=1):
        sums: list[Tensor] = []
        wins: list[Tensor] = []
        for rows, frames, true_A in _blocks(counts, steps, step, scope, z_ND.device):
            picks_AM1 = torch.cat([true_A[:, None], negatives_AM[rows] - frames.start], dim=1)
            # outside autocast's reach: bfloat16 has three digits
            with torch.autocast(z_ND.device.type, enabled=False):
                score_AN = pred_AD[rows] @ z_ND[frames].T / dim
            same_AM1 = picks_AM1 == true_A[:, None]
            same_AM1[:, 0] = False
            score_AM1 = score_AN.gather(1, picks_AM1).masked_fill(same_AM1, float("-inf"))
            answer_A = torch.zeros_like(true_A)
            sums.append(F.cross_entropy(score_AM1, answer_A, reduction="sum"))
            wins.append((score_AM1[:, :1] > score_AM1[:, 1:]).all(dim=1).sum())
        losses.append(torch.stack(sums).sum() / anchors)
        accuracies.append(torch.stack(wins).sum() / anchors)
    return FutureContrast(
        loss=torch.stack(losses).mean(), accuracy_K=torch.stack(accuracies).detach()
    )


def _blocks(
    counts: Sequence[int], steps: int, step: int, scope: Scope, device: torch.device
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield slices of anchors and frames that belong together, and where each anchor's frame is."""
    first = list(accumulate(counts, initial=0))
    anchors = anchor_counts(counts, steps)
    row = list(accumulate(anchors, initial=0))
    if scope == "utterance":
        for index, count in enumerate(anchors):
            true_A = torch.arange(step, step + count, device=device)
            yield slice(row[index], row[index + 1]), slice(first[index], first[index + 1]), true_A
        return
    true = [torch.arange(f + step, f + step + n) for f, n in zip(first[:-1], anchors, strict=True)]
    yield slice(0, row[-1]), slice(0, first[-1]), torch.cat(true).to(device)
