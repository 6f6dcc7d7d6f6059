"""Additive-margin softmax: the loss of speaker verification.

``-log(e^{s (cos_y - m)} / (e^{s (cos_y - m)} + sum_{j != y} e^{s cos_j}))`` with the cosines between
an embedding and each speaker's column (Wang et al. 2018, arXiv 1801.05599; SUPERB, protocol section
1.7: s = 30, m = 0.4). It is a cross-entropy over ``s (cos - m [j = y])`` and computed as one, so no
exponential can overflow.

Shape suffixes: B batch, D width, C speakers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def am_softmax(
    cosines: Tensor, speakers: Tensor, *, scale: float = 30.0, margin: float = 0.4
) -> Tensor:
    """Return the loss of each item; any leading shape.

    Args:
        cosines: (..., C), cosine of each item with each speaker.
        speakers: (...), true speaker of each item, 0 to C - 1.
        scale: s.
        margin: m.

    Raises:
        ValueError: shapes that do not fit, or a speaker that does not exist.
    """
    if cosines.shape[:-1] != speakers.shape:
        raise ValueError(
            f"{tuple(cosines.shape)} cosines need speakers of shape {tuple(cosines.shape[:-1])}, "
            f"got {tuple(speakers.shape)}"
        )
    count = cosines.shape[-1]
    if bool(((speakers < 0) | (speakers >= count)).any()):
        low, high = int(speakers.min()), int(speakers.max())
        raise ValueError(f"speakers must be 0 to {count - 1}, got {low} to {high}")
    margins = margin * F.one_hot(speakers, count).to(cosines.dtype)
    logits = scale * (cosines - margins)
    each = F.cross_entropy(logits.reshape(-1, count), speakers.reshape(-1), reduction="none")
    return each.view(speakers.shape)


class AMSoftmax(nn.Module):
    """One column for each speaker, Xavier-normal at first.

    Args:
        dim: width D of the embeddings.
        speakers: number of speakers C.
    """

    def __init__(self, dim: int, speakers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, speakers))
        nn.init.xavier_normal_(self.weight)

    def cosines(self, x_BD: Tensor) -> Tensor:
        """Return the cosine of each embedding with each speaker, (B, C)."""
        return F.normalize(x_BD, dim=1) @ F.normalize(self.weight, dim=0)
