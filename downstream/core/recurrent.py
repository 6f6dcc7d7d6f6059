"""A bidirectional LSTM layer over padded batches in which padding does not exist.

There are two ways to the same function. Packed sequences are what cuDNN is fast at. On a CPU they
leave oneDNN's kernels and training is several times slower than over padded batches (measured: 5
times at width 256); there each direction runs over the padded batch by itself, the backward one
over the frames of each item in reverse order, so that padding comes last for both and no valid
frame sees it.

Shape suffixes: B batch, T frames, D width, H hidden units of a direction.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mynah.downstream.core.frames import without_padding


def run_lstm(lstm: nn.LSTM, inputs: Any) -> Any:
    """Return ``lstm(inputs)[0]`` for padded or packed inputs.

    cuDNN copies weights that do not lie in one block, as those of a sweep's heads, at every call
    and warns of it; the copy is small beside the layer.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="RNN module weights")
        return lstm(inputs)[0]


def reversed_in_length(x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
    """Return each item's valid frames in reverse order; padding stays where it is."""
    times_1T = torch.arange(x_BTD.shape[1], device=x_BTD.device)[None]
    ends_B1 = lengths_B[:, None]
    index_BT = torch.where(times_1T < ends_B1, ends_B1 - 1 - times_1T, times_1T)
    return x_BTD.gather(1, index_BT[:, :, None].expand(x_BTD.shape))


class BLSTM(nn.Module):
    """One bidirectional LSTM layer, D -> 2 H.

    Args:
        dim: width D of the frames.
        hidden: units H of each direction.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, hidden, batch_first=True, bidirectional=True)

    def forward(self, x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return (B, T, 2 H), forward direction first; zeros after each item's length."""
        if x_BTD.is_cuda:
            return self.packed(x_BTD, lengths_B)
        return self.padded(x_BTD, lengths_B)

    def packed(self, x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """The layer over packed sequences."""
        x_BTD.data_ptr()  # refuses vmap, which cannot pack, before torch warns of it
        packed = pack_padded_sequence(
            x_BTD, lengths_B.cpu(), batch_first=True, enforce_sorted=False
        )
        hidden = run_lstm(self.lstm, packed)
        out_BTH, _ = pad_packed_sequence(hidden, batch_first=True, total_length=x_BTD.shape[1])
        return out_BTH

    def padded(self, x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """The layer as two passes over the padded batch."""
        forth_BTH = self._direction(x_BTD, "")
        turned_BTD = reversed_in_length(x_BTD, lengths_B)
        back_BTH = reversed_in_length(self._direction(turned_BTD, "_reverse"), lengths_B)
        return without_padding(torch.cat([forth_BTH, back_BTH], dim=-1), lengths_B)

    def _direction(self, x_BTD: Tensor, suffix: str) -> Tensor:
        names = (f"{kind}_l0{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        weights = [getattr(self.lstm, name) for name in names]
        start_1BH = x_BTD.new_zeros(1, x_BTD.shape[0], self.lstm.hidden_size)
        out: tuple[Tensor, Tensor, Tensor] = torch.lstm(
            x_BTD,
            (start_1BH, start_1BH),
            weights,
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=self.training,
            bidirectional=False,
            batch_first=True,
        )
        return out[0]
