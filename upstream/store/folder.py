"""A store is a folder of folders: one per (upstream fingerprint, kind, dtype), full of shards.

::

    <store>/<upstream>-<fingerprint, 16 digits>/<kind>-<dtype>/meta.json
                                                             /<label>-<random>.shard
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mynah.files import sync_folder, write_text
from mynah.upstream.core.contract import Upstream
from mynah.upstream.store.codec import FRAME_DTYPES, KINDS, Dtype, Kind
from mynah.upstream.store.shard import (
    ENTRY,
    ShardDamagedError,
    ShardWriter,
    read_index,
    read_into,
)

log = logging.getLogger(__name__)

FORMAT = 1
PART_MAX_AGE = 24 * 3600.0


class DamagedRecordError(OSError):
    """A record does not have its checksum (errno EIO); the message names it and says what to do."""


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What a folder's features are; ``fingerprint`` covers weights, config and precision."""

    format: int
    upstream: str
    fingerprint: str
    precision: str
    kind: Kind
    dtype: Dtype
    num_layers: int
    dim: int
    stride: int
    sample_rate: int


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Something that a check found: a bad record (with its id), or a whole shard (id None)."""

    path: Path
    id: str | None
    row: int | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """The index of a folder as plain arrays, sorted by key, one row per record.

    Attributes:
        entries: structured array of :data:`~mynah.upstream.store.shard.ENTRY`.
        shard: number of each row's shard in ``paths``.
        row: number of each row in its shard's index.
        paths: the shards.
    """

    entries: np.ndarray
    shard: np.ndarray
    row: np.ndarray
    paths: tuple[Path, ...]

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return the row of each 16-byte key, -1 where it is absent."""
        found = np.full(len(keys), -1, dtype=np.int64)
        if not len(keys) or not len(self.entries):
            return found
        wanted = np.frombuffer(b"".join(keys), dtype="<u8").reshape(-1, 2)
        known = self.entries["key"]
        at = np.searchsorted(known[:, 0], wanted[:, 0])
        while True:
            open_ = (found < 0) & (at < len(known))
            open_[open_] = known[at[open_], 0] == wanted[open_, 0]
            if not open_.any():
                return found
            hit = open_.copy()
            hit[open_] = known[at[open_], 1] == wanted[open_, 1]
            found[hit] = at[hit]
            at[open_ & ~hit] += 1


class Folder:
    """One content-addressed folder of shards.

    Args:
        path: where it is or will be.
        meta: what its features are.
    """

    def __init__(self, path: Path, meta: Meta) -> None:
        self.path = path
        self.meta = meta
        said = path / "meta.json"
        if said.is_file():
            found = json.loads(said.read_text(encoding="utf-8"))
            differing = [k for k, v in asdict(meta).items() if found.get(k) != v]
            if differing:
                raise ValueError(
                    f"{said} describes other features: "
                    + ", ".join(
                        f"{k} is {found.get(k)!r}, expected {getattr(meta, k)!r}" for k in differing
                    )
                    + "; choose another store folder or remove this one"
                )

    def prepare(self, label: str) -> None:
        """Make the folder ready for a writer and sweep what a killed one left.

        Args:
            label: of this writer, whose lock is held.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "meta.json").is_file():
            write_text(self.path / "meta.json", json.dumps(asdict(self.meta), indent=2) + "\n")
        now = time.time()
        for part in (*self.path.glob("*.part"), *self.path.glob(".*.tmp")):
            old = now - part.stat().st_mtime > PART_MAX_AGE
            if old or part.name.rpartition("-")[0] == label:
                part.unlink(missing_ok=True)

    def writer(self, label: str) -> ShardWriter:
        """Return a writer of one new shard."""
        return ShardWriter(self.path, label)

    def shards(self) -> list[Path]:
        """Return the whole shards, sorted by name."""
        return sorted(self.path.glob("*.shard"))

    def table(self) -> Table:
        """Read every index; a shard whose index is damaged counts as absent and is logged."""
        paths: list[Path] = []
        blocks: list[np.ndarray] = []
        for path in self.shards():
            try:
                index, _ = read_index(path)
            except FileNotFoundError:
                continue
            except ShardDamagedError as error:
                log.warning("%s: its records count as missing", error)
                continue
            paths.append(path)
            blocks.append(index)
        sizes = [len(b) for b in blocks]
        entries = np.concatenate(blocks) if blocks else np.empty(0, dtype=ENTRY)
        shard = np.repeat(np.arange(len(blocks), dtype=np.uint32), sizes)
        row = np.concatenate([np.arange(n, dtype=np.uint32) for n in sizes] or [np.empty(0, "u4")])
        order = np.lexsort((entries["key"][:, 1], entries["key"][:, 0]))
        return Table(entries=entries[order], shard=shard[order], row=row[order], paths=tuple(paths))

    def damage(self) -> Iterator[Damage]:
        """Read every record of every shard and yield what does not have its checksum."""
        for path in self.shards():
            try:
                index, ids = read_index(path)
            except ShardDamagedError as error:
                yield Damage(path=path, id=None, row=None, reason=str(error))
                continue
            fd = os.open(path, os.O_RDONLY)
            try:
                for row, entry in enumerate(index):
                    buffer = np.empty(int(entry["nbytes"]), dtype=np.uint8)
                    got = read_into(fd, buffer, int(entry["offset"]))
                    if got != len(buffer) or zlib.crc32(buffer.data) != int(entry["crc"]):
                        reason = f"{path}: the record of utterance {ids[row]!r} is damaged"
                        yield Damage(path=path, id=ids[row], row=row, reason=reason)
            finally:
                os.close(fd)

    def drop(self, damage: Sequence[Damage]) -> None:
        """Remove damaged records and shards; what is left of a shard is copied to a new one.

        Raises:
            OSError: the disk is full; the old shard is kept.
        """
        for path in sorted({d.path for d in damage}):
            mine = [d for d in damage if d.path == path]
            bad = {d.row for d in mine}
            if None not in bad:
                self._copy_without(path, {row for row in bad if row is not None})
            path.unlink(missing_ok=True)
            sync_folder(self.path)

    def _copy_without(self, path: Path, bad: set[int]) -> None:
        from mynah.upstream.store.codec import NAMES, Record

        index, ids = read_index(path)
        writer = self.writer("repaired")
        fd = os.open(path, os.O_RDONLY)
        try:
            for row, entry in enumerate(index):
                if row in bad:
                    continue
                buffer = np.empty(int(entry["nbytes"]), dtype=np.uint8)
                read_into(fd, buffer, int(entry["offset"]))
                record = Record(
                    dtype=NAMES[int(entry["code"])],
                    frames=int(entry["frames"]),
                    payload=(buffer.data,),
                )
                writer.add(entry["key"].tobytes(), ids[row], record)
            writer.commit()
        finally:
            writer.abandon()
            os.close(fd)

    def explain(self, path: Path, row: int) -> DamagedRecordError:
        """Return the error for a record that was found damaged when it was read."""
        try:
            name = repr(read_index(path)[1][row])
        except (OSError, ShardDamagedError, IndexError):
            name = f"number {row}"
        return DamagedRecordError(
            errno.EIO,
            f"the stored features of utterance {name} are damaged (checksum differs): run "
            "'mynah extract' with the same upstream, corpus and store and --repair, which drops "
            "and computes again what is damaged",
            str(path),
        )


class FeatureStore:
    """A store's root folder.

    Args:
        root: the folder; created by the first extraction.

    Raises:
        NotADirectoryError: it is a file.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise NotADirectoryError(f"{root} is a file: give a folder for the features")

    def folder(
        self, upstream: Upstream, kind: Kind, dtype: Dtype, *, fingerprint: str | None = None
    ) -> Folder:
        """Return the folder of one upstream's features.

        Args:
            upstream: a frozen upstream.
            kind: ``pooled`` or ``frames``.
            dtype: ``float32`` for pooled; ``float16``, ``int8`` or ``float32`` for frames.
            fingerprint: of the upstream, where it is known already.

        Raises:
            ValueError: unknown kind or dtype, an upstream that is not frozen, or a folder that
                describes other features.
        """
        check(kind, dtype)
        if not upstream.frozen:
            raise ValueError("features are kept of frozen upstreams only: call upstream.freeze()")
        fingerprint = fingerprint or upstream.fingerprint()
        meta = Meta(
            format=FORMAT,
            upstream=upstream.name,
            fingerprint=fingerprint,
            precision=upstream.precision,
            kind=kind,
            dtype=dtype,
            num_layers=upstream.num_layers,
            dim=upstream.dim,
            stride=upstream.stride,
            sample_rate=upstream.sample_rate,
        )
        name = f"{upstream.name}-{fingerprint[:16]}"
        return Folder(self.root / name / f"{kind}-{dtype}", meta)

    def folders(self) -> list[Folder]:
        """Return every folder of the store.

        Raises:
            ValueError: a ``meta.json`` is not of this format.
        """
        out = []
        for path in sorted(self.root.glob("*/*/meta.json")):
            said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            try:
                meta = Meta(**said)
            except TypeError as error:
                raise ValueError(f"{path} is not of format {FORMAT}: {error}") from error
            out.append(Folder(path.parent, meta))
        return out


def check(kind: str, dtype: str) -> None:
    """Raise ValueError unless ``dtype`` is one that ``kind`` is kept in."""
    if kind not in ("pooled", "frames"):
        raise ValueError(f"kind must be 'pooled' or 'frames' to be kept, got {kind!r} of {KINDS}")
    allowed = ("float32",) if kind == "pooled" else FRAME_DTYPES
    if dtype not in allowed:
        raise ValueError(f"{kind} features are kept as {', '.join(allowed)}; got {dtype!r}")
