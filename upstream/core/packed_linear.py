"""Linear and convolution layers for frozen inference: weights laid out once for the library.

On CPUs where oneDNN is built in, a weight that is reordered once into the library's blocked layout
saves a repack per call, and bias and GELU are applied while the tile is still in registers. Plain
``torch.nn.functional.linear`` goes to MKL, which runs at half of the speed of oneDNN on AMD.
Everywhere else (GPU, other builds) the same object is a plain linear layer.

Shape suffixes: N rows, I inputs, O outputs, K kernel taps, T frames.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from mynah.upstream.core.narrow_convs import is_narrow

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


def _onednn_takes_bf16() -> bool:
    check = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return check is None or bool(check())


@cache
def cpu_multiplies_bf16() -> bool:
    """Return whether this CPU has bfloat16 matrix instructions (AVX512-BF16, AMX or Arm BF16).

    Without them a bfloat16 product is emulated and several times *slower* than a float32 one, or
    refused by oneDNN, which also counts what ONEDNN_MAX_CPU_ISA forbids.
    """
    if not _onednn_takes_bf16():
        return False
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
    stay in float32, which there is both faster and more exact; a warning says so once.
    """
    if precision != "bf16":
        return torch.float32
    if device.type == "cpu" and not cpu_multiplies_bf16():
        _warn_of_float32()
        return torch.float32
    return torch.bfloat16


@cache  # once per process: some families ask at every forward
def _warn_of_float32() -> None:
    log.warning(
        "this CPU has no bfloat16 matrix instructions (avx512_bf16, amx_bf16): "
        "bf16 was asked for, float32 products are used because they are faster here"
    )


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


class PackedConv1d:
    """A strided convolution without padding over channels-last rows, with fixed weights.

    Without oneDNN, and in bfloat16 where that cannot be trusted (``narrow_convs``), it is one matrix product with rows of K I
    values that start every ``stride`` I values of the input: no copy of the input is made. oneDNN's
    own convolution reads each input row once and is some 10 % faster.

    Args:
        weight_OIK: weight as in ``nn.Conv1d``.
        bias_O: bias or None.
        stride: rows between outputs.
        dtype: float32 or bfloat16.
        gelu: apply exact (erf) GELU to the result.
    """

    def __init__(
        self,
        weight_OIK: Tensor,
        bias_O: Tensor | None,
        *,
        stride: int,
        dtype: torch.dtype = torch.float32,
        gelu: bool = False,
    ) -> None:
        self.inputs, self.kernel = weight_OIK.shape[1:]
        self.stride = stride
        self.gelu = gelu
        weight_OIK = weight_OIK.detach().to(dtype)
        self.bias_O = None if bias_O is None else bias_O.detach().to(dtype).contiguous()
        self.linear: PackedLinear | None = None
        narrow = dtype == torch.bfloat16 and is_narrow(self.inputs, self.kernel)
        if weight_OIK.device.type == "cpu" and onednn_available() and not narrow:
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(
                weight_OIK[:, :, None].contiguous(memory_format=torch.channels_last),
                [0, 0],
                [1, stride],
                [1, 1],
                1,
                [1, self.inputs, 1, 1024],
            )
        else:
            weight_OX = weight_OIK.permute(0, 2, 1).reshape(len(weight_OIK), -1)
            self.linear = PackedLinear(weight_OX, bias_O, dtype=dtype, gelu=gelu)

    def __call__(self, x_TI: Tensor) -> Tensor:
        """Return (T', O) for contiguous rows (T, I)."""
        if self.linear is not None:
            count = (len(x_TI) - self.kernel) // self.stride + 1
            width = self.inputs
            rows = x_TI.as_strided((count, self.kernel * width), (self.stride * width, 1))
            return self.linear(rows)
        y_1O1T: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x_TI.t()[None, :, None],
            self.weight,
            self.bias_O,
            [0, 0],
            [1, self.stride],
            [1, 1],
            1,
            *(("gelu", [], "none") if self.gelu else ("none", [], "")),
        )
        return y_1O1T[0, :, 0].t().contiguous()
