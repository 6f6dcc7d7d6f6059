"""Files and folders that are there whole or not at all, and the sha256 of a file.

Used by every floor; imports nothing heavy. What is written gets a name of its own in the same folder,
is flushed to the disk and then renamed, and the folder is flushed too: whoever looks, after a crash
or a power cut as well, sees the old file or the new one. Two processes that write one file do not
disturb each other; the later one wins. Permissions are those that the umask gives a new file.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")  # names of :func:`beside`


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty file in the same folder; rename it over ``path`` if the block succeeds.

    If the block fails the new file is removed and ``path`` is left as it was. What the block does
    with the permissions of the new file is undone: some writers let nobody but the owner read.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: the disk is full or refuses.
    """
    path = Path(path)
    temporary = beside(path)
    try:
        # made by open(), so that the kernel applies the umask: it cannot be read without setting it
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        mode = os.fstat(handle).st_mode & 0o7777
        os.close(handle)
        yield temporary
        temporary.chmod(mode)
        sync_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all; the folder is made if it is not there.

    What is no regular file (``/dev/stdout``, a pipe) is written to as it is.

    Raises:
        OSError: the disk is full or refuses; what was there before is left as it was.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text as :func:`write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def new_folder(out: str | os.PathLike[str], *, over: bool = False) -> Iterator[Path]:
    """Give an empty folder beside ``out``; rename it to ``out`` if the block succeeds.

    If the block fails it is removed with all that is in it. Files are flushed by those who write
    them, or by :func:`sync_tree`.

    Args:
        out: where the folder is to be; links are followed.
        over: put it in place of a folder that is there, which is moved aside and then deleted;
            otherwise only an empty folder may be there.

    Raises:
        OSError: the disk refuses, or ``out`` holds something and ``over`` is false.
    """
    out = Path(out).resolve()
    made = beside(out)
    try:
        made.mkdir(parents=True)
    except OSError as error:  # which names the temporary folder, and says "no such file" of /proc
        reason = f"cannot be made: {error.strerror}"
        raise type(error)(error.errno, reason, str(out)) from error
    try:
        yield made
        sync_folder(made)
        if over and out.is_dir():
            old = beside(out)
            out.rename(old)
            try:
                made.rename(out)
            except BaseException:
                old.rename(out)
                raise
            sync_folder(out.parent)
            shutil.rmtree(old, ignore_errors=True)
        else:
            made.replace(out)  # onto nothing, or onto an empty folder
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    sync_folder(out.parent)


def beside(path: Path) -> Path:
    """Return a name in the folder of ``path`` that nothing has."""
    return path.with_name(f".{path.name[:48]}.{secrets.token_hex(6)}.tmp")


def tidy(folder: Path) -> None:
    """Delete what killed processes left unfinished in a folder that nobody else writes into."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if UNFINISHED.fullmatch(path.name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Flush what was written to a file to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below a folder, and itself, to the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    sync_folder(folder)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
