"""What data2vec and DinoSR share: targets from a Transformer that follows its student.

The teacher is a copy of the student's encoder. It hears what the student hears, without mask and
without dropout; its feed-forward outputs, normalised over time, are what the student predicts.

Baevski et al. 2022, data2vec (arXiv 2202.03555) section 3.3; Liu et al. 2023, DinoSR (arXiv
2305.10005) section 3.

Shape suffixes: B batch, T frames, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mynah.upstream.core.ema import ema_update
from mynah.upstream.core.transformer import Encoder


@torch.no_grad()
def layer_targets(
    teacher: Encoder, x_BTD: Tensor, valid_BT: Tensor | None, *, top: int
) -> list[Tensor]:
    """Return the normalised feed-forward outputs of the teacher's last layers, float32 (B, T, D).

    They are taken before dropout and residual sum (fairseq: ``layer_results[2]``).

    Args:
        teacher: in eval mode.
        x_BTD: projected frames, before dropout.
        valid_BT: false beyond an utterance's last frame; None if none is padded.
        top: how many layers.
    """
    fed: list[Tensor] = []
    teacher(x_BTD, valid_BT, fed=fed)
    return [instance_norm(fed_BTD.float(), valid_BT) for fed_BTD in fed[-top:]]


def instance_norm(x_BTD: Tensor, valid_BT: Tensor | None = None, *, eps: float = 1e-5) -> Tensor:
    """Return frames with mean 0 and variance 1 per utterance and channel, over its true frames.

    fairseq counts padding as frames; here an utterance's targets do not depend on its neighbours.
    Padding comes out as zeros.

    Args:
        x_BTD: float32.
        valid_BT: false beyond an utterance's last frame; None if none is padded.
        eps: added to the (biased) variance.
    """
    if valid_BT is None:
        variance_B1D, mean_B1D = torch.var_mean(x_BTD, dim=1, correction=0, keepdim=True)
        return (x_BTD - mean_B1D) * (variance_B1D + eps).rsqrt()
    valid_BT1 = valid_BT[..., None]
    counts_B11 = valid_BT1.sum(dim=1, keepdim=True)
    mean_B1D = (x_BTD * valid_BT1).sum(dim=1, keepdim=True) / counts_B11
    centred_BTD = (x_BTD - mean_B1D) * valid_BT1
    variance_B1D = centred_BTD.square().sum(dim=1, keepdim=True) / counts_B11
    return centred_BTD * (variance_B1D + eps).rsqrt()


def follow(teacher: Encoder, student: Encoder, decay: float, *, copy_position: bool) -> None:
    """Move the teacher towards the student; with decay 1 it rests.

    Args:
        teacher: changed in place.
        student: what it is a copy of.
        decay: share of itself that it keeps.
        copy_position: whether the position embedding is the student's own (fairseq:
            ``ema_layers_only``).

    Raises:
        ValueError: decay is not between 0 and 1.
    """
    if decay == 1:
        return
    ema_update(teacher, student, decay)
    if copy_position and teacher.pos is not None and student.pos is not None:
        ema_update(teacher.pos, student.pos, 0.0)


def span(length: float, total_steps: int) -> float:
    """Return a length in steps: up to 1 it is a share of the run, above it counts steps."""
    return length * total_steps if length <= 1 else length


def linear_decay(step: int, total_steps: int, *, start: float, end: float, length: float) -> float:
    """Return a decay that moves evenly from ``start`` to ``end`` and stays there.

    Args:
        step: steps done.
        total_steps: of the run.
        start: decay of step 0.
        end: decay from ``length`` on.
        length: see :func:`span`.
    """
    steps = span(length, total_steps)
    return end if step >= steps else end + (start - end) * (1 - step / steps)


def exponential_decay(step: int, total_steps: int, *, start: float, timescale: float) -> float:
    """Return SpidR's decay 1 - (1 - start) exp(-step / timescale), exactly 1 once it is that close.

    Poli et al. 2025, SpidR (arXiv 2512.20308); below a distance of 1e-7 from 1 the teacher rests.

    Args:
        step: steps done.
        total_steps: of the run.
        start: decay of step 0.
        timescale: see :func:`span`.
    """
    rest = (1 - start) * math.exp(-step / span(timescale, total_steps))
    return 1 - rest if rest > 1e-7 else 1.0
