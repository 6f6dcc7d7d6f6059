"""The x-vector: the head of SUPERB's speaker verification.

Linear D -> 512, five time-delay layers (5 frames; 3 frames, every 2nd; 3 frames, every 3rd; 1; 1)
with ReLU and no batch-norm, the last one 1500 wide, mean and standard deviation over time, Linear
3000 -> 512, ReLU, Linear 512 -> 512, ReLU (protocol, section 1.7; Snyder et al. 2018). It is trained
by additive-margin softmax; two utterances are compared by the cosine of what the first of the last
two Linears gives.

Statistics are those of an utterance's own frames. (s3prl takes in the first padded frame too.)

Shape suffixes: B batch, T frames, D width, C speakers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.downstream.core.amsoftmax import AMSoftmax
from mynah.downstream.core.frames import frame_lengths, without_padding
from mynah.downstream.core.pooling import mean_over_time, valid_frames

CONTEXTS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))  # frames and dilation of each layer
MIN_FRAMES = 1 + sum((context - 1) * dilation for context, dilation in CONTEXTS)
"""The receptive field, 15: fewest frames of an item."""


class TDNN(nn.Module):
    """A time-delay layer: one Linear over a few frames at fixed distances, and ReLU.

    Args:
        dim: width of its input.
        out: width of its output.
        context: frames that it sees, first to last.
        dilation: distance between them.
    """

    def __init__(self, dim: int, out: int, *, context: int, dilation: int) -> None:
        super().__init__()
        self.offsets = [i * dilation for i in range(context)]
        self.linear = nn.Linear(dim * context, out)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return (B, T - (context - 1) * dilation, out)."""
        frames = x_BTD.shape[1] - self.offsets[-1]
        spliced = torch.cat([x_BTD[:, at : at + frames] for at in self.offsets], dim=-1)
        return F.relu(self.linear(spliced))


class XVector(nn.Module):
    """Frame layers, statistics, utterance layers, and a column for each training speaker.

    Args:
        dim: width D of the features.
        speakers: number C of training speakers.
        width: width of every layer but one, and of the embedding.
        pooled: width of the last frame layer.

    Attributes:
        minimum_frames: fewest frames of an item, the receptive field (15).
        amsoftmax: the columns.
    """

    def __init__(self, dim: int, speakers: int, *, width: int = 512, pooled: int = 1500) -> None:
        super().__init__()
        self.minimum_frames = MIN_FRAMES
        outs = [width] * (len(CONTEXTS) - 1) + [pooled]
        self.projector = nn.Linear(dim, width)
        self.frames = nn.Sequential(
            *(
                TDNN(width, out, context=context, dilation=dilation)
                for out, (context, dilation) in zip(outs, CONTEXTS, strict=True)
            )
        )
        self.first = nn.Linear(2 * pooled, width)
        self.second = nn.Linear(width, width)
        self.amsoftmax = AMSoftmax(width, speakers)

    def forward(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Return the cosine with each training speaker, (B, C), for ``core.amsoftmax.am_softmax``.

        Args:
            features_BTD: padded frames.
            lengths_B: valid frames of each item.

        Raises:
            ValueError: features that are not frames, lengths that do not fit them, or an item
                shorter than the receptive field.
        """
        hidden_BD = F.relu(self.second(self._first(features_BTD, lengths_B)))
        return self.amsoftmax.cosines(hidden_BD)

    def embed(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Return the embeddings that trials compare, (B, width), each of length 1.

        Raises:
            ValueError: as :meth:`forward`.
        """
        return F.normalize(self._first(features_BTD, lengths_B), dim=1)

    def _first(self, features_BTD: Tensor, lengths_B: Tensor | None) -> Tensor:
        lengths_B = frame_lengths(features_BTD, lengths_B, minimum=self.minimum_frames)
        x_BTD = self.frames(self.projector(without_padding(features_BTD, lengths_B)))
        pooled_BD = statistics(x_BTD, lengths_B - (self.minimum_frames - 1))
        return F.relu(self.first(pooled_BD))


def statistics(x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
    """Return mean and standard deviation over valid frames, (B, 2 D).

    The deviation is the unbiased one (n - 1), as ``torch.std``; that of a single frame is 0. Where
    it is 0 (a ReLU that is dead all the time) its gradient is 0 as well.
    """
    mean_BD = mean_over_time(x_BTD, lengths_B)
    valid_BT1 = valid_frames(lengths_B, x_BTD.shape[1])[:, :, None]
    centred_BTD = (x_BTD - mean_BD[:, None]).masked_fill(~valid_BT1, 0.0)
    degrees_B1 = (lengths_B - 1).clamp_min(1)[:, None].to(x_BTD.dtype)
    variance_BD = centred_BTD.square().sum(dim=1) / degrees_B1
    flat_BD = variance_BD == 0
    deviation_BD = variance_BD.masked_fill(flat_BD, 1.0).sqrt().masked_fill(flat_BD, 0.0)
    return torch.cat([mean_BD, deviation_BD], dim=1)


HEAD = XVector
