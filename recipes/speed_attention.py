"""``mynah speed attention``: what truncated attention costs against full attention, by length.

One random encoder of each kind with the same weights runs over utterances of growing length, one
at a time, in turns and in one process; printed are medians of CPU seconds. Full attention costs grow with the square of the length, truncated ones with
the length; below some length the truncation does not pay, and the table says where.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from mynah.upstream.core.transformer import PackedEncoder


@dataclass(frozen=True, kw_only=True)
class Args:
    """Time the shared Transformer with full and with truncated attention over utterance lengths."""

    spec: Annotated[str, Positional] = "hubert/base"
    """Family and variant whose encoder is timed, with random weights."""
    window: int = 50
    """Furthest key of the truncated attention, in frames (20 ms each for hubert/base)."""
    seconds: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0, 60.0)
    """Lengths of utterances."""
    runs: int = 3
    """Runs of each, in turns; the median counts."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the matrix products."""
    threads: int = 1
    """Threads of torch."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """CPU seconds of one utterance of some length."""

    seconds: float
    frames: int
    full: float
    truncated: float


def main(args: Args) -> int:
    """Print the table, and return 0.

    Raises:
        ValueError: a family without the shared Transformer, or lengths out of range.
    """
    from rich.table import Table

    from mynah.recipes.progress import console

    rows = measure(args)
    table = Table(title=f"{args.spec}, window {args.window} frames, {args.precision}")
    for column in ("seconds", "frames", "full, CPU s", "truncated, CPU s", "full / truncated"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row.seconds:g}",
            str(row.frames),
            f"{row.full:.3f}",
            f"{row.truncated:.3f}",
            f"{row.full / row.truncated:.2f}",
        )
    console.print(table)
    first, last = rows[0], rows[-1]
    longer = last.frames / first.frames
    console.print(
        f"{longer:.1f} times the frames cost {last.full / first.full:.1f} times (full) and "
        f"{last.truncated / first.truncated:.1f} times (truncated)",
        markup=False,
    )
    return 0


def measure(args: Args) -> list[Row]:
    """Return the medians; see :func:`main`."""
    import torch

    from mynah import registry, upstream
    from mynah.upstream.core.frames import FrameTransformer
    from mynah.upstream.core.packed_linear import compute_dtype
    from mynah.upstream.core.transformer import Encoder, PackedEncoder

    if not args.seconds or not all(0 < seconds < float("inf") for seconds in args.seconds):
        raise ValueError(f"seconds must be positive, got {args.seconds}")
    if min(args.runs, args.window, args.threads) < 1:
        raise ValueError("runs, window and threads must be at least 1")
    family, _, variant = args.spec.partition("/")
    module = upstream.get(family)
    if not issubclass(module.MODEL, FrameTransformer):
        raise ValueError(f"{family} is not built on the shared Transformer: try hubert or wav2vec2")
    variant = variant or "base"
    if variant not in module.CONFIGS:
        raise LookupError(registry.unknown(f"variant of {family!r}:", variant, module.CONFIGS))
    config = module.CONFIGS[variant]
    settings = config.encoder()
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        torch.manual_seed(0)
        full = Encoder(replace(settings, window=0)).eval()
        near = Encoder(replace(settings, window=args.window)).eval()
        near.load_state_dict(full.state_dict())
        with torch.device("meta"):
            stride = upstream.build(args.spec).stride
        dtype = compute_dtype(args.precision, torch.device("cpu"))
        with torch.no_grad():
            packed = [PackedEncoder(encoder, dtype=dtype) for encoder in (full, near)]
        return [
            _row(packed, seconds, int(seconds * 16000) // stride, settings.dim, args.runs)
            for seconds in sorted(args.seconds)
        ]
    finally:
        torch.set_num_threads(before)


def _row(
    encoders: Sequence[PackedEncoder], seconds: float, frames: int, dim: int, runs: int
) -> Row:
    import torch

    x_ND = torch.randn(frames, dim, generator=torch.Generator().manual_seed(frames))
    spent: list[list[float]] = [[], []]
    for _ in range(runs):
        for encoder, times in zip(encoders, spent, strict=True):
            start = time.process_time()
            for _state in encoder(x_ND, [frames]):
                pass
            times.append(time.process_time() - start)
    full, truncated = (median(times) for times in spent)
    return Row(seconds=seconds, frames=frames, full=full, truncated=truncated)
