"""lhotse manifests that somebody else made: recordings and supervisions, read without lhotse."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mynah.tasks.corpora import manifest
from mynah.tasks.corpora.corpus import check_id, check_label
from mynah.tasks.corpora.manifest import ManifestError
from mynah.tasks.corpora.rows import Problems, Row, audio_roots, locate


def read(
    source: str | Path, problems: Problems, *, audio_root: Sequence[str | Path] = ()
) -> list[Row]:
    """Read the recordings and supervisions of a folder, ``.jsonl`` or ``.jsonl.gz``.

    Every file ``*recordings*`` is read, then every ``*supervisions*``. Relative audio paths are
    relative to the folder. Only ``file`` sources are read: ``command`` sources are refused, never
    run. A recording with transforms and a supervision of several channels are faults.

    Args:
        source: the folder.
        problems: receives what is wrong.
        audio_root: folders, besides the source, that audio may lie in.

    Raises:
        FileNotFoundError: the folder holds no such pair.
    """
    folder = Path(source)
    roots = audio_roots(folder, audio_root)
    recordings: dict[str, manifest.Recording | None] = {}
    for where, row in _rows(folder, "recordings", problems):
        try:
            name, recording = manifest.recording(where, row, folder)
        except ManifestError as error:
            problems.blame(where, error)
            recordings[str(row.get("id"))] = None
            continue
        if name in recordings:
            problems.fault(where, f"recording {name!r} is there twice")
        recordings[name] = None if name in recordings else recording
    rows = []
    for where, row in _rows(folder, "supervisions", problems):
        name = str(row.get("id") or where)
        problems.seen.add(name)
        try:
            if row.get("recording_id") in recordings and recordings[row["recording_id"]] is None:
                raise ValueError(f"recording {row['recording_id']!r} is faulty")
            known = {
                k: v
                for k, v in recordings.items()
                if v is not None and k == row.get("recording_id")
            }
            found = manifest.utterance(where, row, known)
            if wrong := check_id(found.id):
                raise ValueError(wrong)
            values = {"speaker": found.speaker or "", "text": found.text or "", **found.labels}
            for label, value in values.items():
                if wrong := check_label(value):
                    raise ValueError(f"{label}: {wrong}")
            rows.append(
                Row(
                    id=found.id,
                    where=where,
                    path=locate(found.path, folder, roots),
                    recording=row["recording_id"],
                    start=found.start,
                    end=found.start + found.duration,
                    channel=found.channel,
                    speaker=found.speaker,
                    text=found.text,
                    labels={**found.labels, **({"split": found.split} if found.split else {})},
                    intervals=found.intervals,
                    declared_rate=found.sample_rate,
                )
            )
        except ValueError as error:
            problems.blame(where, error, name)
    return rows


def _rows(folder: Path, kind: str, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    paths = sorted(p for p in folder.glob(f"*{kind}*") if p.name.endswith((".jsonl", ".jsonl.gz")))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no {kind}: wanted is *{kind}*.jsonl or .jsonl.gz")
    for path in paths:
        try:
            data = path.read_bytes()
            lines = gzip.decompress(data) if path.suffix == ".gz" else data
            yield from manifest.parse(path.name, lines)
        except (OSError, EOFError, zlib.error, ManifestError) as error:
            problems.error(path.name, f"cannot be read: {error}")
