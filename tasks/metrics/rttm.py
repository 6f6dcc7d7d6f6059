"""Speaker turns, and the RTTM files that hold them.

RTTM (NIST Rich Transcription Time Marks) has one turn per line: ``SPEAKER <recording> <channel>
<start> <duration> <NA> <NA> <speaker> <NA> <NA>``, times in seconds; the last field may be absent,
as in the files that s3prl writes. Reading is strict, because a scorer that skips what it does not
understand gives a number of something else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mynah.files import write_text

ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Turn:
    """Speech of one speaker without a pause.

    Attributes:
        start: seconds.
        duration: seconds.
        speaker: name, without white space and semicolons.

    Raises:
        ValueError: a time that is not finite, a negative start, a duration that is not positive, or
            such a name.
    """

    start: float
    duration: float
    speaker: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.duration)):
            raise ValueError(f"times must be finite numbers, got {self.start} and {self.duration}")
        if self.start < 0:
            raise ValueError(f"a turn cannot start before 0 s, got {self.start}")
        if self.duration <= 0:
            raise ValueError(f"a duration must be positive, got {self.duration}")
        if self.speaker.split() != [self.speaker] or ";" in self.speaker:
            raise ValueError(
                "the name of a speaker must be without white space and semicolons, got "
                f"{self.speaker!r}"
            )

    @property
    def end(self) -> float:
        """Seconds."""
        return self.start + self.duration


def read_rttm(
    path: str | Path,
    *,
    lengths: Mapping[str, float] | None = None,
    tolerance: float = ROUNDING,
) -> dict[str, tuple[Turn, ...]]:
    """Return the turns of each recording, in order of start.

    Empty lines and comments (``;;``) are skipped.

    Args:
        path: of the file, UTF-8.
        lengths: seconds of each recording; those without turns are in the answer too.
        tolerance: seconds by which a turn may pass the end of its recording, as when the file's
            times are rounded.

    Raises:
        ValueError: a line that is no speaker turn, has a wrong number of fields, a time that is no
            number, a negative start, a duration that is not positive, a second channel of a
            recording, a recording that is not in ``lengths``, or an end past the recording's; with
            the line's number.
    """
    turns: dict[str, list[Turn]] = {recording: [] for recording in lengths or ()}
    channels: dict[str, str] = {}
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith(";;"):
            continue
        try:
            recording, channel, turn = _parse(line.split())
            if channels.setdefault(recording, channel) != channel:
                raise ValueError(
                    f"{recording!r} has turns on channels {channels[recording]} and {channel}: "
                    "name the channels as recordings"
                )
            if lengths is not None:
                _check_end(recording, turn, lengths, tolerance)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        turns.setdefault(recording, []).append(turn)
    return {recording: _in_order(found) for recording, found in turns.items()}


def write_rttm(path: str | Path, turns: Mapping[str, Sequence[Turn]]) -> None:
    """Write the turns of recordings so that :func:`read_rttm` returns them exactly.

    A recording without turns leaves no line.

    Raises:
        ValueError: a recording's name that is empty or has white space.
    """
    lines = []
    for recording, found in turns.items():
        if recording.split() != [recording] or recording.startswith(";;"):
            raise ValueError(
                f"the name of a recording must be without white space, got {recording!r}"
            )
        lines += [
            f"SPEAKER {recording} 1 {seconds(turn.start)} {seconds(turn.duration)} <NA> <NA> "
            f"{turn.speaker} <NA> <NA>\n"
            for turn in _in_order(found)
        ]
    write_text(path, "".join(lines))


def seconds(value: float) -> str:
    """Return the shortest decimal number that reads as the same float."""
    return np.format_float_positional(value, trim="-")


def number(text: str, name: str) -> float:
    """Return a number of seconds.

    Raises:
        ValueError: text that is none.
    """
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"the {name} must be a number of seconds, got {text!r}") from None


def _parse(fields: Sequence[str]) -> tuple[str, str, Turn]:
    """Return recording, channel and turn of a line."""
    if fields[0] != "SPEAKER":
        raise ValueError(f"expected a SPEAKER line, got {fields[0]!r}")
    if len(fields) not in (9, 10):
        raise ValueError(f"expected 9 or 10 fields, got {len(fields)}")
    start, duration = number(fields[3], "start"), number(fields[4], "duration")
    return fields[1], fields[2], Turn(start, duration, fields[7])


def _check_end(recording: str, turn: Turn, lengths: Mapping[str, float], tolerance: float) -> None:
    if recording not in lengths:
        raise ValueError(f"{recording!r} is not one of the {len(lengths)} known recordings")
    if turn.end > lengths[recording] + tolerance:
        raise ValueError(
            f"the turn ends at {turn.end:g} s, after the end of {recording!r} at "
            f"{lengths[recording]:g} s"
        )


def _in_order(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    return tuple(sorted(turns, key=lambda turn: (turn.start, turn.end, turn.speaker)))
