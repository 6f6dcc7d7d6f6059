"""Linear, Linear at every frame: the head of SUPERB's phoneme recognition, trained with CTC.

Shape suffixes: K heads, B batch, T frames, D width, V symbols including the blank.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mynah.downstream.core.batched import linear_pair


class LinearCTC(nn.Module):
    """Projector (D -> 256) and classifier (256 -> V) at every frame, nothing between them.

    Args:
        dim: width D of the features.
        symbols: number of outputs V, the blank included.
        projection: width of the projector.
    """

    def __init__(self, dim: int, symbols: int, *, projection: int = 256) -> None:
        super().__init__()
        self.projector = nn.Linear(dim, projection)
        self.classifier = nn.Linear(projection, symbols)

    def forward(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V); ``lengths_B`` is not needed, frames do not see each other.

        Raises:
            ValueError: features that are not frames.
        """
        if features_BTD.ndim != 3:
            raise ValueError(f"expected frames (B, T, D), got shape {tuple(features_BTD.shape)}")
        logits_BTV: Tensor = self.classifier(self.projector(features_BTD))
        return logits_BTV

    @staticmethod
    def stacked(
        params: Mapping[str, Tensor], features: Tensor, lengths_B: Tensor | None = None
    ) -> Tensor:
        """Return the logits (K, B, T, V) of K heads at once.

        Args:
            params: this module's parameters, each with a first dimension K.
            features: (K, B, T, D).
            lengths_B: not needed.
        """
        logits = linear_pair(params, features.flatten(1, 2))
        heads, batch, frames, _ = features.shape
        return logits.view(heads, batch, frames, -1)


HEAD = LinearCTC
