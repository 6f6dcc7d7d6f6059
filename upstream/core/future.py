"""Telling the frames that follow from frames drawn at random, one yes or no at a time.

From the context c_t, one affine map for each of K steps predicts the frames t + o, ..., t + o + K - 1
where the offset o skips those that share samples with frame t. The score of a frame is its product
with the prediction; the true frame is to score high and each of n others of the utterance low:

    sum over t, k of  -log sigmoid(z_{t+o+k} . h_k(c_t)) - sum over n of log sigmoid(-z_n . h_k(c_t))

Schneider et al. 2019 (arXiv 1904.05862) equation 2, in fairseq's form: lambda is the number of
others, the maps share one bias, and the others are drawn once for each true frame, for all steps.

fairseq means to leave the true frame out of the draw, but the two reshapes around it disagree about
the order of frames and others, so that the true frame is among them once in T; here it never is.

Shape suffixes: B batch, T frames, K steps, D width, N others of a frame, X candidates (true, others).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.contrastive import sample_negatives
from mynah.upstream.core.select import counted


@dataclass(frozen=True, kw_only=True)
class FutureLoss:
    """Outcome of the task.

    Attributes:
        loss: scalar, the sum above divided by the number of true frames, in nats.
        accuracy: detached scalar, share of the true frames that score above all their others.
        count: number of true frames.
    """

    loss: Tensor
    accuracy: Tensor
    count: int


class FuturePredictor(nn.Module):
    """K affine maps with one bias (fairseq: ``project_to_steps``, a transposed convolution).

    Args:
        dim: width D of context and frames.
        steps: number of maps K.
        dropout: of the predictions.
    """

    def __init__(self, dim: int, steps: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        bound = (dim * steps) ** -0.5  # that of torch's transposed convolution
        self.weight_KDD = nn.Parameter(torch.empty(steps, dim, dim).uniform_(-bound, bound))
        self.bias_D = nn.Parameter(torch.empty(dim).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)

    def forward(self, context_BTD: Tensor) -> Tensor:
        """Return the predictions (B, T, K, D)."""
        steps, dim, _ = self.weight_KDD.shape
        flat_BTX = F.linear(context_BTD, self.weight_KDD.flatten(0, 1), self.bias_D.repeat(steps))
        y_BTKD: Tensor = self.dropout(flat_BTX).unflatten(2, (steps, dim))
        return y_BTKD


def draw_others(counts: Sequence[int], n: int, *, generator: torch.Generator) -> Tensor:
    """Draw n other frames of its utterance for each frame, uniformly and with replacement.

    Args:
        counts: frames of each utterance.
        n: how many, at least 1.
        generator: CPU generator.

    Returns:
        int64 (B, T, N) frame numbers on the CPU; 0 beyond an utterance's end. The only frame of an
        utterance gets itself, which no prediction ever reaches.
    """
    counts_B = torch.tensor(list(counts))
    first_B = counts_B.cumsum(0) - counts_B
    flat_MN = sample_negatives(counts_B, n, generator=generator)
    flat_MN = flat_MN - first_B.repeat_interleave(counts_B)[:, None]
    return nn.utils.rnn.pad_sequence(flat_MN.split(list(counts)), batch_first=True)


def future_loss(
    predicted_BTKD: Tensor,
    frames_BTD: Tensor,
    others_BTN: Tensor,
    counts: Sequence[int],
    *,
    offset: int,
) -> FutureLoss:
    """Return the loss at the top of this module.

    The scores of one step are one product of all predictions and all frames of an utterance, from
    which the candidates' entries are picked: cheaper than gathering vectors.

    Args:
        predicted_BTKD: from :class:`FuturePredictor`.
        frames_BTD: the frames to tell apart.
        others_BTN: from :func:`draw_others`.
        counts: frames of each utterance.
        offset: o, at least 1.

    Raises:
        ValueError: an offset below 1, or no utterance longer than the offset.
    """
    if offset < 1:
        raise ValueError(f"offset must be at least 1 frame, got {offset}")
    if max(counts) <= offset:
        raise ValueError(
            f"every utterance of the batch has at most {offset} frames, too few to predict one "
            f"{offset} frames ahead: leave out the shortest"
        )
    device = frames_BTD.device
    counts_B = counted(counts, device)
    frame_T = torch.arange(frames_BTD.shape[1], device=device)
    valid_BT = frame_T < counts_B[:, None]
    true_BT1 = frame_T[None, :, None].expand(len(counts), -1, 1)
    picks_BTX = torch.cat([true_BT1, others_BTN.to(device)], dim=2)
    total = frames_BTD.new_zeros((), dtype=torch.float32)
    won = torch.zeros((), dtype=torch.int64, device=device)
    count = 0
    for step in range(predicted_BTKD.shape[2]):
        shift = offset + step
        if shift >= max(counts):
            break
        scores_BTT = predicted_BTKD[:, :-shift, step] @ frames_BTD.transpose(1, 2)
        scores_BTX = scores_BTT.gather(2, picks_BTX[:, shift:]).float()
        scores_MX = scores_BTX[valid_BT[:, shift:]]
        true_M1, others_MN = scores_MX[:, :1], scores_MX[:, 1:]
        total = total + F.softplus(-true_M1).sum() + F.softplus(others_MN).sum()
        won += (true_M1 > others_MN).all(dim=1).sum()
        count += sum(max(0, n - shift) for n in counts)
    return FutureLoss(loss=total / count, accuracy=won.detach() / count, count=count)


def blind_loss(n: int) -> float:
    """Return the loss of one true frame and n others where the scores know nothing of the audio.

    The best such score says that one in n + 1 is true.
    """
    return math.log(n + 1) + n * math.log((n + 1) / n)
