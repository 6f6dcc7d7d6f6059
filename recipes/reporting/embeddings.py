"""Utterance means that a probe leaves beside its result, for the report to draw.

One safetensors file: ``mean_ND`` (N utterances, D width, float32: the head's own weighted sum of the
layers, averaged over time) and, in its metadata, ids, labels and speakers as JSON lists.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LIMIT = 500


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Some utterances of a test set.

    Attributes:
        ids: utterance ids.
        labels: the task's reference of each; "" where it has no single one.
        speakers: speaker of each; "" where unknown.
        mean_ND: float32.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    speakers: tuple[str, ...]
    mean_ND: np.ndarray


def spread(count: int, limit: int = LIMIT) -> list[int]:
    """Return at most ``limit`` indices below ``count``, evenly spread."""
    if count <= limit:
        return list(range(count))
    return [i * count // limit for i in range(limit)]


def save(
    path: Path,
    *,
    ids: Sequence[str],
    labels: Sequence[str],
    speakers: Sequence[str | None],
    mean_ND: np.ndarray,
) -> None:
    """Write a file whole or not at all.

    Raises:
        ValueError: the lists and the rows do not fit, or a value is not finite.
        OSError: the disk is full.
    """
    from safetensors.numpy import save as pack

    if not len(ids) == len(labels) == len(speakers) == len(mean_ND):
        raise ValueError(
            f"expected one label, speaker and row per id, got {len(ids)} ids, {len(labels)} "
            f"labels, {len(speakers)} speakers, {len(mean_ND)} rows"
        )
    if not np.isfinite(mean_ND).all():
        raise ValueError("embeddings must be finite")
    metadata = {
        "ids": json.dumps(list(ids)),
        "labels": json.dumps(list(labels)),
        "speakers": json.dumps([s or "" for s in speakers]),
    }
    data = pack({"mean_ND": np.ascontiguousarray(mean_ND, dtype=np.float32)}, metadata=metadata)
    write_bytes(path, data)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: temporary name, fsync, rename.

    Raises:
        OSError: the disk is full; an older file stays.
    """
    import os
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: Path) -> Embeddings:
    """Read a file written by :func:`save`.

    Raises:
        ValueError: damaged, or not such a file.
        FileNotFoundError: no such file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"no embeddings {path}: run the probe again with --rerun always")
    try:
        with safe_open(path, framework="np") as file:
            mean_ND = file.get_tensor("mean_ND")
            said = {k: tuple(json.loads(v)) for k, v in file.metadata().items()}
        found = Embeddings(
            ids=said["ids"], labels=said["labels"], speakers=said["speakers"], mean_ND=mean_ND
        )
    except (SafetensorError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} holds no embeddings: {error!r}") from error
    if not len(found.ids) == len(found.labels) == len(found.speakers) == len(mean_ND):
        raise ValueError(f"{path} holds no embeddings: its lists and rows do not fit")
    return found
