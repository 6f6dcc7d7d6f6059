"""Distances between frames, and rows of them scaled to [0, 1]: what a DTW of queries aligns.

The rest of a distance keeps products in order, so the extremes of a row of distances are those of
its products (:func:`compared`). Scaling takes out what is added to and multiplied by a whole row: of
exp(1 - cosine) - 1 no more than exp(-cosine) need be computed (:func:`unscaled`, :func:`scaling`).

Shape suffixes: R rows (frames of queries), N frames of documents, B documents, T frames of one, D
width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Distance = Literal["cosine_exp", "cosine", "cosine_neg_log", "cityblock", "euclidean"]

LEAST = 1e-9  # a smaller range of a row is divided by this
_LOG2_E = 1 / math.log(2)


def prepare(x: Tensor, distance: Distance, name: str) -> Tensor:
    """Make frames what the distance wants, in place: of unit length for the cosine's.

    Args:
        x: frames (..., D).
        distance: which.
        name: of the frames, for messages.

    Raises:
        ValueError: frames that are not finite, or of zeros where a cosine is wanted.
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    if not bool(norm.isfinite().all()):
        raise ValueError(f"{name} has frames that are not finite: check the upstream")
    if not distance.startswith("cosine"):
        return x
    if bool((norm == 0).any()):
        raise ValueError(
            f"{name} has a frame of zeros, whose cosine is not defined: normalise the features, "
            "or take the distance euclidean"
        )
    return x.div_(norm)


def compared(x_RD: Tensor, y_ND: Tensor, distance: Distance, space: Tensor) -> Tensor:
    """Return what the distances of prepared frames are made of, (R, N), and grow with.

    For cosines it is the product, times a negative number, and lies in ``space``; else the distance.

    Raises:
        ValueError: a product that is not positive, whose logarithm is wanted.
    """
    if distance == "cityblock":
        return torch.cdist(x_RD, y_ND, p=1.0)
    if distance == "euclidean":  # through products it would lose half of the digits
        return torch.cdist(x_RD, y_ND, compute_mode="donot_use_mm_for_euclid_dist")
    rows, columns = len(x_RD), len(y_ND)
    product_RN = space[: rows * columns].view(rows, columns)
    # powers of two take a tenth of the time of powers of e
    alpha = -_LOG2_E if distance == "cosine_exp" else -1.0
    torch.addmm(product_RN, x_RD, y_ND.T, beta=0, alpha=alpha, out=product_RN)
    if distance == "cosine_neg_log" and bool((product_RN >= 0).any()):
        raise ValueError(
            "cosine_neg_log needs frames of positive product, as posteriors have: features "
            "that were normalised have none; take cosine_exp"
        )
    return product_RN


def distances(found: Tensor, distance: Distance) -> Tensor:
    """Make distances, in place, of what :func:`compared` gives."""
    if distance == "cosine_exp":
        return found.add_(_LOG2_E).exp2_().sub_(1)
    if distance == "cosine_neg_log":
        return found.neg_().log_().neg_()
    return found.add_(1) if distance == "cosine" else found


def unscaled(found: Tensor, distance: Distance) -> Tensor:
    """Make of what :func:`compared` gives, in place, what scaled rows are the same of.

    That is the distance, but for cosines without a constant, and of the exponential one over e.
    """
    if distance == "cosine_exp":
        return found.exp2_()
    return found.neg_().log_().neg_() if distance == "cosine_neg_log" else found


def scaling(found_RBT: Tensor, distance: Distance) -> tuple[Tensor, Tensor]:
    """Return what :func:`unscaled` rows are scaled by: less their least value, times a factor.

    Both are (R, B, 1), over each document's frames. The factor of a constant row is 0.
    """
    low_RB1 = unscaled(found_RBT.amin(dim=-1, keepdim=True), distance)
    high_RB1 = unscaled(found_RBT.amax(dim=-1, keepdim=True), distance)
    range_RB1 = high_RB1 - low_RB1
    unit = 1 / math.e if distance == "cosine_exp" else 1.0  # of a distance
    scale_RB1 = high_RB1
    if distance.startswith("cosine"):  # a cosine of about 1 has its rounding errors
        offset = {"cosine_exp": -unit, "cosine": 1.0}.get(distance, 0.0)
        scale_RB1 = (high_RB1 + offset).clamp(min=unit)
    noise_RB1 = 8 * torch.finfo(found_RBT.dtype).eps * scale_RB1
    factor_RB1 = range_RB1.clamp(min=LEAST * unit).reciprocal()
    return low_RB1, factor_RB1.masked_fill_(range_RB1 <= noise_RB1, 0)
