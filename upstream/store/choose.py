"""Which kind of features to keep, and why: said in a sentence, not hidden."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mynah.upstream.core.contract import Upstream
from mynah.upstream.store.codec import Dtype, Kind, record_bytes
from mynah.upstream.store.reader import Item


class Choice(NamedTuple):
    """A kind, its dtype, and the sentence that says why."""

    kind: Kind
    dtype: Dtype
    sentence: str


def expected_bytes(upstream: Upstream, items: Sequence[Item], kind: Kind, dtype: Dtype) -> int:
    """Return the size of the features of the items' distinct audio, in bytes."""
    seen: dict[bytes, int] = {item.key: item.num_samples for item in items}
    return sum(
        record_bytes(
            kind, dtype, layers=upstream.num_layers, frames=upstream.num_frames(n), dim=upstream.dim
        )
        for n in seen.values()
    )


def disk_budget(root: str | Path, *, share: float = 0.5) -> int:
    """Return the share of the free disk space under ``root`` that features may take, in bytes."""
    path = Path(root).absolute()
    while not path.exists():
        path = path.parent
    return int(shutil.disk_usage(path).free * share)


def choose_kind(resolution: str, expected: int, budget: int) -> Choice:
    """Choose what to keep.

    Args:
        resolution: ``utterance`` where every head is linear, mean, linear (training it on the
            means is the same model), ``frame`` where heads read frames.
        expected: bytes that float16 frames would take; int8 takes about half.
        budget: bytes that may be taken.

    Raises:
        ValueError: unknown resolution.
    """
    if resolution not in ("utterance", "frame"):
        raise ValueError(f"resolution must be 'utterance' or 'frame', got {resolution!r}")
    if resolution == "utterance":
        return Choice(
            "pooled",
            "float32",
            "pooled: the head reads time means, so training on stored means is the same model",
        )
    said = f"float16 frames take {size(expected)}, {size(budget)} may be used"
    if expected <= budget:
        return Choice("frames", "float16", f"frames in float16: {said}")
    if (expected + 1) // 2 <= budget:
        return Choice("frames", "int8", f"frames in int8 (half the size, 0.7 % error): {said}")
    return Choice("stream", "float32", f"stream (nothing kept, computed again each pass): {said}")


def size(nbytes: float) -> str:
    """Return a size for people: ``3.6 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"
