"""Bidirectional LSTMs at every frame, for CTC: the head of SUPERB's ASR and SF and of OOD-ASR.

Linear D -> 1024, two layers of 2 x 1024 LSTM units with dropout 0.2 after each, Linear -> symbols
(protocol, sections 1.2, 1.3, 1.10). OOD-ASR adds a Linear with tanh after each layer and keeps only
every second frame of 10 ms upstreams. In training mode SpecAug disturbs the features first.

Shape suffixes: B batch, T frames, D width, V symbols including the blank.
"""

from __future__ import annotations

from torch import Tensor, nn

from mynah.downstream.core.frames import frame_lengths, without_padding
from mynah.downstream.core.recurrent import BLSTM
from mynah.downstream.core.specaug import SpecAug

SUPERB_SPECAUG = SpecAug()


class BLSTMCTC(nn.Module):
    """Projector, bidirectional LSTM layers and classifier.

    Args:
        dim: width D of the features.
        symbols: number of outputs V, the blank included.
        projection: width of the projector.
        hidden: LSTM units of each direction.
        layers: number of LSTM layers.
        dropout: after each layer.
        projections: a Linear of the same width and tanh after each layer (OOD-ASR).
        stride_factor: frames of which the first is kept (OOD-ASR: 320 samples over the upstream's
            stride).
        specaug: what disturbs the features in training mode; None for nothing.

    Attributes:
        minimum_frames: fewest frames of an item.

    Raises:
        ValueError: a stride factor below 1.
    """

    def __init__(
        self,
        dim: int,
        symbols: int,
        *,
        projection: int = 1024,
        hidden: int = 1024,
        layers: int = 2,
        dropout: float = 0.2,
        projections: bool = False,
        stride_factor: int = 1,
        specaug: SpecAug | None = SUPERB_SPECAUG,
    ) -> None:
        super().__init__()
        if stride_factor < 1:
            raise ValueError(f"the stride factor must be at least 1, got {stride_factor}")
        self.minimum_frames = self.stride_factor = stride_factor
        self.specaug = specaug
        self.projector = nn.Linear(dim, projection)
        widths = [projection] + [2 * hidden] * layers
        self.layers = nn.ModuleList(BLSTM(width, hidden) for width in widths[:-1])
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.Tanh())
            for width in (widths[1:] if projections else [])
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(widths[-1], symbols)

    def output_lengths(self, lengths_B: Tensor) -> Tensor:
        """Return how many valid frames of logits items of these lengths have."""
        return lengths_B // self.stride_factor

    def forward(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Return logits (B, T // stride_factor, V); those after an item's length mean nothing.

        Args:
            features_BTD: padded frames.
            lengths_B: valid frames of each item.

        Raises:
            ValueError: features that are not frames, lengths that do not fit them, or an item
                shorter than ``stride_factor``.
        """
        lengths_B = frame_lengths(features_BTD, lengths_B, minimum=self.minimum_frames)
        x_BTD = without_padding(features_BTD, lengths_B)
        if self.training and self.specaug is not None:
            x_BTD = self.specaug(x_BTD, lengths_B)
        x_BTD = self._downsampled(self.projector(x_BTD))
        lengths_B = self.output_lengths(lengths_B)
        for i, layer in enumerate(self.layers):
            x_BTD = self.dropout(layer(x_BTD, lengths_B))
            if self.projections:
                x_BTD = self.projections[i](x_BTD)
        logits_BTV: Tensor = self.classifier(x_BTD)
        return logits_BTV

    def _downsampled(self, x_BTD: Tensor) -> Tensor:
        factor = self.stride_factor
        if factor == 1:
            return x_BTD
        whole = x_BTD.shape[1] // factor * factor
        return x_BTD[:, :whole:factor]


HEAD = BLSTMCTC
