"""One writer per folder (and slice of it): a lock file that a dead writer cannot keep.

The kernel's advisory lock on the file is what counts; it goes away with its process, so nothing
has to be guessed about stale locks. The file's text (pid and host) is there to name the holder.
Writers that get past each other on a file system without locks waste work but spoil nothing:
shards have unique names and records are found by key.
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
from pathlib import Path

log = logging.getLogger(__name__)


def _holder(fd: int) -> str:
    try:
        said = json.loads(os.pread(fd, 4096, 0))
        return f"process {said['pid']} on {said['host']}"
    except (ValueError, KeyError, TypeError):
        return "an unknown process"


@contextmanager
def lock(path: Path, *, wait: bool = True, poll: float = 0.2) -> Iterator[bool]:
    """Hold a lock file; yields whether it is held.

    Args:
        path: the lock file; created where absent and never removed.
        wait: wait for a living holder; otherwise yield False at once.
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
                yield False
                return
            if not told:
                told = True
                log.warning("%s is held by %s: waiting for it to finish", path, _holder(fd))
            time.sleep(poll)
        if held:
            if os.fstat(fd).st_size:
                log.info("%s: recovered from %s, which ended without release", path, _holder(fd))
            text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
            os.ftruncate(fd, 0)
            os.pwrite(fd, text.encode(), 0)
        try:
            yield True
        finally:
            if held:
                os.ftruncate(fd, 0)
    finally:
        os.close(fd)
