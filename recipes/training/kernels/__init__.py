"""Faster forms of a few torch functions for training on CPUs, put in place around a loss.

Families are written in plain torch. On a CPU some of its functions are far from what the processor
can do: float32 products go to a library that runs at half speed on AMD, dropout draws one slow
random number per element, attention with dropout is not fused, a recurrent layer's backward pass
adds up its weight gradient time step by step. Inside :func:`cpu_kernels` these functions are
replaced (a torch function mode finds the calls), so that every family, and anybody's own model,
trains faster as it is. The results are the same to rounding; dropout draws other numbers from the
same seed, and the same ones on every processor.

Not used on GPUs, with ``torch.compile``, or for frozen features, which have their own packed path.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, ClassVar, Self

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from mynah.upstream.core.conv import normed_conv
from mynah.upstream.core.packed_linear import onednn_available

Function = Callable[..., Any]
Handler = Callable[..., Any]


class Kernels(TorchFunctionMode):
    """While it is entered, calls of the functions in a table go to their handlers.

    Attributes:
        entered: how many are entered now.

    Args:
        table: torch function -> handler. A handler gets the function's own arguments and returns
            ``NotImplemented`` for a case that it leaves to torch.
    """

    def __init__(self, table: dict[Function, Handler]) -> None:
        super().__init__()
        self.table = table

    entered: ClassVar[int] = 0

    def __enter__(self) -> Self:
        Kernels.entered += 1
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        Kernels.entered -= 1

    def __torch_function__(
        self,
        func: Function,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the handler of a function, where there is one and it wants to."""
        del types
        kwargs = kwargs or {}
        handler = self.table.get(func)
        if handler is not None:
            result = handler(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)


@cache
def table() -> dict[Function, Handler]:
    """Return every replaced function with its handler; empty where oneDNN is missing."""
    from mynah.recipes.training.kernels import attention, convolution, dropout, linear, recurrent

    if not onednn_available():
        return {}
    return {
        F.linear: linear.linear,
        torch.matmul: linear.matmul,
        torch.mm: linear.matmul,
        torch.Tensor.matmul: linear.matmul,
        F.dropout: dropout.dropout,
        F.scaled_dot_product_attention: attention.attention,
        torch.conv1d: convolution.conv1d,
        normed_conv: convolution.normed_conv,
        torch._VF.gru: recurrent.gru,
    }


def again() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Return the contexts of a forward pass now and of its repetition later, under equal kernels."""
    return nullcontext(), Kernels(table()) if Kernels.entered else nullcontext()


def cpu_kernels(device: torch.device, wanted: bool = True) -> AbstractContextManager[Any]:
    """Return a context in which the functions are replaced, if the device is a CPU."""
    if not wanted or device.type != "cpu":
        return nullcontext()
    return Kernels(table())
