"""How one utterance's features become bytes, and back.

Shape suffixes: L layers, T frames, D width. A pooled record is (L, D) float32, a frames record is
(L, T, D) in float32, float16 or int8 with one float32 scale per layer and channel.

What float16 cannot hold (magnitudes over 65504) is never written as infinity: that one record
becomes float32, and its index entry says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Kind = Literal["pooled", "frames", "stream"]
Dtype = Literal["float32", "float16", "int8"]

KINDS: tuple[Kind, ...] = ("pooled", "frames", "stream")
FRAME_DTYPES: tuple[Dtype, ...] = ("float16", "int8", "float32")
CODES: dict[Dtype, int] = {"float32": 0, "float16": 1, "int8": 2}
NAMES: dict[int, Dtype] = {code: name for name, code in CODES.items()}
HALF_MAX = 65504.0


@dataclass(frozen=True, kw_only=True)
class Record:
    """One utterance's features, ready to be written.

    Attributes:
        dtype: how the payload is coded.
        frames: number of frames T that the upstream gave (of a pooled record too).
        payload: the bytes, in parts that follow each other.
    """

    dtype: Dtype
    frames: int
    payload: tuple[memoryview, ...]


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().numpy().data.cast("B")


def record_bytes(kind: Kind, dtype: Dtype, *, layers: int, frames: int, dim: int) -> int:
    """Return the size of a record's payload in bytes."""
    if kind == "stream":
        return 0
    if kind == "pooled":
        return layers * dim * 4
    if dtype == "int8":
        return layers * dim * 4 + layers * frames * dim
    return layers * frames * dim * (4 if dtype == "float32" else 2)


def encode_pooled(mean_LD: Tensor, *, frames: int) -> Record:
    """Return the record of per-layer means."""
    return Record(dtype="float32", frames=frames, payload=(_bytes(mean_LD.float()),))


class FrameEncoder:
    """Collects one utterance's frames layer by layer in their final type.

    Args:
        dtype: what is wanted; float16 turns into float32 where a value does not fit.
        layers: number of layers L that will be given.
        frames: number of frames T.
        dim: width D.
    """

    def __init__(self, dtype: Dtype, *, layers: int, frames: int, dim: int) -> None:
        self.dtype = dtype
        self.frames = frames
        kind = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}[dtype]
        self._values_LTD = torch.empty(layers, frames, dim, dtype=kind)
        self._scale_LD = torch.empty(layers, dim) if dtype == "int8" else None

    def put(self, layer: int, states_TD: Tensor, *, peak: float) -> None:
        """Keep one layer.

        Args:
            layer: its number.
            states_TD: finite float32 frames.
            peak: an upper bound of their magnitude.
        """
        if self._scale_LD is not None:
            scale_D = states_TD.abs().amax(0) / 127
            scale_D[scale_D == 0] = 1.0
            self._scale_LD[layer] = scale_D
            self._values_LTD[layer] = (states_TD / scale_D).round_().to(torch.int8)
            return
        if self.dtype == "float16" and peak > HALF_MAX and float(states_TD.abs().amax()) > HALF_MAX:
            self.dtype = "float32"
            self._values_LTD = self._values_LTD.float()
        self._values_LTD[layer] = states_TD

    def record(self) -> Record:
        """Return the finished record."""
        parts = [] if self._scale_LD is None else [_bytes(self._scale_LD)]
        parts.append(_bytes(self._values_LTD))
        return Record(dtype=self.dtype, frames=self.frames, payload=tuple(parts))


def decode_frames(
    raw: np.ndarray, dtype: Dtype, *, layers: int, frames: int, dim: int
) -> tuple[Tensor, Tensor | None]:
    """Return (values_LTD, scale_LD or None) as views of a record's bytes; values x scale is meant.

    Args:
        raw: uint8 payload, writable (the views share its memory).
        dtype: how it is coded.
        layers: L.
        frames: T.
        dim: D.
    """
    if dtype == "int8":
        cut = layers * dim * 4
        scale_LD = torch.from_numpy(raw[:cut].view("<f4").reshape(layers, dim))
        return torch.from_numpy(raw[cut:].view(np.int8).reshape(layers, frames, dim)), scale_LD
    kind = "<f4" if dtype == "float32" else "<f2"
    return torch.from_numpy(raw.view(kind).reshape(layers, frames, dim)), None
