"""Utterances as lhotse manifests and back, without importing lhotse (2 s and torch).

A recording is a file, a supervision is an utterance of it: ``speaker``, ``text``, ``gender`` and
``language`` are lhotse's own fields, every other label is in ``custom``, timed tiers are in
``alignment`` (times counted from the start of the recording, as lhotse wants them).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mynah.tasks.corpora.audio import AudioInfo, span
from mynah.tasks.corpora.utterance import Interval, Utterance

_FIELDS = ("gender", "language")
_DIGITS = 9  # decimals of interval times: far below a sample, above float noise


class ManifestError(ValueError):
    """A manifest cannot be used; the message names file and line."""

    exit_code = 3  # bad data


def recording_row(recording: str, source: str, info: AudioInfo) -> dict[str, Any]:
    """Return a recording as lhotse's dictionary."""
    channels = list(range(info.channels))
    return {
        "id": recording,
        "sources": [{"type": "file", "channels": channels, "source": source}],
        "sampling_rate": info.sample_rate,
        "num_samples": info.frames,
        "duration": info.frames / info.sample_rate,
        "channel_ids": channels,
    }


def supervision_row(utterance: Utterance, recording: str) -> dict[str, Any]:
    """Return an utterance as lhotse's dictionary, its times on the sample grid."""
    first, frames = span(utterance)
    rate = utterance.sample_rate
    row: dict[str, Any] = {
        "id": utterance.id,
        "recording_id": recording,
        "start": first / rate,
        "duration": frames / rate,
        "channel": utterance.channel,
    }
    if utterance.text is not None:
        row["text"] = utterance.text
    if utterance.speaker is not None:
        row["speaker"] = utterance.speaker
    for name in _FIELDS:
        if name in utterance.labels:
            row[name] = utterance.labels[name]
    custom = {k: v for k, v in sorted(utterance.labels.items()) if k not in _FIELDS}
    if utterance.split is not None:
        custom["split"] = utterance.split
    if custom:
        row["custom"] = custom
    if utterance.intervals:
        row["alignment"] = {
            tier: [
                [
                    item.symbol,
                    round(first / rate + item.start, _DIGITS),
                    round(item.end - item.start, _DIGITS),
                    None,
                ]
                for item in items
            ]
            for tier, items in sorted(utterance.intervals.items())
        }
    return row


def dump(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as JSON lines."""
    lines = (json.dumps(row, ensure_ascii=False, separators=(", ", ": ")) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def parse(name: str, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``file:line`` and row of every line of a JSONL file.

    Raises:
        ManifestError: a line is not a JSON object.
    """
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ManifestError(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ManifestError(f"{where}: an object is wanted, got {type(row).__name__}")
        yield where, row


def utterances(
    recordings: Iterable[tuple[str, dict[str, Any]]],
    supervisions: Iterable[tuple[str, dict[str, Any]]],
    folder: Path,
) -> list[Utterance]:
    """Join supervisions with their recordings.

    Args:
        recordings: ``file:line`` and lhotse's dictionary of each recording.
        supervisions: the same of each supervision.
        folder: what relative audio paths are relative to.

    Raises:
        ManifestError: as ``recording`` and ``utterance``; or a recording is there twice.
    """
    found: dict[str, Recording] = {}
    for where, row in recordings:
        name, facts = recording(where, row, folder)
        if name in found:
            raise ManifestError(f"{where}: recording {name!r} is there twice")
        found[name] = facts
    return [utterance(where, row, found) for where, row in supervisions]


@dataclass(frozen=True, slots=True)
class Recording:
    """A file: its rate, and for each channel of the recording the file and the channel in it."""

    sample_rate: int
    channels: Mapping[int, tuple[str, int]]


def recording(where: str, row: dict[str, Any], folder: Path) -> tuple[str, Recording]:
    """Return id and facts of a recording.

    Raises:
        ManifestError: a source is not a file (lhotse's ``command`` sources run a shell: they are
            refused, never run), the recording has transforms, or a field is missing or of the
            wrong type.
    """
    try:
        if row.get("transforms"):
            raise ManifestError(f"{where}: recording {row['id']!r} has transforms; apply them")
        channels: dict[int, tuple[str, int]] = {}
        for source in row["sources"]:
            if source["type"] != "file":
                raise ManifestError(
                    f"{where}: source type {source['type']!r} is refused, only files are read"
                )
            path = os.path.join(folder, source["source"])  # noqa: PTH118  a third of Path's time
            for position, channel in enumerate(source["channels"]):
                channels[int(channel)] = (path, position)
        return str(row["id"]), Recording(int(row["sampling_rate"]), channels)
    except ManifestError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _malformed(where, error) from error


def utterance(where: str, row: dict[str, Any], recordings: Mapping[str, Recording]) -> Utterance:
    """Return the utterance that a supervision describes.

    Raises:
        ManifestError: its recording is unknown, it is of several channels or of one that the
            recording lacks, or a field is missing or of the wrong type.
    """
    try:
        return _utterance(where, row, recordings)
    except ManifestError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise _malformed(where, error) from error


def _malformed(where: str, error: Exception) -> ManifestError:
    return ManifestError(f"{where}: a field is missing or of the wrong type: {error!r}")


def _utterance(where: str, row: dict[str, Any], recordings: Mapping[str, Recording]) -> Utterance:
    if row["recording_id"] not in recordings:
        raise ManifestError(f"{where}: recording {row['recording_id']!r} is not in the manifest")
    source = recordings[row["recording_id"]]
    channel = row.get("channel", 0)
    if isinstance(channel, list):
        if len(channel) != 1:
            raise ManifestError(f"{where}: channels {channel}; an utterance has one channel")
        channel = channel[0]
    if channel not in source.channels:
        raise ManifestError(f"{where}: channel {channel} is not one of {sorted(source.channels)}")
    path, position = source.channels[channel]
    custom = row.get("custom") or {}
    labels = {k: v if isinstance(v, str) else json.dumps(v) for k, v in custom.items()}
    split = labels.pop("split", None)
    labels |= {name: str(row[name]) for name in _FIELDS if row.get(name) is not None}
    start = float(row["start"])
    intervals = {
        tier: tuple(
            Interval(
                str(item[0]),
                round(float(item[1]) - start, _DIGITS),
                round(float(item[1]) + float(item[2]) - start, _DIGITS),
            )
            for item in items
        )
        for tier, items in (row.get("alignment") or {}).items()
    }
    return Utterance(
        id=str(row["id"]),
        path=path,
        start=start,
        duration=float(row["duration"]),
        sample_rate=source.sample_rate,
        channel=position,
        speaker=row.get("speaker"),
        text=row.get("text"),
        split=split,
        labels=labels,
        intervals=intervals,
    )
