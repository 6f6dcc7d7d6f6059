"""Reading somebody's zip: members are read into memory, nothing is ever written.

A zip can lie. Names may lead out of the folder, be there twice, or look alike; sizes may be wrong, or
a few kilobytes grow to gigabytes; entries may be links or share their bytes. All of that is refused
before the first byte is decompressed, and what is decompressed is counted.
"""

from __future__ import annotations

import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

MEMBERS = 20_000  # LibriMix has 3000 recordings, SUPERB 16 files more
FILE_BYTES = 512 * 2**20
DIRECTORY_BYTES = MEMBERS * 256
MEMBER_BYTES = 256 * 2**20
TOTAL_BYTES = 512 * 2**20
RATIO = 200  # text repeats itself, not two hundred times
SMALL = 2**20  # below this a ratio does no harm
RESERVED = set('<>:"|?*\\')
_LOCAL = struct.Struct("<4s22x2H")  # ends with the lengths of name and extra field
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")


class UnsafeZipError(ValueError):
    """A zip that is not read, with the reason."""


def read(path: Path) -> dict[str, bytes]:
    """Return the files of a zip by name.

    Raises:
        FileNotFoundError: there is none.
        UnsafeZipError: no zip, a damaged one, or one that could do harm.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    with path.open("rb") as file:
        _end(file, path)
        try:
            with zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
                check(infos, path)
                _apart(infos, file, archive.start_dir, path)
                return {i.filename: _member(archive, i, path) for i in infos if not i.is_dir()}
        except UnsafeZipError:
            raise
        except (
            zipfile.BadZipFile, NotImplementedError, OSError, ValueError, OverflowError, struct.error,
        ) as error:  # fmt: skip  # whatever zipfile makes of a directory that lies
            raise UnsafeZipError(f"{path} is no zip, or a damaged one: {error}") from error


def check(infos: list[zipfile.ZipInfo], path: Path) -> None:
    """Refuse a table of contents that could do harm.

    Raises:
        UnsafeZipError: with the first reason found.
    """
    if not infos:
        raise UnsafeZipError(f"{path} is empty")
    if len(infos) > MEMBERS:
        raise UnsafeZipError(f"{path} has {len(infos)} entries; at most {MEMBERS} are read")
    seen: dict[str, str] = {}
    total = 0
    for info in infos:
        name = info.filename
        if problem := name_problem(info.orig_filename):
            raise UnsafeZipError(f"{path}: entry {name!r} {problem}")
        plain = unicodedata.normalize("NFKC", name).casefold().rstrip("/")
        if plain in seen:
            raise UnsafeZipError(
                f"{path}: entries {seen[plain]!r} and {name!r} have the same or a confusable name"
            )
        seen[plain] = name
        mode = info.external_attr >> 16
        if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_IFMT(mode) == 0):
            raise UnsafeZipError(f"{path}: entry {name!r} is a link or a device, not a file")
        if info.flag_bits & 0x1:
            raise UnsafeZipError(f"{path}: entry {name!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnsafeZipError(f"{path}: entry {name!r} is neither stored nor deflated")
        if info.file_size > MEMBER_BYTES:
            raise UnsafeZipError(
                f"{path}: entry {name!r} would be {info.file_size} bytes; at most {MEMBER_BYTES}"
            )
        if info.file_size > max(SMALL, RATIO * info.compress_size):
            raise UnsafeZipError(
                f"{path}: entry {name!r} grows from {info.compress_size} to {info.file_size} bytes: "
                "that is a bomb, not a submission"
            )
        total += info.file_size
    if total > TOTAL_BYTES:
        raise UnsafeZipError(f"{path} would be {total} bytes in all; at most {TOTAL_BYTES}")
    for one in sorted(seen):
        parent = one.rpartition("/")[0]
        if parent in seen and not seen[parent].endswith("/"):
            raise UnsafeZipError(f"{path}: entry {seen[parent]!r} is a file and a folder")


def name_problem(name: str) -> str | None:
    """Return what is wrong with the name of an entry, if anything."""
    if not name or "\0" in name:
        return "has no name, or a zero byte in it"
    if name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":"):
        return "has an absolute name"
    if any(ord(c) < 32 or ord(c) == 127 or c in RESERVED for c in name):
        return "has characters that no file name should have"
    if any(unicodedata.category(c) == "Cf" for c in name):
        return "has invisible characters in its name"
    parts = name.rstrip("/").split("/")
    if ".." in parts:
        return "leads out of the folder"
    if any(
        part in ("", ".") or part != part.rstrip(". ") or part != part.lstrip() for part in parts
    ):
        return "has a part that is empty, or begins or ends with a dot or a space"
    return None


def _end(file: BinaryIO, path: Path) -> None:
    """Refuse a table of contents that is too large to be read, before it is."""
    size = file.seek(0, os.SEEK_END)
    if size > FILE_BYTES:
        raise UnsafeZipError(f"{path} has {size} bytes; at most {FILE_BYTES} are read")
    first = max(0, size - _END.size - 2**16)
    file.seek(first)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise UnsafeZipError(f"{path} is no zip, or a damaged one: it has no table of contents")
    _, _, _, _, count, length, _, _ = _END.unpack_from(tail, at)
    before = at - _LOCATOR64.size
    if before >= 0 and tail[before : before + 4] == b"PK\6\7":
        _, _, where, _ = _LOCATOR64.unpack_from(tail, before)
        file.seek(min(where, size))
        record = file.read(_END64.size)
        if len(record) < _END64.size or record[:4] != b"PK\6\6":
            raise UnsafeZipError(f"{path} is no zip, or a damaged one: no table of contents")
        count, length = _END64.unpack(record)[7:9]
    if count > MEMBERS:
        raise UnsafeZipError(f"{path} has {count} entries; at most {MEMBERS} are read")
    if length > DIRECTORY_BYTES:
        raise UnsafeZipError(
            f"{path} has a table of contents of {length} bytes; at most {DIRECTORY_BYTES} are read"
        )


def _apart(infos: Sequence[zipfile.ZipInfo], file: BinaryIO, limit: int, path: Path) -> None:
    """Refuse entries that share bytes: a few of them can pretend to be petabytes.

    Args:
        infos: all entries.
        file: the zip.
        limit: where the table of contents begins.
        path: to name it.
    """
    end, before = 0, ""
    for info in sorted(infos, key=lambda i: i.header_offset):
        if info.header_offset < end:
            raise UnsafeZipError(f"{path}: entries {before!r} and {info.filename!r} overlap")
        if not end and info.header_offset:
            raise UnsafeZipError(f"{path}: something else comes before the first entry")
        file.seek(info.header_offset)
        head = file.read(_LOCAL.size)
        if len(head) < _LOCAL.size or head[:4] != b"PK\3\4":
            raise UnsafeZipError(f"{path}: entry {info.filename!r} is damaged: it has no header")
        _, name, extra = _LOCAL.unpack(head)
        end = info.header_offset + _LOCAL.size + name + extra + info.compress_size
        before = info.filename
    if end > limit:
        raise UnsafeZipError(f"{path}: entry {before!r} overlaps the table of contents")


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bytes:
    """Decompress one entry, and no more of it than it says."""
    try:
        with archive.open(info) as file:
            data = file.read(info.file_size + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UnsafeZipError(f"{path}: entry {info.filename!r} is damaged: {error}") from error
    if len(data) != info.file_size:
        raise UnsafeZipError(f"{path}: entry {info.filename!r} is not as long as it says")
    return data
