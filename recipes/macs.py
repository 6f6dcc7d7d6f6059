"""Multiply-accumulates of a frozen forward, counted by torch as it runs.

torch's counter knows matrix products, convolutions and attention; added here are the products of
oneDNN that packed execution uses, its recurrent layers, and the fused attention of CPUs. What is not a product (norms, FFTs,
activations) does not count.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mynah.upstream.core.contract import Upstream

SECONDS = 10


def macs_per_second(upstream: Upstream, *, seconds: int = SECONDS) -> float:
    """Return the multiply-accumulates per second of audio of an utterance of noise.

    Args:
        upstream: on the CPU.
        seconds: length of the utterance.
    """
    wav_S = torch.randn(seconds * upstream.sample_rate, generator=torch.Generator().manual_seed(0))
    training = upstream.training
    upstream.eval()
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_known()) as counter:
        for _state in upstream.hidden_states([wav_S / 10]):
            pass
    upstream.train(training)
    return float(counter.get_total_flops()) / 2 / seconds


def _known() -> dict[Any, Any]:
    """Return formulas (operations, not multiply-accumulates) of what torch's counter leaves out."""
    return {
        torch.ops.mkldnn._linear_pointwise: _linear,
        torch.ops.mkldnn._convolution_pointwise: _convolution,
        torch.ops.aten.mkldnn_rnn_layer: _recurrent,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    }


def _linear(x_shape: Any, weight_shape: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    rows = 1
    for size in x_shape[:-1]:
        rows *= size
    return int(2 * rows * x_shape[-1] * out_shape[-1])


def _convolution(x_shape: Any, weight_shape: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    each = 1
    for size in (*out_shape, *weight_shape[1:]):
        each *= size
    return int(2 * each)


def _attention(q_shape: Any, k_shape: Any, v_shape: Any, *_: Any, **__: Any) -> int:
    batch, heads, queries, width = q_shape
    return int(2 * batch * heads * queries * k_shape[2] * (width + v_shape[3]))


def _recurrent(x_shape: Any, input_shape: Any, hidden_shape: Any, *_: Any, **__: Any) -> int:
    rows = x_shape[0] * x_shape[1]
    return int(2 * rows * (input_shape[0] * input_shape[1] + hidden_shape[0] * hidden_shape[1]))
