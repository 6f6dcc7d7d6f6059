"""A tab-separated manifest with a header: one line per utterance.

Columns: ``path`` (needed; relative to the manifest's folder), ``id``, ``speaker``, ``text``,
``split``, ``start``, ``end`` and ``channel`` mean what they say; ``duration`` (of the utterance) and
``sample_rate`` are compared with the audio; every other column is a label of its name. An empty
cell is no label. Cells are taken as they are: there is no quoting.

Timed labels lie in a folder per tier: ``<id>.tsv`` with a line of start, end (seconds from the
utterance's start) and label for each stretch, in order, none before the last has ended; a first line
``start end label`` is passed over. Turns of speakers, who may speak at once, are ``<id>.rttm``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mynah.tasks.corpora.corpus import check_id, check_label
from mynah.tasks.corpora.folder import identifier
from mynah.tasks.corpora.rows import Problems, Row, audio_roots, locate, text_lines
from mynah.tasks.corpora.utterance import Interval
from mynah.tasks.metrics.rttm import read_rttm

MANIFEST = "manifest.tsv"


def read(
    source: str | Path,
    problems: Problems,
    *,
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
    rename: Mapping[str, str] | None = None,
    intervals: Mapping[str, str] | None = None,
) -> list[Row]:
    """Read a manifest.

    Args:
        source: the file, or the folder that holds a ``manifest.tsv``.
        problems: receives what is wrong.
        audio_root: folders, besides the manifest's, that audio may lie in.
        channel: of all files, where there is no ``channel`` column.
        rename: column -> the name it is to have.
        intervals: tier -> folder of its files, relative to the manifest's. An utterance without a
            file has no timed labels of that tier.

    Raises:
        FileNotFoundError: there is no manifest, or no such folder of timed labels.
        ValueError: the header has no ``path`` or a name twice, or ``rename`` names no column.
    """
    manifest = Path(source)
    if manifest.is_dir():
        manifest = manifest / MANIFEST
    if not manifest.is_file():
        raise FileNotFoundError(f"{manifest} does not exist; wanted is a TSV file with a header")
    roots = audio_roots(manifest.parent, audio_root)
    tiers = {tier: manifest.parent / folder for tier, folder in (intervals or {}).items()}
    for folder in tiers.values():
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder of timed labels")
    rows: list[Row] = []
    header: list[str] | None = None
    for where, line in text_lines(manifest, problems):
        cells = [cell.strip(" ") for cell in line.split("\t")]
        if header is None:
            header = _header(manifest, cells, rename or {})
            continue
        name = cells[header.index("id")] if "id" in header and len(cells) == len(header) else ""
        try:
            if len(cells) != len(header):
                raise ValueError(f"{len(cells)} cells, the header has {len(header)}")
            values = {column: cell for column, cell in zip(header, cells, strict=True) if cell}
            row = _row(where, values, channel, manifest.parent, roots)
            row = replace(row, intervals=_timed(row.id, tiers))
        except ValueError as error:
            problems.blame(where, error, name or where)
            continue
        problems.seen.add(row.id)
        rows.append(row)
    if header is None:
        raise ValueError(f"{manifest} is empty; wanted is a header with a column `path`")
    return rows


def _header(manifest: Path, cells: list[str], rename: Mapping[str, str]) -> list[str]:
    if missing := sorted(rename.keys() - set(cells)):
        raise ValueError(f"{manifest} has no column {missing[0]!r}; it has: {', '.join(cells)}")
    header = [rename.get(cell, cell) for cell in cells]
    if "path" not in header:
        raise ValueError(f"{manifest}:1: no column `path`; the columns are: {', '.join(header)}")
    for column in header:
        if not column or header.count(column) > 1:
            raise ValueError(f"{manifest}:1: column {column!r} is there twice or has no name")
    return header


def _row(
    where: str, values: dict[str, str], channel: int | None, base: Path, roots: tuple[Path, ...]
) -> Row:
    for column, value in values.items():
        if wrong := check_label(value):
            raise ValueError(f"{column}: {wrong}")
    if "path" not in values:
        raise ValueError("no path")
    text = values.pop("path")
    name = values.pop("id", "") or identifier(text)
    if wrong := check_id(name):
        raise ValueError(wrong)
    start = _number(values, "start") or 0.0
    end = _number(values, "end")
    written = values.get("duration", "")
    declared = _number(values, "duration")
    if declared is not None and declared <= 0:
        raise ValueError(f"duration must be positive, got {written}")
    if "start" in values and end is None and declared is not None:
        end = start + declared
    rate = _number(values, "sample_rate")
    own = _number(values, "channel")
    if (own is not None and own != int(own)) or (rate is not None and rate != int(rate)):
        raise ValueError("channel and sample_rate must be whole numbers")
    for column in ("start", "end", "duration", "sample_rate", "channel"):
        values.pop(column, None)
    return Row(
        id=name,
        where=where,
        path=locate(text, base, roots),
        start=start,
        end=end,
        channel=channel if own is None else int(own),
        speaker=values.pop("speaker", None),
        text=values.pop("text", None),
        labels=values,
        declared_seconds=declared,
        tolerance=10.0 ** -len(written.partition(".")[2]) if "." in written else 0.5,
        declared_rate=None if rate is None else int(rate),
    )


HEADER = ["start", "end", "label"]
"""First line that files of timed labels may have."""


def _timed(name: str, tiers: Mapping[str, Path]) -> dict[str, tuple[Interval, ...]]:
    found = {}
    for tier, folder in tiers.items():
        if (folder / f"{name}.rttm").is_file():
            found[tier] = _turns(folder / f"{name}.rttm", name)
            continue
        path = folder / f"{name}.tsv"
        if not path.is_file():
            continue
        stretches: list[Interval] = []
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            cells = line.split("\t")
            if number == 1 and cells == HEADER:
                continue
            where = f"{path.name}:{number}"
            try:
                start, end, symbol = float(cells[0]), float(cells[1]), cells[2].strip()
            except (ValueError, IndexError) as error:
                raise ValueError(
                    f"{where}: wanted start, end and label, the first two in seconds, got {line!r}"
                ) from error
            before = stretches[-1].end if stretches else 0.0
            if not (before - 1e-6 <= start <= end < math.inf) or not symbol:
                raise ValueError(
                    f"{where}: stretches need a label and must follow one another, got {line!r}"
                )
            if start < end:
                stretches.append(Interval(symbol, start, end))
        found[tier] = tuple(stretches)
    return found


def _turns(path: Path, name: str) -> tuple[Interval, ...]:
    """Return the turns of an utterance's speakers, who may speak at once, from an RTTM file.

    Raises:
        ValueError: a damaged line, or none of this utterance.
    """
    turns = read_rttm(path).get(name)
    if not turns:
        raise ValueError(f"{path.name} has no line of the recording {name!r}")
    return tuple(Interval(t.speaker, t.start, t.start + t.duration) for t in turns)


def _number(values: Mapping[str, str], column: str) -> float | None:
    if column not in values:
        return None
    try:
        number = float(values[column])
    except ValueError as error:
        raise ValueError(f"{column} must be a number, got {values[column]!r}") from error
    if not math.isfinite(number):
        raise ValueError(f"{column} must be finite, got {values[column]!r}")
    return number
