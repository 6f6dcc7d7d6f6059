"""One folder being filled: takes a batch layer by layer, writes its records, ends shards in time.

Shape suffixes: L layers, T frames, D width.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from mynah.upstream.store.codec import FrameEncoder, Record, encode_pooled
from mynah.upstream.store.folder import Folder
from mynah.upstream.store.reader import Item, Stats
from mynah.upstream.store.shard import ShardWriter

log = logging.getLogger(__name__)


class Sink:
    """Fills one folder.

    Args:
        folder: where records go.
        label: of this writer.
        wanted: audio keys that the folder lacks; others of a batch are passed over.
        stats: where bytes and fallbacks are counted.
        limits: bytes and seconds after which a shard is finished.
    """

    def __init__(
        self,
        folder: Folder,
        label: str,
        wanted: set[bytes],
        stats: Stats,
        limits: tuple[int, float],
    ) -> None:
        self.folder = folder
        self._label = label
        self.wanted = wanted
        self._stats = stats
        self._limits = limits
        self._writer: ShardWriter | None = None
        self._since = 0.0
        self._pooled: dict[int, Tensor] = {}
        self._frames: dict[int, FrameEncoder] = {}

    def begin(self, batch: Sequence[Item], lengths: Sequence[int]) -> None:
        """Make room for a batch whose utterances have these numbers of frames."""
        meta = self.folder.meta
        rows = [b for b, item in enumerate(batch) if item.key in self.wanted]
        if meta.kind == "pooled":
            self._pooled = {b: torch.empty(meta.num_layers, meta.dim) for b in rows}
        else:
            self._frames = {
                b: FrameEncoder(meta.dtype, layers=meta.num_layers, frames=lengths[b], dim=meta.dim)
                for b in rows
            }

    def put(self, layer: int, parts: Sequence[Tensor], peak: float) -> None:
        """Take one layer: (T, D) per utterance, and a bound of all magnitudes."""
        for b, mean_LD in self._pooled.items():
            mean_LD[layer] = parts[b].mean(0)
        for b, encoder in self._frames.items():
            encoder.put(layer, parts[b], peak=peak)

    def end(self, batch: Sequence[Item], lengths: Sequence[int]) -> None:
        """Write the batch.

        Raises:
            OSError: the disk is full; the unfinished shard is removed.
        """
        for b, mean_LD in self._pooled.items():
            self._write(batch[b], encode_pooled(mean_LD, frames=lengths[b]))
        for b, encoder in self._frames.items():
            if encoder.dtype != self.folder.meta.dtype:
                self._stats.fallbacks += 1
                log.warning(
                    "%s: its features go over what float16 holds and are kept in float32",
                    batch[b].id,
                )
            self._write(batch[b], encoder.record())
        self._pooled, self._frames = {}, {}

    def _write(self, item: Item, record: Record) -> None:
        if self._writer is None:
            self._writer = self.folder.writer(self._label)
            self._since = time.monotonic()
        try:
            self._writer.add(item.key, item.id, record)
        except OSError:
            self._writer = None
            raise
        shard_bytes, shard_seconds = self._limits
        late = time.monotonic() - self._since >= shard_seconds
        if self._writer.nbytes >= shard_bytes or late:
            self.commit()

    def commit(self) -> None:
        """Finish the current shard, if there is one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            path = writer.commit()
            self._stats.bytes_written += path.stat().st_size if path else 0
