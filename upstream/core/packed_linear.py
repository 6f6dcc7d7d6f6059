"""Linear layers for frozen inference: weights laid out once for the matrix-product library.

On CPUs where oneDNN is built in, a weight that is reordered once into the library's blocked layout
saves a repack per call, and bias and GELU are applied while the tile is still in registers. Plain
``torch.nn.functional.linear`` goes to MKL, which runs at half of the speed of oneDNN on AMD.
Everywhere else (GPU, other builds) the same object is a plain linear layer.

Shape suffixes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

log = logging.getLogger(__name__)


@cache
def onednn_available() -> bool:
    """Return whether this torch build can reorder linear weights for oneDNN and multiply by them."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        weight_OI = torch.ones(2, 3)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI, None)
        y_NO = torch.ops.mkldnn._linear_pointwise(
            torch.ones(1, 3), packed, None, "gelu", [], "none"
        )
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    return bool(torch.allclose(y_NO, F.gelu(torch.full((1, 2), 3.0))))


@cache
def cpu_multiplies_bf16() -> bool:
    """Return whether this CPU has bfloat16 matrix instructions (AVX512-BF16, AMX or Arm BF16).

    Without them a bfloat16 product is emulated and several times *slower* than a float32 one.
    """
    for probe in (
        "_is_avx512_bf16_supported",
        "_is_amx_tile_supported",
        "_is_arm_bf16_supported",
    ):
        check = getattr(torch.cpu, probe, None)
        if check is not None and check():
            return True
    return False


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of matrix products for a precision on a device.

    ``bf16`` is a permission to be less exact: on a CPU without bfloat16 instructions the products
    stay in float32, which there is both faster and more exact.
    """
    if precision != "bf16":
        return torch.float32
    if device.type == "cpu" and not cpu_multiplies_bf16():
        log.warning(
            "this CPU has no bfloat16 matrix instructions (avx512_bf16, amx_bf16): "
            "bf16 was asked for, float32 products are used because they are faster here"
        )
        return torch.float32
    return torch.bfloat16


class PackedLinear:
    """``y = act(x W^T + b)`` with fixed weights; no gradients.

    Args:
        weight_OI: weight as in ``nn.Linear``.
        bias_O: bias or None.
        dtype: float32 or bfloat16, of the product, its input and its output.
        gelu: apply exact (erf) GELU to the result.
        rows: typical number of rows N, a hint for the packed layout.
    """

    def __init__(
        self,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        *,
        dtype: torch.dtype = torch.float32,
        gelu: bool = False,
        rows: int = 2048,
    ) -> None:
        self.out_features, self.in_features = weight_OI.shape
        self.dtype = dtype
        self.gelu = gelu
        weight_OI = weight_OI.detach().to(dtype).contiguous()
        self.bias_O = None if bias_O is None else bias_O.detach().to(dtype).contiguous()
        self.onednn = weight_OI.device.type == "cpu" and onednn_available()
        self.weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight_OI, rows) if self.onednn else weight_OI
        )

    def __call__(self, x_NI: Tensor) -> Tensor:
        """Return (N, O) for (N, I); strided rows are allowed."""
        if self.onednn:
            post: tuple[str, list[float], str] = (
                ("gelu", [], "none") if self.gelu else ("none", [], "")
            )
            y_NO: Tensor = torch.ops.mkldnn._linear_pointwise(x_NI, self.weight, self.bias_O, *post)
            return y_NO
        y_NO = F.linear(x_NI, self.weight, self.bias_O)
        return F.gelu(y_NO) if self.gelu else y_NO


def pack(
    layer: torch.nn.Linear, *, dtype: torch.dtype = torch.float32, gelu: bool = False
) -> PackedLinear:
    """Return the packed form of one ``nn.Linear``."""
    return PackedLinear(layer.weight, layer.bias, dtype=dtype, gelu=gelu)
