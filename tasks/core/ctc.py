"""CTC for K heads at once: losses, greedy decoding with times, whether a target fits its frames.

Shape suffixes: K heads, B batch, T frames, V symbols, U targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BLANK = 0


class Emission(NamedTuple):
    """A symbol of a path and its frames: ``first`` to before ``end``."""

    symbol: int
    first: int
    end: int


def ctc_losses(logits_KBTV: Tensor, lengths_B: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """Return CTC losses (K, B), each divided by the length of its target.

    Their mean over B is what ``torch.nn.CTCLoss(zero_infinity=True)`` returns, whose ``mean``
    divides by target lengths first. A target that does not fit its frames gives 0.

    Args:
        logits_KBTV: before the softmax.
        lengths_B: valid frames.
        targets: symbols of each item, none of them the blank (0), none empty.
    """
    heads, size, top, symbols = logits_KBTV.shape
    log_probs_TNV = logits_KBTV.log_softmax(dim=-1).view(heads * size, top, symbols).transpose(0, 1)
    sizes_B = torch.tensor([len(t) for t in targets])
    flat = torch.tensor([symbol for target in targets for symbol in target])
    losses_N = F.ctc_loss(
        log_probs_TNV,
        flat.repeat(heads).to(logits_KBTV.device),
        lengths_B.cpu().repeat(heads),
        sizes_B.repeat(heads),
        blank=BLANK,
        reduction="none",
        zero_infinity=True,
    )
    return losses_N.view(heads, size) / sizes_B.to(losses_N)


def frames_needed(target: Sequence[int]) -> int:
    """Return the fewest frames that can spell a target: its length and one per repeated symbol."""
    repeats = sum(a == b for a, b in pairwise(target))
    return len(target) + repeats


def greedy(logits_BTV: Tensor, lengths_B: Tensor) -> list[list[int]]:
    """Return each item's best path, repeats merged and blanks dropped."""
    best_BT = logits_BTV.argmax(dim=-1).cpu()
    out = []
    for path_T, length in zip(best_BT, lengths_B.tolist(), strict=True):
        merged = torch.unique_consecutive(path_T[:length])
        out.append([int(s) for s in merged if s != BLANK])
    return out


def greedy_times(logits_BTV: Tensor, lengths_B: Tensor) -> list[list[Emission]]:
    """Return what :func:`greedy` returns, with the frames that each symbol is the best of.

    CTC is not trained to say how long a symbol lasts: most paths are blank between short spikes,
    which lie within the sound or soon after its start.

    Args:
        logits_BTV: before the softmax.
        lengths_B: valid frames.
    """
    best_BT = logits_BTV.argmax(dim=-1).cpu()
    out = []
    for path_T, length in zip(best_BT, lengths_B.tolist(), strict=True):
        symbols, counts = torch.unique_consecutive(path_T[:length], return_counts=True)
        ends = counts.cumsum(0)
        runs = zip(symbols.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True)
        out.append([Emission(*run) for run in runs if run[0] != BLANK])
    return out
