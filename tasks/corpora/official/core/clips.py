"""Clips of Common Voice: where they lie, and by which suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".mp3", ".wav", ".flac")


class Clips:
    """Finds clips in ``clips`` of the corpus and in audio roots (or their ``clips``).

    A clip may have been converted: where the named file is not there, one of the same name with
    another suffix is taken.

    Args:
        folder: of the corpus' tables.
        audio_root: further folders.
    """

    def __init__(self, folder: Path, audio_root: Sequence[str | Path] = ()) -> None:
        roots = [Path(root).expanduser().absolute() for root in audio_root]
        self.folders = [
            f for f in (folder / "clips", *(r / "clips" for r in roots), *roots) if f.is_dir()
        ]

    def find(self, name: str) -> Path:
        """Return the file of a clip.

        Raises:
            ValueError: no folder holds it.
        """
        asked = Path(name)
        names = [asked, *(asked.with_suffix(s) for s in SUFFIXES if s != asked.suffix)]
        for folder in self.folders:
            for candidate in names:
                if (folder / candidate).is_file():
                    return folder / candidate
        looked = ", ".join(map(str, self.folders)) or "no folder clips (see --audio-root)"
        raise ValueError(f"no clip {name}; looked in {looked}")
