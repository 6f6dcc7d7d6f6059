"""Linear, mean over time, Linear: the head of SUPERB's utterance tasks (KS, IC, SID, ER).

There is no non-linearity in it, so the mean over time commutes with both layers: over an
utterance's mean feature it is exactly the same function as over its frames, at a hundredth of the
cost. Both inputs are taken.

Shape suffixes: K heads, B batch, T frames, D width, P projection, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mynah.downstream.core.batched import linear_pair
from mynah.downstream.core.pooling import mean_over_time


class LinearMean(nn.Module):
    """Projector (D -> 256), mean over valid frames, classifier (256 -> C).

    Initialised as ``nn.Linear`` is, projector first, which is what s3prl does.

    Args:
        dim: width D of the features.
        classes: number of outputs C.
        projection: width of the projector.
    """

    def __init__(self, dim: int, classes: int, *, projection: int = 256) -> None:
        super().__init__()
        self.projector = nn.Linear(dim, projection)
        self.classifier = nn.Linear(projection, classes)

    def forward(self, features: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Return logits (B, C).

        Args:
            features: (B, T, D) frames, or (B, D) means over time.
            lengths_B: valid frames of each row; None where all are valid or pooled already.

        Raises:
            ValueError: features of another rank.
        """
        hidden = self.projector(features)
        if features.ndim == 3:
            hidden = mean_over_time(hidden, lengths_B)
        elif features.ndim != 2:
            raise ValueError(f"expected (B, T, D) or (B, D), got shape {tuple(features.shape)}")
        logits_BC: Tensor = self.classifier(hidden)
        return logits_BC

    @staticmethod
    def stacked(
        params: Mapping[str, Tensor], features: Tensor, lengths_B: Tensor | None = None
    ) -> Tensor:
        """Return the logits (K, B, C) of K heads at once.

        Args:
            params: this module's parameters, each with a first dimension K.
            features: (K, B, T, D) or (K, B, D).
            lengths_B: as in :meth:`forward`.
        """
        if features.ndim == 4:
            heads, batch = features.shape[:2]
            lengths = None if lengths_B is None else lengths_B.repeat(heads)
            features = mean_over_time(features.flatten(0, 1), lengths).view(heads, batch, -1)
        return linear_pair(params, features)


HEAD = LinearMean
