"""Recurrent networks over ragged batches: each time step computes the utterances that are still there.

An utterance's outputs depend on its own frames only, and nothing is spent on padding.

Shape suffixes: N frames of the whole batch laid end to end, T time steps, U utterances, I inputs,
H units.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


def recurrent_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the type that a recurrent network computes in: float32 on GPUs.

    cuDNN wants all weights in one piece of memory, and torch lays out no bfloat16 ones: they would
    be copied at every call.
    """
    return torch.float32 if device.type == "cuda" else dtype


class PackedRecurrent:
    """A GRU or LSTM with fixed weights over utterances laid end to end; no gradients.

    Args:
        network: one direction.
        dtype: float32 or bfloat16, of its products.
    """

    def __init__(self, network: nn.GRU | nn.LSTM, *, dtype: torch.dtype) -> None:
        weight = next(network.parameters())
        self.dtype = dtype = recurrent_dtype(dtype, weight.device)
        self.network = network if weight.dtype == dtype else copy.deepcopy(network).to(dtype)

    @torch.no_grad()
    def __call__(self, x_NI: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the outputs of the last layer, float32 (N, H).

        Args:
            x_NI: frames.
            counts: frames of each utterance, summing to N.
        """
        place_N, sizes_T = pack_order(counts)
        place_N = place_N.to(x_NI.device)
        packed = PackedSequence(x_NI[place_N].to(self.dtype), sizes_T)
        y_NH: Tensor = self.network(packed)[0].data
        out_NH = torch.empty(y_NH.shape, dtype=torch.float32, device=y_NH.device)
        out_NH[place_N] = y_NH.float()
        return out_NH


def pack_order(counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return which frame of the ragged layout is the i-th of the packed one, and the step sizes.

    The packed layout runs step by step through the utterances that are still there, longest
    first: what :class:`torch.nn.utils.rnn.PackedSequence` expects.
    """
    counts_U = torch.tensor(list(counts))
    first_U = counts_U.cumsum(0) - counts_U
    longest_U = counts_U.argsort(descending=True, stable=True)
    steps_N = torch.cat([torch.arange(int(counts_U[u])) for u in longest_U])
    frames_N = steps_N + first_U[longest_U].repeat_interleave(counts_U[longest_U])
    return frames_N[steps_N.argsort(stable=True)], steps_N.bincount()
