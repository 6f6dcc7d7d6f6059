"""Words on disk with a manifest, and ``mynah prepare`` in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from mynah.recipes import cli

HEADER = "id\tpath\tspeaker\ttext\tkeyword\tofficial\tduration\tsample_rate"


def write_words(home: Path) -> Path:
    """Write four speakers, three words each, 8 kHz, with a manifest; returns the folder."""
    lines = [HEADER]
    for speaker in ("ann", "bob", "cleo", "dan"):
        (home / "audio" / speaker).mkdir(parents=True)
        for take, word in enumerate(("yes", "no", "stop")):
            path = f"audio/{speaker}/{word}.flac"
            samples = 4000 + 100 * take
            soundfile.write(home / path, np.sin(np.arange(samples) / 9) * 0.2, 8000)
            part = "test" if take == 2 else "train"
            lines.append(
                f"{speaker}-{word}\t{path}\t{speaker}\t{word.upper()}\t{word}\t{part}\t"
                f"{samples / 8000:.3f}\t8000"
            )
    (home / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return home


def edit(source: Path, line: int, old: str, new: str) -> None:
    lines = (source / "manifest.tsv").read_text().split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    (source / "manifest.tsv").write_text("\n".join(lines))


def run(*arguments: object) -> int:
    return cli.main(["prepare", *map(str, arguments)])
