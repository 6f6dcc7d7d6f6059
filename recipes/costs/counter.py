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
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Formula = Callable[..., int]


class UnknownOperationError(LookupError):
    """The model runs an operation whose multiply-accumulates are not known."""


def _mm(a_NK: Tensor, b_KM: Tensor, **_: Any) -> int:
    return a_NK.numel() * b_KM.shape[-1]


def _addmm(_c: Tensor, a_NK: Tensor, b_KM: Tensor, **_: Any) -> int:
    return a_NK.numel() * b_KM.shape[-1]


def _mv(a_NK: Tensor, _b_K: Tensor, **_: Any) -> int:
    return a_NK.numel()


def _addmv(_c: Tensor, a_NK: Tensor, _b_K: Tensor, **_: Any) -> int:
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


# No sum of products. Views are free because torch says that they are views.
FREE = frozenset(
    [
        "abs",
        "abs_",
        "acos",
        "_adaptive_avg_pool2d",
        "_adaptive_avg_pool3d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "add",
        "add_",
        "addcdiv",
        "addcmul",
        "addcmul_",
        "alias",
        "all",
        "amax",
        "amin",
        "aminmax",
        "__and__",
        "angle",
        "any",
        "arange",
        "argmax",
        "argmin",
        "as_strided_",
        "asin",
        "_assert_async",
        "_assert_scalar",
        "atan",
        "atan2",
        "avg_pool1d",
        "avg_pool2d",
        "bartlett_window",
        "bernoulli",
        "bernoulli_",
        "bincount",
        "bitwise_and",
        "bitwise_and_",
        "bitwise_left_shift",
        "bitwise_not",
        "bitwise_or",
        "bitwise_or_",
        "bitwise_right_shift",
        "bitwise_xor",
        "blackman_window",
        "broadcast_tensors",
        "bucketize",
        "cat",
        "ceil",
        "celu",
        "clamp",
        "clamp_",
        "clamp_max",
        "clamp_max_",
        "clamp_min",
        "clamp_min_",
        "clip",
        "clip_",
        "clone",
        "col2im",
        "complex",
        "_conj",
        "_conj_physical",
        "constant_pad_nd",
        "contiguous",
        "copy",
        "copy_",
        "copysign",
        "cos",
        "cos_",
        "cosh",
        "cummax",
        "cumprod",
        "cumprod_",
        "cumsum",
        "cumsum_",
        "detach_",
        "diag_embed",
        "div",
        "div_",
        "elu",
        "elu_",
        "embedding",
        "empty",
        "empty_like",
        "empty_permuted",
        "empty_quantized",
        "empty_strided",
        "eq",
        "eq_",
        "equal",
        "erf",
        "erf_",
        "erfinv",
        "exp",
        "exp_",
        "expm1",
        "expm1_",
        "exponential_",
        "eye",
        "_fft_c2c",
        "_fft_c2r",
        "fft_fftfreq",
        "_fft_r2c",
        "fft_rfftfreq",
        "fill",
        "fill_",
        "flip",
        "floor",
        "floor_",
        "floor_divide",
        "floor_divide_",
        "fmod",
        "frac",
        "frobenius_norm",
        "full",
        "full_",
        "full_like",
        "gather",
        "ge",
        "ge_",
        "gelu",
        "gelu_",
        "glu",
        "gt",
        "gt_",
        "hamming_window",
        "hann_window",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "hardtanh_",
        "histc",
        "huber_loss",
        "hypot",
        "im2col",
        "index",
        "index_add",
        "index_copy",
        "index_copy_",
        "index_fill",
        "index_fill_",
        "index_put",
        "index_put_",
        "index_select",
        "is_nonzero",
        "is_pinned",
        "is_same_size",
        "isfinite",
        "isinf",
        "isnan",
        "isneginf",
        "isposinf",
        "item",
        "kaiser_window",
        "l1_loss",
        "le",
        "le_",
        "leaky_relu",
        "leaky_relu_",
        "lift",
        "lift_fresh",
        "lift_fresh_copy",
        "linalg_vector_norm",
        "linspace",
        "_local_scalar_dense",
        "log",
        "log10",
        "log10_",
        "log1p",
        "log1p_",
        "log2",
        "log2_",
        "log_",
        "log_normal",
        "log_sigmoid_forward",
        "_log_softmax",
        "logaddexp",
        "logical_and",
        "logical_and_",
        "logical_not",
        "logical_not_",
        "logical_or",
        "logical_xor",
        "logit",
        "logspace",
        "logsumexp",
        "__lshift__",
        "lt",
        "lt_",
        "masked_fill",
        "masked_fill_",
        "masked_scatter",
        "masked_select",
        "max",
        "max_pool1d_with_indices",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "maximum",
        "mean",
        "mean_",
        "median",
        "min",
        "minimum",
        "mish",
        "mse_loss",
        "mul",
        "mul_",
        "multinomial",
        "nan_to_num",
        "nan_to_num_",
        "native_batch_norm",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_functional",
        "_native_batch_norm_legit_no_training",
        "native_dropout",
        "native_group_norm",
        "native_layer_norm",
        "ne",
        "ne_",
        "neg",
        "neg_",
        "_nested_tensor_size",
        "new_empty",
        "new_empty_strided",
        "new_full",
        "new_ones",
        "new_zeros",
        "nonzero",
        "norm",
        "normal",
        "normal_",
        "ones",
        "ones_like",
        "ones_like_",
        "__or__",
        "_pack_padded_sequence",
        "polar",
        "pow",
        "pow_",
        "prelu",
        "prod",
        "rand",
        "rand_like",
        "randint",
        "randint_like",
        "randn",
        "randn_like",
        "randperm",
        "range",
        "reciprocal",
        "reciprocal_",
        "reflection_pad1d",
        "reflection_pad2d",
        "relu",
        "relu_",
        "remainder",
        "remainder_",
        "repeat",
        "repeat_interleave",
        "replication_pad1d",
        "_reshape_alias",
        "_reshape_copy",
        "resize_",
        "roll",
        "round",
        "round_",
        "rrelu",
        "__rshift__",
        "rsqrt",
        "rsqrt_",
        "rsub",
        "_safe_softmax",
        "scalar_tensor",
        "scatter",
        "scatter_",
        "scatter_add",
        "scatter_add_",
        "scatter_reduce",
        "searchsorted",
        "select_scatter",
        "set_",
        "sgn",
        "sigmoid",
        "sigmoid_",
        "sign",
        "sign_",
        "silu",
        "silu_",
        "sin",
        "sin_",
        "sinc",
        "sinh",
        "slice_scatter",
        "smooth_l1_loss",
        "_softmax",
        "softplus",
        "sort",
        "sort_",
        "special_entr",
        "special_erf",
        "special_expit",
        "split_with_sizes_copy",
        "sqrt",
        "sqrt_",
        "square",
        "square_",
        "squeeze_",
        "stack",
        "std",
        "std_mean",
        "sub",
        "sub_",
        "sum",
        "swapaxes_",
        "t_",
        "take",
        "tan",
        "tanh",
        "tanh_",
        "threshold",
        "threshold_",
        "_to_copy",
        "topk",
        "transpose_",
        "tril",
        "tril_",
        "tril_indices",
        "triu",
        "triu_",
        "triu_indices",
        "trunc",
        "unfold_copy",
        "uniform",
        "uniform_",
        "_unique2",
        "unique_consecutive",
        "unique_dim",
        "unsafe_chunk",
        "_unsafe_index",
        "unsafe_split",
        "unsafe_split_with_sizes",
        "_unsafe_view",
        "unsqueeze_",
        "upsample_linear1d",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "var",
        "var_mean",
        "_weight_norm_interface",
        "where",
        "xlogy",
        "zero_",
        "zeros",
        "zeros_like",
    ]
)


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
                "not; add its formula, or its name where it has none, to recipes/costs/counter.py"
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
        return func.is_view or func.overloadpacket.__name__ in FREE


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
