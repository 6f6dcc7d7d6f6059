"""Labels on disk: one small integer per frame, read where they are needed.

labels.npy       int32, all utterances' labels end to end (memory-mapped)
index.json       identity, clusters, and each utterance's first label and number of labels
centroids.npy    float32 (K, D), to label audio that comes later

``index.json`` is written last, so a folder without it is unfinished. Nothing in the files is ever
executed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mynah.files import write_bytes
from mynah.recipes.errors import BadDataError

INDEX, LABELS, CENTROIDS = "index.json", "labels.npy", "centroids.npy"


class Labels:
    """The labels of a corpus' frames.

    Args:
        folder: written by :func:`write`.

    Raises:
        FileNotFoundError: there are no labels.
        BadDataError: the files are damaged.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / INDEX
        if not index.is_file():
            raise FileNotFoundError(f"{folder} holds no labels ({INDEX} is not there)")
        try:
            content = json.loads(index.read_text("utf-8"))
            self.identity: dict[str, Any] = content["identity"]
            self.clusters = int(content["clusters"])
            self.stride = int(content["stride"])
            self.inertia = float(content["inertia"])
            self._places: dict[str, list[int]] = content["utterances"]
            self._labels = np.load(folder / LABELS, mmap_mode="r", allow_pickle=False)
            end = max(first + count for first, count in self._places.values())
            if self._labels.dtype != np.int32 or self._labels.ndim != 1:
                raise ValueError(f"{LABELS} is not a row of int32")
            if end != len(self._labels):
                raise ValueError(f"{LABELS} has {len(self._labels)} labels, {INDEX} names {end}")
        except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
            raise BadDataError(
                f"the labels in {folder} are damaged ({error}): remove the folder, they are made anew"
            ) from error
        self.folder = folder

    def __contains__(self, utterance: str) -> bool:
        return utterance in self._places

    def of(self, utterance: str) -> NDArray[np.int32]:
        """Return the labels (T,) of an utterance's frames.

        Raises:
            BadDataError: the utterance has none.
        """
        place = self._places.get(utterance)
        if place is None:
            raise BadDataError(f"utterance {utterance!r} has no labels in {self.folder}")
        first, count = place
        labels: NDArray[np.int32] = self._labels[first : first + count]
        return labels

    def stretches(
        self, num_frames: Callable[[int], int]
    ) -> Callable[[str, int, int], torch.Tensor]:
        """Return a function of (id, first sample, samples) that yields the labels of that stretch.

        Args:
            num_frames: frames of so many samples, of the model that the labels were made for.
        """

        def of(utterance: str, first: int, samples: int) -> torch.Tensor:
            start = first // self.stride
            part_T = self.of(utterance)[start : start + num_frames(samples)]
            return torch.from_numpy(part_T.astype(np.int64))

        return of

    def centroids(self) -> NDArray[np.float32]:
        """Return the cluster centres (K, D)."""
        found: NDArray[np.float32] = np.load(self.folder / CENTROIDS, allow_pickle=False)
        return found


def write(
    folder: Path,
    labels: Iterable[tuple[str, NDArray[np.int32]]],
    *,
    centroids_KD: NDArray[np.float32],
    stride: int,
    identity: Mapping[str, Any],
    inertia: float,
) -> Labels:
    """Write the labels of utterances and return them as they are read.

    Args:
        folder: made if it is not there.
        labels: (utterance id, labels) pairs.
        centroids_KD: cluster centres.
        stride: samples between the frames.
        identity: what the labels depend on.
        inertia: mean squared distance of a frame to its centre.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places: dict[str, list[int]] = {}
    parts: list[NDArray[np.int32]] = []
    total = 0
    for name, part in labels:
        places[name] = [total, len(part)]
        parts.append(part.astype(np.int32, copy=False))
        total += len(part)
    write_bytes(folder / CENTROIDS, _npy(centroids_KD.astype(np.float32)))
    write_bytes(folder / LABELS, _npy(np.concatenate(parts)))
    content = {
        "identity": dict(identity),
        "clusters": len(centroids_KD),
        "stride": stride,
        "inertia": inertia,
        "utterances": places,
    }
    write_bytes(folder / INDEX, json.dumps(content).encode())
    return Labels(folder)


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
