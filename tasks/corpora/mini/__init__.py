"""``mini``: the embedded corpus, synthesised on the user's machine. See README.md beside this file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mynah.tasks.corpora.corpus import Corpus


def build(
    folder: str | Path,
    *,
    size: str = "small",
    seed: int = 0,
    level: int = 3,
    backend: str = "espeak",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Make the corpus; see :func:`mynah.tasks.corpora.mini.generate.build`."""
    from mynah.tasks.corpora.mini import generate

    return generate.build(
        folder,
        size=size,
        seed=seed,
        level=level,
        backend=backend,
        workers=workers,
        progress=progress,
    )
