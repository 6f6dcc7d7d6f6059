"""Miniatures of official corpora: short sounds on disk, and what an importer makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from mynah.recipes import cli, official
from mynah.tasks.corpora.official import get
from mynah.tasks.corpora.official.core.found import Found
from mynah.tasks.corpora.rows import Problems
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.corpora.validate import validate

RATE = 16000


def sound(path: Path, seconds: float = 0.1, *, rate: int = RATE, seed: int = 0) -> Path:
    """Write a short noise; the suffix says in which format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.random.RandomState(seed).standard_normal(round(seconds * rate))
    soundfile.write(path, wave.astype(np.float32), rate)
    return path


def lines(path: Path, *rows: str) -> Path:
    """Write a text file, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


class Read(NamedTuple):
    """What an importer and the check of the audio make of a source."""

    by_id: dict[str, Utterance]
    messages: list[str]
    problems: Problems
    found: Found

    def of(self, split: str | None) -> list[str]:
        """Return the ids of a split."""
        return [u.id for u in self.by_id.values() if u.split == split]


def read(
    name: str,
    source: Path,
    variant: str | None = None,
    *,
    audio_root: Sequence[Path] = (),
    channel: int | None = None,
) -> Read:
    """Run the importer and the check of the audio."""
    problems = Problems()
    found = get(name).read(
        source,
        problems,
        variant=official.choose(name, variant),
        audio_root=audio_root,
        channel=channel,
    )
    utterances = validate(found.rows, problems, jobs=1)
    return Read({u.id: u for u in utterances}, [str(p) for p in problems.found], problems, found)


def prepare(name: str, source: Path, *rest: object) -> int:
    """Run ``mynah prepare NAME SOURCE ...`` and return its exit status."""
    return cli.main(["prepare", name, str(source), *map(str, rest), "--jobs", "1"])
