"""One LSTM layer and a Linear at every frame: the head of SUPERB's speaker diarization.

LSTM D -> 512, forward in time only, without a projector before it, and Linear 512 -> speakers, whose
sigmoids say who speaks (protocol, section 1.8). As the layer looks only back, padding after an item
cannot reach it.

Shape suffixes: B batch, T frames, D width, S speakers.
"""

from __future__ import annotations

from torch import Tensor, nn

from mynah.downstream.core.frames import frame_lengths, without_padding
from mynah.downstream.core.recurrent import run_lstm


class Diarizer(nn.Module):
    """LSTM and classifier.

    Args:
        dim: width D of the features.
        speakers: number of speakers S of a recording.
        hidden: LSTM units.
    """

    def __init__(self, dim: int, speakers: int = 2, *, hidden: int = 512) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, hidden, batch_first=True)
        self.classifier = nn.Linear(hidden, speakers)

    def forward(self, features_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Return logits (B, T, S); those after an item's length mean nothing.

        Args:
            features_BTD: padded frames.
            lengths_B: valid frames of each item.

        Raises:
            ValueError: features that are not frames, or lengths that do not fit them.
        """
        lengths_B = frame_lengths(features_BTD, lengths_B)
        hidden_BTH = run_lstm(self.lstm, without_padding(features_BTD, lengths_B))
        logits_BTS: Tensor = self.classifier(hidden_BTH)
        return logits_BTS


HEAD = Diarizer
