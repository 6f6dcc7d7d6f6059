"""The list of conversions that ``mynah judge vc`` reads.

A header and a conversion per line, tab-separated, UTF-8. Paths are relative to the list. Columns, in
any order:

============  =====================================================================================
converted     audio file of the conversion
source        speaker that was converted
target        speaker that it should sound like
reference     the target's own recording of the sentence; empty where there is none
text          what was said; empty where it is not known
id            of the conversion (optional: the path)
source_audio  the recording that was converted (optional), for real trials
transcript    what a recogniser of yours heard (optional), in place of ``--asr``
f0_min        lowest and highest F0 of the target in Hz (optional); else those of VCC 2020's targets,
f0_max        else WORLD's range
============  =====================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mynah.recipes.errors import BadDataError

NEEDED = ("converted", "source", "target", "reference", "text")
OPTIONAL = ("id", "source_audio", "transcript", "f0_min", "f0_max")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A conversion: see the top of this module."""

    id: str
    converted: Path
    source: str
    target: str
    reference: Path | None
    text: str | None
    source_audio: Path | None
    transcript: str | None
    f0_range: tuple[float, float] | None


def read_list(path: Path) -> list[Row]:
    """Read a list of conversions.

    Raises:
        FileNotFoundError: no such file.
        BadDataError: not UTF-8, a column that is missing, unknown or named twice, a line with another
            number of cells, without a needed one, with half a range of F0, or no line at all; with
            the line's number.
    """
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise BadDataError(f"{path} is not UTF-8: {error}") from error
    header = [cell.strip() for cell in lines[0].split("\t")]
    missing = [name for name in NEEDED if name not in header]
    strange = [name for name in header if name not in (*NEEDED, *OPTIONAL)]
    if missing or strange or len(set(header)) != len(header):
        raise BadDataError(
            f"{path}: the first line must name each column once: {', '.join(NEEDED)}, and any of "
            f"{', '.join(OPTIONAL)}; missing: {', '.join(missing) or 'none'}; unknown: "
            f"{', '.join(strange) or 'none'}"
        )
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise BadDataError(f"{path}:{number}: {len(cells)} cells, the header has {len(header)}")
        try:
            rows.append(_row(dict(zip(header, map(str.strip, cells), strict=True)), path.parent))
        except ValueError as error:
            raise BadDataError(f"{path}:{number}: {error}") from error
    if not rows:
        raise BadDataError(f"{path} lists no conversion")
    return rows


def _row(cells: dict[str, str], folder: Path) -> Row:
    empty = [name for name in ("converted", "source", "target") if not cells[name]]
    if empty:
        raise ValueError(f"without {' and '.join(empty)}")
    low, high = cells.get("f0_min", ""), cells.get("f0_max", "")
    if bool(low) != bool(high):
        raise ValueError("f0_min and f0_max go together")
    f0_range = (float(low), float(high)) if low else None
    if f0_range is not None and not 0 < f0_range[0] < f0_range[1]:
        raise ValueError(f"f0_min and f0_max must be 0 < f0_min < f0_max, got {low} and {high}")

    def file(name: str) -> Path | None:
        return folder / cells[name] if cells.get(name) else None

    return Row(
        id=cells.get("id") or cells["converted"],
        converted=folder / cells["converted"],
        source=cells["source"],
        target=cells["target"],
        reference=file("reference"),
        text=cells["text"] or None,
        source_audio=file("source_audio"),
        transcript=cells.get("transcript") or None,
        f0_range=f0_range,
    )
