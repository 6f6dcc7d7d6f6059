"""Masks on a spectrogram by bidirectional LSTMs: the head of SUPERB-SG's enhancement and separation.

Three layers of 2 x 896 LSTM units with dropout 0.5 after each, and for every source a Linear to the
bins of the spectrogram and ReLU (protocol, sections 1.13 and 1.14; there is no projector). The
second version of the two tasks has 256 units, dropout 0.1 and a sigmoid; its scores are another
scale.

Shape suffixes: B batch, T frames, D width, S sources, F bins.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mynah.downstream.core.frames import frame_lengths, without_padding
from mynah.downstream.core.recurrent import BLSTM


class MaskRNN(nn.Module):
    """Bidirectional LSTM layers and one mask for each source.

    Args:
        dim: width D of the features.
        bins: frequency bins F of the spectrogram.
        sources: number of sources S, 1 for enhancement.
        hidden: LSTM units of each direction.
        layers: number of LSTM layers.
        dropout: after each layer.
        activation: ``relu``, or ``sigmoid`` for masks within (0, 1).

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(
        self,
        dim: int,
        bins: int = 257,
        *,
        sources: int = 1,
        hidden: int = 896,
        layers: int = 3,
        dropout: float = 0.5,
        activation: Literal["relu", "sigmoid"] = "relu",
    ) -> None:
        super().__init__()
        if activation not in ("relu", "sigmoid"):
            raise ValueError(f"the activation is 'relu' or 'sigmoid', got {activation!r}")
        self.activation = torch.relu if activation == "relu" else torch.sigmoid
        widths = [dim] + [2 * hidden] * layers
        self.layers = nn.ModuleList(BLSTM(width, hidden) for width in widths[:-1])
        self.dropout = nn.Dropout(dropout)
        self.masks = nn.ModuleList(nn.Linear(widths[-1], bins) for _ in range(sources))

    def forward(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Return masks (B, T, S, F), zero after each item's length.

        Args:
            features_BTD: padded frames, as many as the spectrogram has.
            lengths_B: valid frames of each item.

        Raises:
            ValueError: features that are not frames, or lengths that do not fit them.
        """
        lengths_B = frame_lengths(features_BTD, lengths_B)
        x_BTD = without_padding(features_BTD, lengths_B)
        for layer in self.layers:
            x_BTD = self.dropout(layer(x_BTD, lengths_B))
        masks_BTSF = torch.stack([self.activation(mask(x_BTD)) for mask in self.masks], dim=2)
        return without_padding(masks_BTSF.flatten(2), lengths_B).view_as(masks_BTSF)


HEAD = MaskRNN
