"""What every importer yields, before any audio is opened, and the list of what is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mynah.tasks.corpora.utterance import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An utterance as its source states it.

    Attributes:
        id: of the utterance.
        where: ``file:line`` that names it.
        path: absolute path of the audio.
        recording: recording id, where the source has such.
        start: seconds from the start of the file.
        end: seconds from the start of the file; None for the end of the file.
        channel: channel of the file; None where the source does not say (a fault unless the file
            has one).
        speaker: speaker id.
        text: transcript.
        labels: all other labels; ``split`` too.
        intervals: timed labels.
        declared_seconds: length of the *utterance* that the source states, and
        tolerance: by how much the true length may differ from it.
        declared_rate: Hz that the source states.
    """

    id: str
    where: str
    path: str
    recording: str | None = None
    start: float = 0.0
    end: float | None = None
    channel: int | None = None
    speaker: str | None = None
    text: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    intervals: Mapping[str, tuple[Interval, ...]] = field(default_factory=dict)
    declared_seconds: float | None = None
    tolerance: float = 0.0
    declared_rate: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: where, what, how grave, and the utterances that are left out for it."""

    where: str
    message: str
    level: Literal["error", "warning"]
    ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the finding as a compiler would print it."""
        return f"{self.where}: {self.level}: {self.message}"


class OutsideError(ValueError):
    """Audio lies outside the source and all audio roots."""

    def __init__(self, text: str, resolved: Path) -> None:
        super().__init__(f"{text} leads outside the data folder, to {resolved}; see --audio-root")
        self.resolved = resolved


class Problems:
    """Everything that was found wrong in a source, and which utterances that costs.

    Attributes:
        found: in the order in which they were found.
        seen: ids of all utterances that the source speaks of, good and bad.
        outside: folders of audio that was refused because it lies outside the source.
    """

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.seen: set[str] = set()
        self.outside: set[str] = set()

    def blame(self, where: str, error: ValueError, *ids: str) -> None:
        """Note an exception as a fault that costs the utterances ``ids`` (none: as ``fault``)."""
        if isinstance(error, OutsideError):
            self.outside.add(str(error.resolved.parent))
        message = str(error).removeprefix(f"{where}: ")
        if ids:
            self.error(where, message, *ids)
        else:
            self.fault(where, message)

    def hint(self) -> str:
        """Return what to do about audio that lies outside, or nothing."""
        if not self.outside:
            return ""
        common = os.path.commonpath(sorted(self.outside))
        roots = [common] if len(Path(common).parts) > 1 else sorted(self.outside)[:3]
        return (
            "audio outside the data folder is not read unless you say so; if you trust this data: "
            + " ".join(f"--audio-root {root}" for root in roots)
        )

    def error(self, where: str, message: str, *ids: str) -> None:
        """Note a fault; the utterances ``ids`` (or the line itself) are left out."""
        ids = ids or (where,)
        self.seen.update(ids)
        self.found.append(Problem(where, message, "error", ids))

    def fault(self, where: str, message: str) -> None:
        """Note a fault of something that is no utterance; those it costs are noted by themselves."""
        self.found.append(Problem(where, message, "error"))

    def warn(self, where: str, message: str) -> None:
        """Note something odd that costs no utterance."""
        self.found.append(Problem(where, message, "warning"))

    @property
    def errors(self) -> list[Problem]:
        """The faults."""
        return [p for p in self.found if p.level == "error"]

    @property
    def warnings(self) -> list[Problem]:
        """What is odd and costs nothing."""
        return [p for p in self.found if p.level == "warning"]

    @property
    def skipped(self) -> dict[str, str]:
        """Each utterance that is left out, with the first reason."""
        reasons: dict[str, str] = {}
        for problem in self.errors:
            for name in problem.ids:
                reasons.setdefault(name, f"{problem.where}: {problem.message}")
        return reasons

    @property
    def bad_fraction(self) -> float:
        """Utterances that are left out, of all that the source speaks of."""
        return len(self.skipped) / len(self.seen) if self.seen else 0.0


def text_lines(path: Path, problems: Problems, *, blame: bool = True) -> Iterator[tuple[str, str]]:
    """Yield ``file:line`` and text of each line that is not empty.

    A byte-order mark and CRLF ends are stripped with a warning. A line that is not UTF-8 or holds a
    NUL is a fault; where lines are utterances (``blame``) it costs the one that it starts with, as
    far as that can be read.

    Raises:
        FileNotFoundError: there is no such file.
    """
    name = path.name
    data = path.read_bytes()
    if data.startswith(b"\xef\xbb\xbf"):
        problems.warn(f"{name}:1", "starts with a byte-order mark, which is ignored")
        data = data[3:]
    returns = 0
    for number, ended in enumerate(data.split(b"\n"), 1):
        where = f"{name}:{number}"
        raw = ended.removesuffix(b"\r")
        if raw != ended:
            returns = returns or number
        if not raw.strip():
            continue
        try:
            line = raw.decode()
            fault = "holds a NUL character" if "\0" in line else ""
        except UnicodeDecodeError as error:
            fault = f"is not UTF-8 (byte {error.start + 1})"
        if fault:
            token = re.split(rb"[ \t]", raw.strip(), maxsplit=1)[0]
            readable = token.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
            if blame:
                problems.error(where, f"the line {fault}", readable)
            else:
                problems.fault(where, f"the line {fault}")
            continue
        yield where, line
    if returns:
        problems.warn(f"{name}:{returns}", "lines end in CRLF, which is read as LF")


def audio_roots(source: Path, extra: Iterable[str | Path]) -> tuple[Path, ...]:
    """Return the folders that audio may lie in, links resolved: the source's own and those given."""
    roots = [source.resolve()]
    for root in extra:
        resolved = Path(root).expanduser().resolve()
        if not resolved.is_dir():
            raise NotADirectoryError(f"audio root {root} is not a folder")
        roots.append(resolved)
    return tuple(roots)


def locate(text: str, base: Path, roots: tuple[Path, ...]) -> str:
    """Return the absolute path of an audio file that a source names.

    Audio may lie in the source's own folder or in a folder that the user named as an audio root.
    Links are followed before that is judged. So a data folder from elsewhere cannot make mynah read
    other files of the machine, while one whose audio lies on another disk needs one option.

    Args:
        text: as written in the source.
        base: what relative paths are relative to.
        roots: from ``audio_roots``.

    Raises:
        ValueError: a pipe, standard input, an archive offset, or outside all roots.
    """
    if text.startswith("|") or text.endswith("|"):
        raise ValueError(
            "a pipe is refused, commands in data are never run; name the audio file itself "
            "(`flac -c -d -s FILE |` becomes FILE), or run the command once and name what it wrote"
        )
    if text == "-":
        raise ValueError("standard input is refused; name an audio file")
    if "\0" in text:
        raise ValueError("the path holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the name of the file is not UTF-8; rename it") from error
    path = base / text
    if re.search(r"\.ark:\d+$", text):
        raise ValueError("an offset into an archive is not read; write the audio as files")
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"the path cannot be followed: {error}") from error
    if not any(resolved.is_relative_to(root) for root in roots):
        raise OutsideError(text, resolved)
    return str(resolved if ".." in path.parts else path.absolute())
