"""data2vec 2.0's masking without masked frames, and the convolutions that fill them in again.

The encoder sees only the frames that are not masked, so that a masked clone of an utterance costs
about half of the utterance; a small decoder puts noise where frames are missing and predicts the
targets there. Baevski, Babu, Hsu and Auli 2022, "Efficient self-supervised learning with
contextualized target representations" (arXiv 2212.07525) section 3; fairseq's ``data2vec2.py``,
``modalities/base.py`` and ``Decoder1d``.

Shape suffixes: R rows (masked clones of utterances), T frames, K visible frames of the row that has
most, D width, M masked frames of all rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Visible(NamedTuple):
    """Which frames of each row an encoder gets to see.

    Attributes:
        index_RK: int64 place of each visible frame, ascending; 0 in the padding.
        padding_RK: false in the padding; None if every row has as many frames.
        visible_RT: the same in place.
    """

    index_RK: Tensor
    padding_RK: Tensor | None
    visible_RT: Tensor

    def distances(self) -> Tensor:
        """Return (R, K, K) int64: place of the key minus place of the query."""
        return self.index_RK[:, None, :] - self.index_RK[:, :, None]

    def take(self, x_RTD: Tensor) -> Tensor:
        """Return the visible frames (R, K, D)."""
        return x_RTD.gather(1, self.index_RK[..., None].expand(-1, -1, x_RTD.shape[-1]))

    def put(self, x_RKD: Tensor, mask_RT: Tensor, noise_MD: Tensor) -> Tensor:
        """Return (R, T, D): visible frames in their places, noise in masked ones, zeros in padding.

        Args:
            x_RKD: visible frames.
            mask_RT: true where a frame is masked.
            noise_MD: what stands in for masked frames, row by row.
        """
        shape = (*self.visible_RT.shape, x_RKD.shape[-1])
        out_RTD = x_RKD.new_zeros(shape)
        frames = x_RKD.flatten(0, 1) if self.padding_RK is None else x_RKD[self.padding_RK]
        out_RTD[self.visible_RT] = frames
        out_RTD[mask_RT] = noise_MD.to(out_RTD)
        return out_RTD


def visible(mask_RT: Tensor, valid_RT: Tensor) -> Visible:
    """Return which frames are neither masked nor padding.

    Args:
        mask_RT: true where a frame is masked; every row leaves a frame (see
            :func:`leave_a_frame`).
        valid_RT: false beyond an utterance's last frame.
    """
    visible_RT = valid_RT & ~mask_RT
    counts_R = visible_RT.sum(dim=1)
    most = int(counts_R.max())
    order_RK = visible_RT.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    padding_RK = torch.arange(most, device=mask_RT.device) < counts_R[:, None]
    index_RK = order_RK.masked_fill(~padding_RK, 0)
    if bool(padding_RK.all()):
        return Visible(index_RK, None, visible_RT)
    return Visible(index_RK, padding_RK, visible_RT)


def leave_a_frame(mask_RT: Tensor, valid_RT: Tensor) -> Tensor:
    """Return the mask without the first frame of rows that it hides whole.

    A span can cover all of a very short utterance, and attention over nothing is NaN.
    """
    whole_R = ~(valid_RT & ~mask_RT).any(dim=1)
    first_T = torch.arange(mask_RT.shape[1], device=mask_RT.device) == 0
    return mask_RT & ~(whole_R[:, None] & first_T)


class ConvDecoder(nn.Module):
    """``depth`` times (grouped convolution, layer norm over channels without weights, GELU), linear.

    A block whose output is as wide as its input adds the latter. Frames of padding count as zeros
    for every convolution, so that a row does not depend on how far it is padded.

    Args:
        dim: width D of input and output.
        width: of the convolutions (fairseq: ``decoder_dim``).
        kernel: taps.
        groups: groups, a divisor of both widths.
        depth: convolutions.
        dropout: of the visible frames, before noise joins them.

    Raises:
        ValueError: no convolution, an even kernel, or groups that do not divide the widths.
    """

    def __init__(
        self, dim: int, *, width: int, kernel: int, groups: int, depth: int, dropout: float
    ) -> None:
        super().__init__()
        if depth < 1 or kernel < 1 or kernel % 2 == 0:
            raise ValueError(
                f"decoder_depth must be at least 1 and decoder_kernel odd, got {depth} and {kernel}"
            )
        if groups < 1 or dim % groups or width % groups:
            raise ValueError(
                f"decoder_groups must divide the widths {dim} and {width}, got {groups}"
            )
        self.width = width
        self.convs = nn.ModuleList(
            nn.Conv1d(width if i else dim, width, kernel, padding=kernel // 2, groups=groups)
            for i in range(depth)
        )
        self.proj = nn.Linear(width, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x_RKD: Tensor,
        seen: Visible,
        mask_RT: Tensor,
        noise_MD: Tensor,
        valid_RT: Tensor | None = None,
    ) -> Tensor:
        """Return predictions (R, T, D).

        Args:
            x_RKD: what the encoder makes of the visible frames.
            seen: which these are.
            mask_RT: true where a frame is masked.
            noise_MD: what stands in for masked frames, row by row.
            valid_RT: false beyond an utterance's last frame; None if none is padded.
        """
        x_RTD = seen.put(self.dropout(x_RKD), mask_RT, noise_MD)
        for conv in self.convs:
            if valid_RT is not None:
                x_RTD = x_RTD * valid_RT[..., None]
            y_RTD = conv(x_RTD.transpose(1, 2)).transpose(1, 2)
            y_RTD = F.gelu(F.layer_norm(y_RTD, (self.width,)))
            x_RTD = x_RTD + y_RTD if x_RTD.shape == y_RTD.shape else y_RTD
        out_RTD: Tensor = self.proj(x_RTD)
        return out_RTD
