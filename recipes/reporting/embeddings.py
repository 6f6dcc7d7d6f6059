"""Utterance means that a probe leaves beside its result, with their labels and speakers.

A probe writes two files: ``*.npz`` with ``ids`` and ``means`` (time means, layers summed with the
head's own weights) and ``*.tsv`` with each test utterance's reference, prediction and bootstrap
unit (the speaker). Reading them executes nothing. Shape suffixes: N utterances, D width.
"""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Some utterances of a test set.

    Attributes:
        ids: utterance ids.
        labels: the task's reference of each.
        speakers: the unit by which the bootstrap resamples, as a rule the speaker.
        mean_ND: float32.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    speakers: tuple[str, ...]
    mean_ND: np.ndarray


def spread(count: int, limit: int) -> list[int]:
    """Return at most ``limit`` indices below ``count``, evenly spread."""
    if count <= limit:
        return list(range(count))
    return [i * count // limit for i in range(limit)]


def load(means: Path, predictions: Path) -> Embeddings:
    """Read what a probe left.

    Args:
        means: the ``.npz`` file.
        predictions: the ``.tsv`` file.

    Raises:
        ValueError: damaged, or files that do not belong together.
        FileNotFoundError: a file is missing.
    """
    try:
        with means.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            ids = tuple(str(i) for i in file["ids"])
            mean_ND = np.asarray(file["means"], dtype=np.float32)
        with predictions.open(encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            said = {row["id"]: (row["reference"], row["unit"]) for row in rows}
        labels, speakers = zip(*(said[i] for i in ids), strict=True)
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{means} and {predictions.name} hold no embeddings ({error!r}): run the probe again "
            "with --rerun always"
        ) from error
    if mean_ND.ndim != 2 or len(mean_ND) != len(ids) or not np.isfinite(mean_ND).all():
        raise ValueError(
            f"{means} holds {len(ids)} ids and means of shape {mean_ND.shape}, or values that are "
            "not finite: run the probe again with --rerun always"
        )
    return Embeddings(ids=ids, labels=labels, speakers=speakers, mean_ND=mean_ND)


def norms(means: Path) -> np.ndarray | None:
    """Return the mean norm of each layer's time means, shape (L,); None where none were kept.

    Raises:
        ValueError: a damaged file, or norms that are not one finite number for each layer.
    """
    try:
        with means.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            found = np.asarray(file["norms"], dtype=np.float64) if "norms" in file else None
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{means} is damaged ({error!r}): run the probe again with --rerun always"
        ) from error
    if found is not None and (found.ndim != 1 or not np.isfinite(found).all()):
        raise ValueError(
            f"{means}: norms of shape {found.shape}, or not finite: run the probe again"
        )
    return found
