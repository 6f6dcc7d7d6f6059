"""What a record is filed under: the identity of a stretch of audio, not its name.

Two utterances with the same bytes, segment, channel and resampling are one record, whatever they
are called and wherever their files lie.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

KEY_BYTES = 16


def audio_key(
    digest: str, *, start: float, duration: float, channel: int, sample_rate: int
) -> bytes:
    """Return the 16-byte key of one stretch of one channel of an audio file.

    Args:
        digest: sha256 of the file's bytes, in hexadecimal.
        start: seconds from the start of the file.
        duration: seconds.
        channel: which channel.
        sample_rate: Hz that the audio is resampled to before it reaches the upstream.
    """
    text = f"{digest}|{start:.9g}|{duration:.9g}|{channel}|{sample_rate}"
    return hashlib.sha256(text.encode()).digest()[:KEY_BYTES]


class FileDigests:
    """sha256 of files, remembered by path, size and modification time.

    The memory is a text file to which lines are only ever added, so several processes may share
    it; a line that cannot be read is ignored and its file is hashed again.
    """

    def __init__(self, memory: Path | None = None) -> None:
        self._memory = memory
        self._known: dict[str, tuple[int, int, str]] = {}
        self._new: list[str] = []
        if memory is not None and memory.is_file():
            for line in memory.read_text(encoding="utf-8", errors="replace").splitlines():
                fields = line.split("\t", 3)
                if len(fields) == 4 and len(fields[0]) == 64:
                    digest, size, modified, path = fields
                    if size.isdigit() and modified.isdigit():
                        self._known[path] = (int(size), int(modified), digest)

    def __call__(self, path: str | Path) -> str:
        """Return the sha256 of a file, in hexadecimal.

        Raises:
            OSError: the file cannot be read.
        """
        name = str(Path(path).absolute())
        status = Path(name).stat()
        known = self._known.get(name)
        if known is not None and known[:2] == (status.st_size, status.st_mtime_ns):
            return known[2]
        with Path(name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._known[name] = (status.st_size, status.st_mtime_ns, digest)
        if "\n" not in name:
            self._new.append(f"{digest}\t{status.st_size}\t{status.st_mtime_ns}\t{name}\n")
        return digest

    def save(self) -> None:
        """Add what was hashed since the last call to the memory, in one write.

        Raises:
            OSError: the memory cannot be written.
        """
        if self._memory is None or not self._new:
            return
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._memory, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(fd, "".join(self._new).encode())
        finally:
            os.close(fd)
        self._new.clear()
