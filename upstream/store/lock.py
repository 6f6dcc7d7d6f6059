"""One writer per folder (a run's, or a slice of a store's): a lock file that the dead cannot keep.

The kernel's advisory lock on the file is what counts; it goes away with its process, so nothing
has to be guessed about stale locks. The file's text (pid and host) is there to name the holder.
On a file system without locks writers get past each other. In a store that wastes work but spoils
nothing: shards have unique names and records are found by key.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Hold:
    """What became of asking for a lock; true where the asker may write.

    Attributes:
        granted: whether it is held (or the file system has no locks).
        holder: who has it where it is not granted.
        recovered: who had it before and died without giving it back; None for nobody.
    """

    granted: bool
    holder: str = ""
    recovered: str | None = None

    def __bool__(self) -> bool:
        return self.granted


def _holder(fd: int) -> str:
    try:
        said = json.loads(os.pread(fd, 4096, 0))
        return f"process {said['pid']} on {said['host']}"
    except (ValueError, KeyError, TypeError):
        return "an unknown process"


@contextmanager
def lock(path: Path, *, wait: bool = True, poll: float = 0.2) -> Iterator[Hold]:
    """Hold a lock file; yields whether it is held, and by whom otherwise.

    Args:
        path: the lock file; created where absent and never removed.
        wait: wait for a living holder; otherwise yield a false value at once.
        poll: seconds between tries.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    held = told = False
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
                break
            except OSError as error:
                if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    log.warning("%s: this file system has no locks; going on without", path)
                    break
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
            if not wait:
                yield Hold(granted=False, holder=_holder(fd))
                return
            if not told:
                told = True
                log.warning("%s is held by %s: waiting for it to finish", path, _holder(fd))
            time.sleep(poll)
        recovered = None
        if held:
            if os.fstat(fd).st_size:
                recovered = _holder(fd)
                log.info("%s: recovered from %s, which ended without release", path, recovered)
            text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
            os.ftruncate(fd, 0)
            os.pwrite(fd, text.encode(), 0)
        try:
            yield Hold(granted=True, recovered=recovered)
        finally:
            if held:
                os.ftruncate(fd, 0)
    finally:
        os.close(fd)
