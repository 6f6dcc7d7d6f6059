"""Multiply-accumulates counted as torch runs: every operation is known, or it is an error.

What counts are products whose results are summed: matrix products, convolutions, attention,
recurrent layers; a bias, a norm, an activation, a softmax and a Fourier transform count nothing.
That is how SUPERB's profiler counts (DeepSpeed's flops profiler, changed for the challenge), apart
from what :mod:`mynah.recipes.costs.published` says of it.

A counter that skips what it does not know reports too little and nobody notices. So there are two
lists: operations with a formula, and operations that are free. One that stands in neither stops
the count with its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Formula = Callable[..., int]


class UnknownOperationError(LookupError):
    """The model runs an operation whose multiply-accumulates are not known."""


def _mm(a_NK: Tensor, b_KM: Tensor, *_: Any, **__: Any) -> int:
    return a_NK.numel() * b_KM.shape[-1]


def _addmm(_c: Tensor, a_NK: Tensor, b_KM: Tensor, *_: Any, **__: Any) -> int:
    return a_NK.numel() * b_KM.shape[-1]


def _mv(a_NK: Tensor, _b_K: Tensor, *_: Any, **__: Any) -> int:
    return a_NK.numel()


def _addmv(_c: Tensor, a_NK: Tensor, _b_K: Tensor, *_: Any, **__: Any) -> int:
    return a_NK.numel()


def _convolution(
    x: Tensor,
    weight: Tensor,
    _bias: Tensor | None,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    *_: Any,
    out: Tensor,
) -> int:
    """Each output (input, where transposed) meets the taps of the channels of its group."""
    return (x if transposed else out).numel() * math.prod(weight.shape[1:])


def _distances(a_NK: Tensor, b_MK: Tensor, *_: Any, **__: Any) -> int:
    return a_NK.numel() * b_MK.shape[-2]


def _pointwise_convolution(x: Tensor, weight: Tensor, *_: Any, out: Tensor) -> int:
    return out.numel() * math.prod(weight.shape[1:])


def _pointwise_linear(x: Tensor, *_: Any, out: Tensor) -> int:
    return x.numel() * out.shape[-1]


def _attention(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    """Queries times keys, weights times values."""
    return math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def _recurrent(x_TBI: Tensor, input_GI: Tensor, hidden_GH: Tensor, *_: Any, **__: Any) -> int:
    """One direction of one layer: all gates of input and state, at each step."""
    return math.prod(x_TBI.shape[:-1]) * (input_GI.numel() + hidden_GH.numel())


def _known() -> dict[Any, tuple[Formula, bool]]:
    """Return (formula, whether it needs the result) by operation."""
    aten = torch.ops.aten
    table: dict[Any, tuple[Formula, bool]] = {
        aten.mm: (_mm, False),
        aten.bmm: (_mm, False),
        aten.addmm: (_addmm, False),
        aten.baddbmm: (_addmm, False),
        aten.addbmm: (_addmm, False),
        aten.mv: (_mv, False),
        aten.addmv: (_addmv, False),
        aten.dot: (_mv, False),
        aten.convolution: (_convolution, True),
        aten._convolution: (_convolution, True),
        aten.mkldnn_rnn_layer: (_recurrent, False),
        aten._cdist_forward: (_distances, False),
    }
    for name in ("flash_attention_for_cpu", "flash_attention", "efficient_attention"):
        table[getattr(aten, f"_scaled_dot_product_{name}")] = (_attention, False)
    for name, formula in (
        ("_linear_pointwise", _pointwise_linear),
        ("_convolution_pointwise", _pointwise_convolution),
    ):
        packet = getattr(torch.ops.mkldnn, name, None)  # there are builds without oneDNN
        if packet is not None:
            table[packet] = (formula, True)
    return table


@cache
def free() -> frozenset[str]:
    """Return the names of the operations that count nothing (``free.txt``)."""
    text = Path(__file__).with_name("free.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return frozenset(" ".join(lines).split())


class Counter(TorchDispatchMode):
    """Adds up the multiply-accumulates of what runs inside.

    Attributes:
        total: of everything so far.
        by_operation: of each operation that has any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.by_operation: dict[str, int] = {}
        self._formulas = _known()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation and count it."""
        kwargs = kwargs or {}
        packet = func.overloadpacket
        entry = self._formulas.get(packet)
        if entry is None and not self._is_free(func):
            raise UnknownOperationError(
                f"the multiply-accumulates of {func} are not known, so those of this model are "
                "not; add its formula to recipes/costs/counter.py, or its name to free.txt beside "
                "it where it has none"
            )
        out = func(*args, **kwargs)
        if entry is not None:
            formula, needs_out = entry
            count = formula(*args, **kwargs, **({"out": out} if needs_out else {}))
            count *= 4 if args[0].is_complex() else 1
            self.total += count
            name = str(packet)
            self.by_operation[name] = self.by_operation.get(name, 0) + count
        return out

    @staticmethod
    def _is_free(func: Any) -> bool:
        if func.namespace == "prim":
            return True  # device, layout: questions about a tensor
        if func.namespace != "aten":
            return False
        return func.is_view or func.overloadpacket.__name__ in free()


@contextmanager
def counting() -> Iterator[Counter]:
    """Count what runs inside, without gradients, and layer by layer.

    torch's one-piece Transformer layer for inference is put aside: its parts are known.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), Counter() as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
