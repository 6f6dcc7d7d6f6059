"""One reader interface over the three kinds: means kept, frames kept, or nothing kept.

Shape suffixes: B batch, L layers, T frames, D width.

Everything is read by position and one batch at a time; every record is held against its checksum
when it is read. What stays in memory is one small row per utterance.
"""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from mynah.upstream.store.codec import NAMES, Dtype, Kind, decode_frames
from mynah.upstream.store.folder import Folder, Table
from mynah.upstream.store.shard import read_into

OPEN_FILES = 64


class Item(NamedTuple):
    """One utterance to extract.

    Attributes:
        id: unique among the items of a reader.
        key: 16 bytes that identify the audio (bytes, stretch, channel, sample rate) whatever it is
            called: the first half of a sha256.
        num_samples: at the upstream's sample rate.
        load: returns the float32 waveform of exactly that many samples.
    """

    id: str
    key: bytes
    num_samples: int
    load: Callable[[], np.ndarray]


@dataclass(kw_only=True)
class Stats:
    """What an extraction did.

    Attributes:
        computed: audio segments that went through the upstream.
        reused: utterances whose features were there already (or shared another's audio).
        forwards: batches that went through the upstream.
        audio_seconds: of the computed ones.
        cpu_seconds: of this process, from start to end.
        wall_seconds: from start to end.
        bytes_written: size of the new shards.
        fallbacks: records kept in float32 because float16 could not hold them.
    """

    computed: int = 0
    reused: int = 0
    forwards: int = 0
    audio_seconds: float = 0.0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    bytes_written: int = 0
    fallbacks: int = 0


class Reader(ABC):
    """Features by utterance id.

    Attributes:
        kind: ``pooled``, ``frames`` or ``stream``.
        num_layers: L.
        dim: D.
        sample_rate: Hz of the audio that the upstream took.
        stride: samples between frames.
        stats: what opening this reader computed.
        choice: why this kind, where ``auto`` chose it.
    """

    kind: Kind

    def __init__(self, *, num_layers: int, dim: int, sample_rate: int, stride: int) -> None:
        self.num_layers = num_layers
        self.dim = dim
        self.sample_rate = sample_rate
        self.stride = stride
        self.stats = Stats()
        self.choice = ""

    @abstractmethod
    def pooled(self, ids: Sequence[str]) -> Tensor:
        """Return each utterance's time mean of every layer, (B, L, D) float32."""

    @abstractmethod
    def frames(self, ids: Sequence[str]) -> list[Tensor]:
        """Return each utterance's frames, a list of (L, T, D) float32."""

    @abstractmethod
    def lengths(self, ids: Sequence[str]) -> Tensor:
        """Return each utterance's number of frames, (B,) int64."""

    def padded(
        self,
        ids: Sequence[str],
        *,
        dtype: torch.dtype = torch.float32,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Return a batch of frames, (L, B, T, D), exact zeros after each utterance's end.

        Args:
            ids: the utterances.
            dtype: of the result.
            memory: a flat tensor of this dtype to put the result in, so that a loop does not
                allocate for every batch (fresh pages cost more than reading); where it is too
                small it is not used.
        """
        parts = self.frames(ids)
        top = max((p.shape[1] for p in parts), default=0)
        batch_LBTD = self._room(len(parts), top, dtype, memory)
        for b, part_LTD in enumerate(parts):
            batch_LBTD[:, b, : part_LTD.shape[1]] = part_LTD
            batch_LBTD[:, b, part_LTD.shape[1] :] = 0
        return batch_LBTD

    def _room(self, batch: int, top: int, dtype: torch.dtype, memory: Tensor | None) -> Tensor:
        shape = (self.num_layers, batch, top, self.dim)
        needed = self.num_layers * batch * top * self.dim
        if memory is None or memory.dtype != dtype or memory.numel() < needed:
            return torch.empty(shape, dtype=dtype)
        return memory.view(-1)[:needed].view(shape)

    def close(self) -> None:  # noqa: B027 - most readers hold nothing open
        """Give back open files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def unknown(name: str) -> LookupError:
    """Return the error for an id that a reader was not opened for."""
    return LookupError(f"utterance {name!r} is not among the items that this reader was opened for")


class StoredReader(Reader):
    """Reads a folder of shards.

    Args:
        folder: where the records are.
        table: its index.
        items: the utterances; each must have a record.

    Raises:
        LookupError: an item has no record.
        ValueError: two items share an id.
    """

    def __init__(self, folder: Folder, table: Table, items: Sequence[Item]) -> None:
        meta = folder.meta
        super().__init__(
            num_layers=meta.num_layers,
            dim=meta.dim,
            sample_rate=meta.sample_rate,
            stride=meta.stride,
        )
        self.kind = meta.kind
        self.folder = folder
        rows = table.find([item.key for item in items])
        absent = np.flatnonzero(rows < 0)
        if len(absent):
            some = ", ".join(repr(items[i].id) for i in absent[:5])
            raise LookupError(
                f"{len(absent)} of {len(items)} utterances have no features in {folder.path}: "
                f"{some}; run 'mynah extract' on the corpus"
            )
        self._at = {item.id: i for i, item in enumerate(items)}
        if len(self._at) != len(items):
            raise ValueError("utterance ids must be unique: two items share one")
        self._entries = table.entries[rows]
        self._shard = table.shard[rows]
        self._row = table.row[rows]
        self._paths = table.paths
        self._files: OrderedDict[int, int] = OrderedDict()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the shards; they are opened again when needed."""
        for fd in getattr(self, "_files", {}).values():
            os.close(fd)
        self._files = OrderedDict()

    def lengths(self, ids: Sequence[str]) -> Tensor:
        """Return each utterance's number of frames, (B,) int64."""
        rows = [self._index(name) for name in ids]
        return torch.from_numpy(self._entries["frames"][rows].astype(np.int64))

    def pooled(self, ids: Sequence[str]) -> Tensor:
        """Return each utterance's time mean of every layer, (B, L, D) float32.

        Raises:
            LookupError: unknown id.
            DamagedRecordError: a checksum differs.
        """
        if self.kind == "frames":
            means = [part_LTD.mean(1) for part_LTD in self.frames(ids)]
            return torch.stack(means) if means else torch.empty(0, self.num_layers, self.dim)
        out_BLD = np.empty((len(ids), self.num_layers, self.dim), dtype="<f4")
        for b, name in enumerate(ids):
            self._read(self._index(name), out_BLD[b])
        return torch.from_numpy(out_BLD)

    def frames(self, ids: Sequence[str]) -> list[Tensor]:
        """Return each utterance's frames, a list of (L, T, D) float32.

        Raises:
            ValueError: this reader has means only.
            LookupError: unknown id.
            DamagedRecordError: a checksum differs.
        """
        out = []
        for name in ids:
            values_LTD, scale_LD = self._decode(name)
            part_LTD = values_LTD.float()
            out.append(part_LTD if scale_LD is None else part_LTD.mul_(scale_LD[:, None]))
        return out

    def padded(
        self,
        ids: Sequence[str],
        *,
        dtype: torch.dtype = torch.float32,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Return a batch of frames, (L, B, T, D), exact zeros after each utterance's end.

        Each record is converted straight into its place; see :meth:`Reader.padded`.
        """
        lengths = self.lengths(ids).tolist()
        top = max(lengths, default=0)
        batch_LBTD = self._room(len(ids), top, dtype, memory)
        largest = max((int(self._entries["nbytes"][self._index(n)]) for n in ids), default=0)
        scratch = np.empty(largest, dtype=np.uint8)
        for b, (name, t) in enumerate(zip(ids, lengths, strict=True)):
            values_LTD, scale_LD = self._decode(name, scratch)
            batch_LBTD[:, b, :t] = values_LTD
            if scale_LD is not None:
                batch_LBTD[:, b, :t] *= scale_LD[:, None].to(dtype)
            batch_LBTD[:, b, t:] = 0
        return batch_LBTD

    def _index(self, name: str) -> int:
        row = self._at.get(name)
        if row is None:
            raise unknown(name)
        return row

    def _decode(self, name: str, scratch: np.ndarray | None = None) -> tuple[Tensor, Tensor | None]:
        if self.kind != "frames":
            raise ValueError(
                "these features are time means (kind 'pooled'): open the store with kind "
                "'frames' or 'stream' for a head that reads frames"
            )
        i = self._index(name)
        nbytes = int(self._entries["nbytes"][i])
        raw = np.empty(nbytes, dtype=np.uint8) if scratch is None else scratch[:nbytes]
        self._read(i, raw)
        return decode_frames(
            raw,
            self._dtype(i),
            layers=self.num_layers,
            frames=int(self._entries["frames"][i]),
            dim=self.dim,
        )

    def _dtype(self, i: int) -> Dtype:
        return NAMES[int(self._entries["code"][i])]

    def _read(self, i: int, buffer: np.ndarray) -> None:
        entry = self._entries[i]
        shard = int(self._shard[i])
        got = read_into(self._file(shard), buffer, int(entry["offset"]))
        size = int(entry["nbytes"])
        if got != size or buffer.nbytes != size or zlib.crc32(buffer.data) != int(entry["crc"]):
            raise self.folder.explain(self._paths[shard], int(self._row[i]))

    def _file(self, shard: int) -> int:
        fd = self._files.get(shard)
        if fd is None:
            path: Path = self._paths[shard]
            try:
                fd = os.open(path, os.O_RDONLY)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"{path} is gone (repaired or removed since this reader was opened): "
                    "run the same command again"
                ) from error
            self._files[shard] = fd
            if len(self._files) > OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
        else:
            self._files.move_to_end(shard)
        return fd
