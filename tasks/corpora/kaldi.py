"""A Kaldi data folder: wav.scp, segments, text, utt2spk, spk2gender and label files.

Read are ``wav.scp`` (files only: pipes are refused, never run), ``segments`` (with its optional
channel column), ``text``, ``utt2spk``, ``spk2utt`` (must agree), ``utt2dur`` and ``reco2dur``
(compared with the audio). ``utt2NAME`` is the label NAME, ``spk2NAME`` a label of every utterance
of the speaker, and so is any further file without a suffix whose first line starts with an
utterance id (``phones``, ``emotion``): its name is the label.

Relative audio paths are relative to the data folder. Audio must lie in it or under an audio root
that the user names (see ``rows.locate``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mynah.tasks.corpora.corpus import check_id, check_label
from mynah.tasks.corpora.rows import Problems, Row, audio_roots, locate, text_lines

# What Kaldi tools write beside the data, which labels nothing.
_NOT_LABELS = {
    "wav.scp", "segments", "text", "utt2spk", "spk2utt", "utt2dur", "reco2dur", "utt2num_frames",
    "frame_shift", "reco2file_and_channel", "utt2uniq", "spk2warp", "stm", "glm", "ctm", "rttm",
    "trials", "enroll", "utt2feat_dim", "feats_type", "warnings",
}  # fmt: skip
_DURATION_TOLERANCE = 0.05  # seconds; Kaldi's own utt2dur may be counted in feature frames


def read(
    source: str | Path,
    problems: Problems,
    *,
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> list[Row]:
    """Read a Kaldi data folder.

    Args:
        source: the folder.
        problems: receives what is wrong.
        audio_root: folders, besides the source, that audio may lie in.
        channel: of all files, where ``segments`` does not say.

    Returns:
        one row per utterance that the files describe without fault; the audio is not opened.

    Raises:
        FileNotFoundError: there is no ``wav.scp``.
    """
    folder = Path(source)
    if not (folder / "wav.scp").is_file():
        raise FileNotFoundError(f"{folder} is no Kaldi data folder: it holds no wav.scp")
    table = _Tables(folder, problems)
    roots = audio_roots(folder, audio_root)
    files = _recordings(table, roots)
    rows = _utterances(table, files, channel)
    return _labelled(table, rows)


class _Tables:
    """Two-column files, read once, with their faults noted."""

    def __init__(self, folder: Path, problems: Problems) -> None:
        self.folder = folder
        self.problems = problems

    def read(self, name: str, *, blame: bool = True) -> dict[str, tuple[str, str]]:
        """Return key -> (``file:line``, value) of a file, empty where there is none.

        A key that is there twice is a fault of all its lines. ``blame`` says whether keys are
        utterances, so that a fault costs the utterance.
        """
        path = self.folder / name
        if not path.is_file():
            return {}
        found: dict[str, tuple[str, str]] = {}
        twice: set[str] = set()
        note = (
            self.problems.error
            if blame
            else lambda where, text, _: self.problems.fault(where, text)
        )
        last = b""
        unsorted = ""
        for where, line in text_lines(path, self.problems, blame=blame):
            parts = re.split(r"[ \t]+", line.strip(" \t"), maxsplit=1)
            key, value = parts[0], parts[1] if len(parts) > 1 else ""
            wrong = check_id(key) or check_label(value.replace("\t", " "))
            if wrong:
                note(where, wrong, key)
                continue
            encoded = key.encode()
            unsorted = unsorted or (where if encoded < last else "")
            last = encoded
            if key in found:
                first = found[key][0]
                note(where, f"{key!r} is there twice, first at {first}", key)
                twice.add(key)
                continue
            found[key] = (where, re.sub(r"[ \t]+", " ", value))
        if unsorted:
            self.problems.warn(unsorted, "not sorted in byte order (LC_ALL=C sort), as Kaldi wants")
        return {key: row for key, row in found.items() if key not in twice}


def _recordings(table: _Tables, roots: tuple[Path, ...]) -> dict[str, tuple[str, str]]:
    """Return recording -> (``file:line``, absolute path); empty path where it is faulty."""
    files: dict[str, tuple[str, str]] = {}
    segmented = (table.folder / "segments").is_file()
    for key, (where, value) in table.read("wav.scp", blame=not segmented).items():
        try:
            if not value:
                raise ValueError(f"no audio file is named for {key!r}")
            files[key] = (where, locate(value, table.folder, roots))
        except ValueError as error:
            table.problems.blame(where, error, *([] if segmented else [key]))
            files[key] = (where, "")
    return files


def _utterances(
    table: _Tables, files: dict[str, tuple[str, str]], channel: int | None
) -> dict[str, Row]:
    problems = table.problems
    durations = {
        name: _seconds(table, name, blame=name == "utt2dur") for name in ("reco2dur", "utt2dur")
    }
    rows: dict[str, Row] = {}
    if not (table.folder / "segments").is_file():
        declared = durations["reco2dur"] | durations["utt2dur"]
        for key, (where, path) in files.items():
            problems.seen.add(key)
            if path:
                rows[key] = Row(
                    id=key,
                    where=where,
                    path=path,
                    recording=key,
                    channel=channel,
                    declared_seconds=declared.get(key),
                    tolerance=_DURATION_TOLERANCE,
                )
        return rows
    used = set()
    for key, (where, value) in table.read("segments").items():
        problems.seen.add(key)
        try:
            recording, start, end, own = _segment(value)
        except ValueError as error:
            problems.error(where, str(error), key)
            continue
        used.add(recording)
        if recording not in files:
            problems.error(where, f"recording {recording!r} is not in wav.scp", key)
        elif not files[recording][1]:
            problems.error(where, f"recording {recording!r} is faulty: {files[recording][0]}", key)
        else:
            rows[key] = Row(
                id=key,
                where=where,
                path=files[recording][1],
                recording=recording,
                start=start,
                end=end,
                channel=channel if own is None else own,
                declared_seconds=durations["utt2dur"].get(key),
                tolerance=_DURATION_TOLERANCE,
            )
    for recording in sorted(files.keys() - used):
        problems.warn(files[recording][0], f"no segment uses recording {recording!r}")
    return rows


def _segment(value: str) -> tuple[str, float, float | None, int | None]:
    """Parse ``recording start end [channel]``; an end of -1 is the end of the file."""
    fields = value.split(" ")
    if len(fields) not in (3, 4):
        raise ValueError(
            f"wanted: utterance recording start end [channel], got {len(fields) + 1} fields"
        )
    try:
        start, end = float(fields[1]), float(fields[2])
        channel = int(fields[3]) if len(fields) == 4 else None
    except ValueError as error:
        raise ValueError(f"times and channel must be numbers, got {value!r}") from error
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"times must be finite, got {value!r}")
    if start < 0:
        raise ValueError(f"the segment starts before the recording, at {start} s")
    if end == -1:
        return fields[0], start, None, channel
    if end <= start:
        raise ValueError(f"the segment ends at {end} s, not after its start at {start} s")
    return fields[0], start, end, channel


def _seconds(table: _Tables, name: str, *, blame: bool) -> dict[str, float]:
    found = {}
    for key, (where, value) in table.read(name, blame=blame).items():
        try:
            found[key] = float(value)
        except ValueError:
            table.problems.error(where, f"a duration must be a number, got {value!r}", key)
    return found


def _labelled(table: _Tables, rows: dict[str, Row]) -> list[Row]:
    """Give every row its transcript, speaker and labels."""
    problems = table.problems
    per_utterance = {name: table.read(name) for name in ("text", "utt2spk")}
    per_speaker = {}
    for path in sorted(p for p in table.folder.iterdir() if p.is_file()):
        name = path.name
        if name in _NOT_LABELS or path.suffix or name.startswith("."):
            continue
        if name.startswith("spk2"):
            per_speaker[name] = table.read(name, blame=False)
        elif name.startswith("utt2") or _first_key(path) in problems.seen:
            per_utterance[name] = table.read(name)
    for name, lines in per_utterance.items():
        for key in sorted(lines.keys() - problems.seen):
            described = "segments" if (table.folder / "segments").is_file() else "wav.scp"
            problems.error(lines[key][0], f"utterance {key!r} is not in {described}", key)
        missing = sorted(rows.keys() - lines.keys() - problems.skipped.keys())
        if lines and missing:
            problems.warn(
                name, f"{len(missing)} of {len(rows)} utterances are missing, first {missing[0]!r}"
            )
    speakers = {key: value for key, (_, value) in per_utterance.pop("utt2spk").items()}
    texts = per_utterance.pop("text")
    _compare_spk2utt(table, speakers)
    known = set(speakers.values())
    for lines in per_speaker.values():
        for key in sorted(lines.keys() - known):
            problems.warn(lines[key][0], f"speaker {key!r} is not in utt2spk")
    labelled = []
    for key, row in rows.items():
        speaker = speakers.get(key) or None
        labels = {
            n.removeprefix("spk2"): t[speaker][1] for n, t in per_speaker.items() if speaker in t
        }
        labels |= {n.removeprefix("utt2"): t[key][1] for n, t in per_utterance.items() if key in t}
        labelled.append(
            replace(
                row,
                speaker=speaker,
                text=texts[key][1] if key in texts else None,
                labels={label: value for label, value in labels.items() if label and value},
            )
        )
    return labelled


def _first_key(path: Path) -> str:
    """Return the first word of a file, if it is text."""
    with path.open("rb") as file:
        words = file.readline(4096).removeprefix(b"\xef\xbb\xbf").split()
    return words[0].decode("utf-8", "replace") if words else ""


def _compare_spk2utt(table: _Tables, speakers: dict[str, str]) -> None:
    for speaker, (where, value) in table.read("spk2utt", blame=False).items():
        for key in value.split(" "):
            if speakers.get(key) != speaker:
                given = speakers.get(key)
                table.problems.error(
                    where,
                    f"utterance {key!r} is given to speaker {speaker!r}, utt2spk says {given!r}",
                    key,
                )
