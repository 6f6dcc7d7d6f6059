"""One shard: records back to back, then their index, in one file that appears whole or not at all.

Layout (little endian)::

    magic (8 bytes) | records | index (one ENTRY per record) | ids (JSON list) | tail

The tail holds where the index starts, its sizes and a crc32 over index and ids. A shard is written
under a temporary name, flushed to disk and then renamed, so whoever lists ``*.shard`` sees whole
shards only; a process killed while writing leaves a ``*.part`` file that is swept by the next
writer. Reading is positional (``os.pread``): nothing is mapped, so a damaged or shortened file is
an error, never a signal.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import struct
import zlib
from pathlib import Path

import numpy as np

from mynah.files import sync_folder
from mynah.upstream.store.codec import CODES, Record

HEAD = b"MYNAHSH1"
TAIL = struct.Struct("<8sQQQIQ")  # magic, index offset, records, bytes of ids, crc32, file size
TAIL_MAGIC = b"MYNAHIX1"
ENTRY = np.dtype(
    [
        ("key", "<u8", (2,)),
        ("offset", "<u8"),
        ("nbytes", "<u8"),
        ("frames", "<u4"),
        ("crc", "<u4"),
        ("code", "u1"),
    ]
)


class ShardDamagedError(ValueError):
    """A shard's index cannot be trusted; the message names the file."""


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte; a short write on a full disk raises the OSError that the next one gives."""
    view = memoryview(data).cast("B")
    while len(view):
        view = view[os.write(fd, view) :]


class ShardWriter:
    """Writes one shard into a folder.

    Args:
        folder: where; it must exist.
        label: part of the file names, to tell writers apart.
    """

    def __init__(self, folder: Path, label: str) -> None:
        self._folder = folder
        self._stem = f"{label}-{secrets.token_hex(6)}"
        self._part = folder / f"{self._stem}.part"
        self._entries: list[tuple[tuple[int, int], int, int, int, int, int]] = []
        self._ids: list[str] = []
        self._at = 0
        self._fd = -1

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes written so far."""
        return self._at

    def add(self, key: bytes, name: str, record: Record) -> None:
        """Append one record.

        Args:
            key: its 16-byte audio key.
            name: id of the utterance, to name it where the record turns out damaged.
            record: what to write.

        Raises:
            OSError: the disk is full or failing; the unfinished shard is removed.
        """
        if self._fd < 0:
            self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            self._put(HEAD)
        start, crc = self._at, 0
        for part in record.payload:
            crc = zlib.crc32(part, crc)
            self._put(part)
        halves = struct.unpack("<QQ", key)
        self._entries.append(
            (halves, start, self._at - start, record.frames, crc, CODES[record.dtype])
        )
        self._ids.append(name)

    def commit(self) -> Path | None:
        """Make the shard visible, flushed to disk; returns its path, None where nothing was added.

        Raises:
            OSError: the disk is full or failing; the unfinished shard is removed.
        """
        if not self._entries:
            return None
        index = np.array(self._entries, dtype=ENTRY).tobytes()
        ids = json.dumps(self._ids).encode()
        offset = self._at
        crc = zlib.crc32(ids, zlib.crc32(index))
        size = offset + len(index) + len(ids) + TAIL.size
        tail = TAIL.pack(TAIL_MAGIC, offset, len(self._entries), len(ids), crc, size)
        for block in (index, ids, tail):
            self._put(block)
        target = self._folder / f"{self._stem}.shard"
        try:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._part.rename(target)
            sync_folder(self._folder)
        except OSError as error:
            self.abandon()
            raise self._explain(error) from error
        self._entries.clear()
        return target

    def abandon(self) -> None:
        """Remove what was written."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._part.unlink(missing_ok=True)
        self._entries.clear()

    def _put(self, data: bytes | memoryview) -> None:
        try:
            write_all(self._fd, data)
        except OSError as error:
            self.abandon()
            raise self._explain(error) from error
        self._at += len(data)

    def _explain(self, error: OSError) -> OSError:
        code = error.errno or errno.EIO
        return OSError(
            code,
            f"{os.strerror(code)} while writing features after {self._at} bytes of a shard; "
            "every finished shard is kept: free some space (or choose another store, or int8 "
            "or pooled features) and run the same command again",
            str(self._part),
        )


def read_index(path: Path) -> tuple[np.ndarray, list[str]]:
    """Return a shard's index (an array of ENTRY) and the ids of its records.

    Raises:
        ShardDamagedError: the file is short, or its index does not have its checksum.
        OSError: the file cannot be read.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        raw = os.pread(fd, TAIL.size, max(0, size - TAIL.size))
        if len(raw) == TAIL.size:
            magic, offset, count, ids_bytes, crc, declared = TAIL.unpack(raw)
            wanted = count * ENTRY.itemsize + ids_bytes
            if magic == TAIL_MAGIC and declared == size == offset + wanted + TAIL.size:
                block = os.pread(fd, wanted, offset)
                if len(block) == wanted and zlib.crc32(block) == crc:
                    cut = count * ENTRY.itemsize
                    return np.frombuffer(block[:cut], dtype=ENTRY), json.loads(block[cut:])
    finally:
        os.close(fd)
    raise ShardDamagedError(
        f"{path}: the index at the end of this shard is damaged or the file is cut short "
        f"({size} bytes)"
    )


def read_into(fd: int, buffer: np.ndarray, offset: int) -> int:
    """Fill a contiguous array from a position of a file; returns the number of bytes read."""
    view = buffer.data.cast("B")
    done = 0
    while done < len(view):
        if hasattr(os, "preadv"):
            got = os.preadv(fd, [view[done:]], offset + done)
        else:
            chunk = os.pread(fd, len(view) - done, offset + done)
            got = len(chunk)
            view[done : done + got] = chunk
        if not got:
            break
        done += got
    return done
