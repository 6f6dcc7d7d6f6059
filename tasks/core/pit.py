"""Permutation-invariant losses of K heads: the order in which a head gives speakers is free.

Utterance-level PIT (Yu et al. 2017, arXiv:1607.00325; Kolbaek et al. 2017, arXiv:1703.06284): every
output is compared with every target over a whole item, and the one-to-one assignment with the lowest
cost counts, for each head and each item by itself.

Shape suffixes: K heads, B batch, T frames, S speakers or sources, F bins.
"""

from __future__ import annotations

from itertools import permutations
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mynah.downstream.core.pooling import valid_frames

MOST = 6  # speakers: 720 orders

Distance = Literal["squared", "absolute"]


def assign(cost_KBSS: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cost of the best order, (K, B), and that order, (K, B, S).

    Args:
        cost_KBSS: cost of output i (third dimension) against target j (fourth).

    Returns:
        The cost, averaged over outputs, and the target of each output; of equal orders the first in
        lexicographic order.

    Raises:
        ValueError: not as many outputs as targets, or more than ``MOST``.
    """
    size = cost_KBSS.shape[-1]
    if cost_KBSS.ndim != 4 or cost_KBSS.shape[-2] != size:
        raise ValueError(f"expected costs (K, B, S, S), got shape {tuple(cost_KBSS.shape)}")
    if not 1 <= size <= MOST:
        raise ValueError(f"1 to {MOST} outputs can be put in order, got {size}")
    orders_PS = torch.tensor(list(permutations(range(size))), device=cost_KBSS.device)
    rows_S = torch.arange(size, device=cost_KBSS.device)
    totals_KBP = cost_KBSS[:, :, rows_S, orders_PS].mean(dim=-1)
    lowest_KB, chosen_KB = totals_KBP.min(dim=-1)
    return lowest_KB, orders_PS[chosen_KB]


def bce_costs(logits_KBTS: Tensor, target_BTS: Tensor, lengths_B: Tensor) -> Tensor:
    """Return binary cross-entropies (K, B, S, S) of outputs with targets, summed over valid frames.

    ``softplus(x) - x y`` summed over time is a sum less a product of matrices, so all pairs cost
    little more than one.

    Args:
        logits_KBTS: outputs of K heads; frames after an item's length are not looked at.
        target_BTS: 0 or 1.
        lengths_B: valid frames of each item.
    """
    valid_BT1 = valid_frames(lengths_B.to(logits_KBTS.device), logits_KBTS.shape[2])[:, :, None]
    logits_KBTS = logits_KBTS.masked_fill(~valid_BT1, 0.0)
    off_KBS = (F.softplus(logits_KBTS) * valid_BT1).sum(dim=2)
    target_BTS = (target_BTS.to(logits_KBTS.device) * valid_BT1).to(logits_KBTS.dtype)
    on_KBSS = torch.einsum("kbti,btj->kbij", logits_KBTS, target_BTS)
    return off_KBS[..., None] - on_KBSS


def pit_bce(logits_KBTS: Tensor, target_BTS: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return permutation-invariant binary cross-entropies and the orders.

    Args:
        logits_KBTS: outputs of K heads.
        target_BTS: 0 or 1, whether each speaker speaks.
        lengths_B: valid frames of each item.

    Returns:
        (K, B) sums over valid frames of the mean over speakers, and the target of each output
        (K, B, S).

    Raises:
        ValueError: as :func:`assign`, or shapes that do not fit.
    """
    if logits_KBTS.shape[1:] != target_BTS.shape:
        raise ValueError(
            f"logits {tuple(logits_KBTS.shape)} do not fit targets {tuple(target_BTS.shape)}"
        )
    return assign(bce_costs(logits_KBTS, target_BTS, lengths_B))


def pit_spectra(
    estimate_KBTSF: Tensor,
    target_BTSF: Tensor,
    lengths_B: Tensor,
    *,
    distance: Distance = "squared",
) -> tuple[Tensor, Tensor]:
    """Return permutation-invariant distances between spectra and the orders.

    Args:
        estimate_KBTSF: masked spectra of K heads.
        target_BTSF: spectra of the sources.
        lengths_B: valid frames of each item.
        distance: ``squared`` or ``absolute`` differences.

    Returns:
        (K, B) sums over valid frames and bins, averaged over sources, and the target of each output
        (K, B, S).

    Raises:
        ValueError: as :func:`assign`, an unknown distance, or shapes that do not fit.
    """
    if estimate_KBTSF.shape[1:] != target_BTSF.shape:
        raise ValueError(
            f"estimates {tuple(estimate_KBTSF.shape)} do not fit targets {tuple(target_BTSF.shape)}"
        )
    if distance not in ("squared", "absolute"):
        raise ValueError(f"the distance is 'squared' or 'absolute', got {distance!r}")
    device = estimate_KBTSF.device
    padding_BT11 = ~valid_frames(lengths_B.to(device), estimate_KBTSF.shape[2])[:, :, None, None]
    columns = []
    for target_BTF in target_BTSF.to(device).unbind(dim=2):
        difference = (estimate_KBTSF - target_BTF[None, :, :, None]).masked_fill(padding_BT11, 0.0)
        apart = difference.square() if distance == "squared" else difference.abs()
        columns.append(apart.sum(dim=(2, 4)))
    return assign(torch.stack(columns, dim=-1))
