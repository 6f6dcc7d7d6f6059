"""A recurrent network over one utterance, in a form that every exporter can record.

``torch.jit.trace`` keeps a GRU or LSTM as one operation; ``torch.export`` would unroll it over the
frames of its example, so there torch's ``scan`` goes through the frames, which becomes a loop in
ONNX too.

Shape suffixes: T frames, I inputs, H units, X gates of all units side by side.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.recipes.exporting.signal import zeros


def run(network: nn.GRU | nn.LSTM, x_TI: Tensor) -> Tensor:
    """Return the last layer's outputs (T, H), from a state of zeros.

    Args:
        network: one direction, any number of layers, with biases, no projection.
        x_TI: frames.
    """
    lstm = isinstance(network, nn.LSTM)
    state_1 = zeros(x_TI[:1, :1])
    if not torch.compiler.is_exporting():
        state_LH = state_1.expand(network.num_layers, network.hidden_size)
        outputs: Tensor = network(x_TI, (state_LH, state_LH) if lstm else state_LH)[0]
        return outputs
    for index in range(network.num_layers):
        inward = getattr(network, f"weight_ih_l{index}"), getattr(network, f"bias_ih_l{index}")
        again = getattr(network, f"weight_hh_l{index}"), getattr(network, f"bias_hh_l{index}")
        x_TI = (_lstm if lstm else _gru)(F.linear(x_TI, *inward), state_1[0], *again)
    return x_TI


def _gru(given_TX: Tensor, zero_1: Tensor, weight_XH: Tensor, bias_X: Tensor) -> Tensor:
    def step(state_H: Tensor, given_X: Tensor) -> tuple[Tensor, Tensor]:
        kept_X = F.linear(state_H, weight_XH, bias_X)
        reset_g, update_g, new_g = given_X.chunk(3)
        reset_k, update_k, new_k = kept_X.chunk(3)
        new_H = (new_g + (reset_g + reset_k).sigmoid() * new_k).tanh()
        update_H = (update_g + update_k).sigmoid()
        state_H = (1.0 - update_H) * new_H + update_H * state_H
        return state_H, state_H.clone()

    return _scan(step, zero_1.expand(weight_XH.shape[1]).clone(), given_TX)


def _lstm(given_TX: Tensor, zero_1: Tensor, weight_XH: Tensor, bias_X: Tensor) -> Tensor:
    units = weight_XH.shape[1]

    def step(state_X: Tensor, given_X: Tensor) -> tuple[Tensor, Tensor]:
        state_H, cell_H = state_X.split(units)
        gates = (given_X + F.linear(state_H, weight_XH, bias_X)).chunk(4)
        cell_H = gates[1].sigmoid() * cell_H + gates[0].sigmoid() * gates[2].tanh()
        state_H = gates[3].sigmoid() * cell_H.tanh()
        return torch.cat([state_H, cell_H]), state_H.clone()

    return _scan(step, zero_1.expand(2 * units).clone(), given_TX)


def _scan(
    step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], start: Tensor, given_TX: Tensor
) -> Tensor:
    from torch._higher_order_ops.scan import scan  # not public yet

    outputs: Tensor = scan(step, start, given_TX)[1]
    return outputs
