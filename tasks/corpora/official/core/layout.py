"""Files and folders of a corpus as it is unpacked: what must be there, and tables of text."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mynah.tasks.corpora.folder import SUFFIXES
from mynah.tasks.corpora.rows import Problems, text_lines


def require(source: str | Path, corpus: str, origin: str, *wanted: str) -> Path:
    """Return the source's folder, absolute, if all that is wanted of it is there.

    Args:
        source: the folder that was given.
        corpus: name, for the message.
        origin: where the corpus comes from, for the message.
        wanted: relative paths; one that ends in ``/`` is a folder; ``a|b`` wants one of them.

    Raises:
        NotADirectoryError: the source is no folder.
        FileNotFoundError: names all that is missing, and where it comes from.
    """
    folder = Path(source).absolute()
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; {corpus} comes from {origin}")
    missing = [name for name in wanted if not any(_is_there(folder, n) for n in name.split("|"))]
    if missing:
        raise FileNotFoundError(
            f"{folder} is not {corpus} as it is unpacked; missing: "
            f"{', '.join(name.replace('|', ' or ') for name in missing)}. It comes from {origin}"
        )
    return folder


def either(folder: Path, *names: str) -> Path:
    """Return the first of some paths in a folder that is there, else the first of all."""
    return next((folder / n for n in names if (folder / n).exists()), folder / names[0])


def _is_there(folder: Path, name: str) -> bool:
    path = folder / name
    return path.is_dir() if name.endswith("/") else path.is_file()


def audio_files(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Return the audio files of a folder and its sub-folders, relative to it, sorted.

    Hidden files are left out (archives made on a Mac hold ``._x.wav`` beside ``x.wav``); links to
    folders are not entered.
    """
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [
            (Path(root) / file).relative_to(folder)
            for file in files
            if file.lower().endswith(tuple(suffixes)) and not file.startswith(".")
        ]
    return sorted(found)


def table(
    path: Path, problems: Problems, columns: Sequence[str], *, delimiter: str = "\t"
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ``file:line`` and cells by column of each line of a table with a header.

    Tab-separated cells are taken as they are; cells of a CSV file may be quoted. A line with too
    few or too many cells is a fault that costs the line.

    Args:
        path: the file.
        problems: receives what is wrong.
        columns: that must be there.
        delimiter: tab or comma.

    Raises:
        ValueError: no header, a column is missing, or one is there twice.
    """
    header: list[str] | None = None
    for where, line in text_lines(path, problems):
        cells = line.split("\t") if delimiter == "\t" else next(csv.reader([line], strict=False))
        if header is None:
            header = cells
            for column in columns:
                if header.count(column) != 1:
                    raise ValueError(
                        f"{where}: wanted one column {column!r}; the columns are: {', '.join(header)}"
                    )
            continue
        if len(cells) != len(header):
            problems.error(where, f"{len(cells)} cells, the header has {len(header)}")
            continue
        yield where, dict(zip(header, cells, strict=True))
    if header is None:
        raise ValueError(f"{path} is empty; wanted is a header with {', '.join(columns)}")


def pairs(path: Path, problems: Problems) -> dict[str, tuple[str, str]]:
    """Return key -> (``file:line``, rest of the line) of a Kaldi-like file.

    A key that is there twice, or has nothing after it, is a fault that costs the key.
    """
    found: dict[str, tuple[str, str]] = {}
    bad = set()
    for where, line in text_lines(path, problems):
        key, _, value = line.strip().partition(" ")
        if key in found:
            problems.error(where, f"{key!r} is there twice, first at {found[key][0]}", key)
            bad.add(key)
        elif not value.strip():
            problems.error(where, f"nothing is said of {key!r}", key)
            bad.add(key)
        else:
            found[key] = (where, value.strip())
    return {key: row for key, row in found.items() if key not in bad}
