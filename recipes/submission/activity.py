"""Diarization in a submission: an HDF5 file of activities per recording, and their frame shift.

``T_hat`` (T, S) says with a number from 0 to 1 how likely speaker s talks in frame t; ``frame_shift``
is in samples of 16 kHz. Results keep turns; they are written as activities of 0 and 1 on a grid on
which all their times lie, so that reading them gives the turns again.

Shape suffixes: T frames, S speakers.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mynah.recipes.submission.forms import Read
from mynah.tasks.metrics.diarization import decode
from mynah.tasks.metrics.rttm import Turn

RATE = 16_000
FINEST, WIDEST = 16, 320  # samples
USUAL = 160
SPEAKERS = 8
CELLS = 64 * 2**20
"""Activities that a submission may have in all: seven times those of Libri2Mix's test set."""
FILTERS = {1: "gzip", 2: "shuffle", 3: "checksum", 32_000: "lzf"}
"""HDF5's own and h5py's; any other would be a library that HDF5 looks for and loads."""


def hdf5() -> Any:
    """Return h5py.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            "diarization is submitted as HDF5: install h5py (pip install 'mynah[submit]')"
        ) from error
    return h5py


def shift_of(turns: Sequence[Turn]) -> int:
    """Return the widest grid of 1 to 20 ms, in samples, with all turns' ends on it; else 10 ms."""
    samples = [round(t * RATE) for turn in turns for t in (turn.start, turn.start + turn.duration)]
    common = math.gcd(*samples)
    if not common:
        return USUAL
    return next((s for s in range(WIDEST, FINEST - 1, -1) if common % s == 0), USUAL)


def to_activity(turns: Sequence[Turn], seconds: float, shift: int, speakers: int) -> NDArray[Any]:
    """Return turns as activities (T, S) of 0 and 1.

    Args:
        turns: of a recording.
        seconds: that it lasts at least.
        shift: samples between frames.
        speakers: columns; turns of more speakers get a column each.
    """
    names = sorted({turn.speaker for turn in turns})
    ends = [turn.start + turn.duration for turn in turns]
    frames = math.ceil(round(max([seconds, *ends]) * RATE) / shift)
    activity_TS = np.zeros((max(1, frames), max(speakers, len(names))), dtype=np.float32)
    for turn in turns:
        first, last = (round(t * RATE / shift) for t in (turn.start, turn.start + turn.duration))
        activity_TS[first:last, names.index(turn.speaker)] = 1
    return activity_TS


def pack(predictions: Mapping[str, str], references: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of a diarization: recordings' activities and the frame shift.

    Args:
        predictions: turns as text by recording.
        references: the true ones, which say how long a recording is at least.

    Raises:
        ValueError: h5py is not installed.
    """
    h5py = hdf5()
    said = {name: decode(text) for name, text in predictions.items()}
    true = {name: decode(text) for name, text in references.items()}
    shift = shift_of([turn for turns in said.values() for turn in turns])
    speakers = max((len({t.speaker for t in turns}) for turns in true.values()), default=2)
    files = {"frame_shift": f"{shift}\n".encode()}
    for name, turns in said.items():
        end = max((t.start + t.duration for t in true.get(name, ())), default=0.0)
        buffer = io.BytesIO()
        with h5py.File(buffer, "w", track_order=False) as file:
            file.create_dataset(
                "T_hat", data=to_activity(turns, end, shift, speakers), track_times=False
            )
        files[f"scoring/predictions/{name}.h5"] = buffer.getvalue()
    return files


def read_shift(data: bytes, found: Read) -> int | None:
    """Return the frame shift in samples; None, and a complaint, where there is none."""
    text = data.decode("ascii", "replace").strip()
    if not text.isdigit() or not 1 <= int(text) <= RATE:
        found.complain("frame shift is no number of samples", repr(text[:40]))
        return None
    return int(text)


def read_activity(
    name: str, data: bytes, found: Read, *, room: int = CELLS
) -> NDArray[np.float32] | None:
    """Return activities (T, S); None, and a complaint, where they cannot be used.

    Nothing outside the bytes is opened: links to other files and datasets that lie elsewhere are
    refused before they are followed. A file of two kilobytes can say that it holds gigabytes of
    zeros, so sizes are read before what they are of.

    Args:
        name: of the recording.
        data: of its file.
        found: gets complaints.
        room: how many numbers may be in it.
    """
    h5py = hdf5()
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            if "T_hat" not in file or not isinstance(
                file.get("T_hat", getlink=True), h5py.HardLink
            ):
                found.complain("no T_hat", name)
                return None
            entry = file["T_hat"]
            if not isinstance(entry, h5py.Dataset) or entry.external or entry.is_virtual:
                found.complain("T_hat is no plain dataset", name)
                return None
            if entry.ndim != 2 or not 1 <= entry.shape[1] <= SPEAKERS or not entry.shape[0]:
                found.complain("wrong shape of T_hat", f"{name}: {entry.shape}, wanted (T, S)")
                return None
            if entry.dtype.kind not in "fiu":
                found.complain("T_hat holds no numbers", f"{name}: {entry.dtype}")
                return None
            if entry.size > room:
                found.complain("too many activities to be read", f"{name}: {entry.shape}")
                return None
            plan = entry.id.get_create_plist()
            filters = {plan.get_filter(n)[0] for n in range(plan.get_nfilters())}
            if strange := filters - FILTERS.keys():
                found.complain("T_hat is compressed by a foreign filter", f"{name}: {strange}")
                return None
            activity_TS = np.asarray(entry[()], dtype=np.float32)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        found.complain("no HDF5, or a damaged one", f"{name}: {error}"[:100])
        return None
    if not np.isfinite(activity_TS).all() or activity_TS.min() < 0 or activity_TS.max() > 1:
        found.complain("activity outside 0 to 1", name)
        return None
    return activity_TS
