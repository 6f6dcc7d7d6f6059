"""Norms of single frames that padding must not touch: channel norm, and batch norm over true frames.

* :class:`ChannelNorm` is the layer norm over channels of modified CPC (Riviere et al. 2020,
  arXiv 2002.02848, and ``CPC_audio``): its variance is the unbiased one.
* Batch norm takes its statistics over frames. In a padded batch only the utterances' own frames may
  count: :func:`on_frames` applies a function to these alone, :func:`valid_frames` says which they are.
* :func:`fold` merges what batch norm does in eval mode into the layer before it.

Shape suffixes: B batch, T frames, N frames, C channels, O outputs, X the rest of a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.select import counted


class ChannelNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) over the channels of a frame, the variance unbiased.

    That is a layer norm with eps (C - 1) / C, scaled by sqrt((C - 1) / C), and computed as such.

    Args:
        channels: C, at least 2.
        eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        if channels < 2:
            raise ValueError(f"an unbiased variance needs at least 2 channels, got {channels}")
        self.share = (channels - 1) / channels
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised (..., C) in the dtype of ``x``."""
        weight_C = (self.weight * self.share**0.5).to(x.dtype)
        bias_C = self.bias.to(x.dtype)
        return F.layer_norm(x, weight_C.shape, weight_C, bias_C, self.eps * self.share)


def valid_frames(counts: Sequence[int], device: torch.device) -> Tensor | None:
    """Return which frames of a padded batch are true, bool (B, T); None if all are."""
    if len(set(counts)) == 1:
        return None
    counts_B = counted(counts, device)
    return torch.arange(max(counts), device=device) < counts_B[:, None]


def on_frames(
    function: Callable[[Tensor], Tensor], x_BTC: Tensor, valid_BT: Tensor | None
) -> Tensor:
    """Apply a function of frames (N, C) to the true frames of a padded batch; the others become 0.

    Args:
        function: maps (N, C) to (N, O).
        x_BTC: padded frames.
        valid_BT: from :func:`valid_frames`.
    """
    if valid_BT is None:
        rows_NO = function(x_BTC.flatten(0, 1))
        return rows_NO.reshape(*x_BTC.shape[:2], rows_NO.shape[-1])
    y_NO = function(x_BTC[valid_BT])
    y_BTO = y_NO.new_zeros(*valid_BT.shape, y_NO.shape[-1])
    y_BTO[valid_BT] = y_NO
    return y_BTO


def fold(weight_OX: Tensor, bias_O: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a layer that does what it and the batch norm after it do in eval mode.

    Args:
        weight_OX: of a linear layer or a convolution, outputs first.
        bias_O: its bias, or None.
        norm: what comes after it; anything but batch norm leaves the layer as it is.
    """
    if not isinstance(norm, nn.BatchNorm1d):
        return weight_OX, bias_O
    mean_O, variance_O = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale_O = norm.weight.double() / (variance_O.double() + norm.eps).sqrt()
    centre_O = mean_O.double() if bias_O is None else mean_O.double() - bias_O.double()
    shift_O = norm.bias.double() - centre_O * scale_O
    scale_OX = scale_O.view(-1, *[1] * (weight_OX.ndim - 1))
    return (weight_OX.double() * scale_OX).float(), shift_O.float()
