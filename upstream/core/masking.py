"""Span masks over frames, as wav2vec 2.0 and its descendants draw them.

Shape suffixes: B batch, T frames.
"""

from __future__ import annotations

import torch
from torch import Tensor


def span_mask(
    lengths_B: Tensor,
    *,
    prob: float,
    length: int,
    generator: torch.Generator,
    min_spans: int = 2,
    same_count: bool = True,
) -> Tensor:
    """Draw fairseq's static span mask.

    An utterance of T frames gets ``floor(prob * T / length + u)`` spans, u uniform in [0, 1) and
    drawn anew for each utterance, but at least ``min_spans``; their starts are drawn without
    replacement from [0, T - length) and the spans may overlap, so that the expected masked share
    of a long utterance is 1 - (1 - prob / length) ** length. Where T is too short for that
    (T - length <= spans) the starts come from [0, spans + 1) and what sticks out is cut.

    Source: Baevski et al. 2020 (arXiv 2006.11477) section 3.1 and fairseq's
    ``compute_mask_indices`` (mask type ``static``); random numbers differ from fairseq's numpy.

    Args:
        lengths_B: number of frames of each utterance, at least 1.
        prob: ``mask_prob``, the share that would be masked if no spans overlapped.
        length: ``mask_length``, frames per span.
        generator: CPU generator, the only source of randomness.
        min_spans: fewest spans per utterance.
        same_count: reduce every utterance to the smallest masked count of the batch by unmasking
            random single frames (fairseq's ``require_same_masks``). It makes sense for crops of
            equal length only: one very short utterance would empty the masks of all others.

    Returns:
        bool (B, T), T the longest length, true where masked, false beyond each length; on the
        device of ``lengths_B``.

    Raises:
        ValueError: an argument out of range.
    """
    if not 0.0 < prob <= 1.0:
        raise ValueError(f"prob must be in (0, 1], got {prob}")
    if length < 1 or min_spans < 0:
        raise ValueError(
            f"length must be >= 1 and min_spans >= 0, got length={length}, min_spans={min_spans}"
        )
    if lengths_B.ndim != 1 or lengths_B.numel() == 0 or int(lengths_B.min()) < 1:
        raise ValueError(
            f"lengths_B must hold one positive frame count per utterance, got {lengths_B}"
        )
    sizes = [int(t) for t in lengths_B]
    rounding = torch.rand(len(sizes), generator=generator).tolist()
    mask_BT = torch.zeros(len(sizes), max(sizes), dtype=torch.bool)
    for row, (size, u) in enumerate(zip(sizes, rounding, strict=True)):
        spans = max(min_spans, int(prob * size / length + u))
        span_range = size - length if size - length > spans else spans + 1
        starts = torch.randperm(span_range, generator=generator)[:spans]
        frames = (starts[:, None] + torch.arange(length)).reshape(-1)
        mask_BT[row, frames[frames < size]] = True
    if same_count:
        _equalise(mask_BT, generator)
    return mask_BT.to(lengths_B.device)


def _equalise(mask_BT: Tensor, generator: torch.Generator) -> None:
    """Unmask random frames in place until every row has as many as the row with the fewest."""
    counts = mask_BT.sum(dim=1).tolist()
    target = min(counts)
    for row, count in enumerate(counts):
        if count > target:
            drop = torch.randperm(count, generator=generator)[: count - target]
            mask_BT[row, mask_BT[row].nonzero().squeeze(1)[drop]] = False
