"""Weights that are laid out once for the frozen forward, and again whenever they move or change."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.packed_linear import compute_dtype

P = TypeVar("P")


class Packing(Upstream, Generic[P]):
    """An upstream whose frozen forward runs on weights laid out for the matrix-product library.

    Subclasses write :meth:`_pack` and take :meth:`packed` in ``hidden_states``. The packed weights
    of a frozen model follow it to another device and other weights; they are never copied or
    pickled, because only the process that made them can read them.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._packed: P | None = None
        self.register_load_state_dict_post_hook(_changed)

    @abstractmethod
    def _pack(self, dtype: torch.dtype) -> P:
        """Return the weights laid out for products in a precision; without gradients."""

    def packed(self) -> P:
        """Return the packed weights: those kept of a frozen model, new float32 ones in training."""
        if self.frozen and self._packed is None:  # a copy, or from another process
            self.prepare_inference()
        if self._packed is not None:
            return self._packed
        with torch.no_grad():
            return self._pack(torch.float32)

    def prepare_inference(self) -> None:
        """Lay out the weights once for the matrix-product library."""
        with torch.no_grad():
            self._packed = self._pack(compute_dtype(self.precision, self.device))

    def weights_changed(self) -> None:
        """Renew what was made of the weights, after these moved or were loaded."""
        if self.frozen and self._packed is not None:
            self.prepare_inference()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the packed weights."""
        return {**self.__dict__, "_packed": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.weights_changed()
        return self


def _changed(module: nn.Module, _incompatible: object) -> None:
    assert isinstance(module, Packing)
    module.weights_changed()
