"""The file of ``mynah convert --codes``: what a converter's code and speaker vector are."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mynah.files import replacing
from mynah.recipes.conversion import checks
from mynah.recipes.conversion.checks import Recording
from mynah.recipes.conversion.engine import Engine


def write_codes(engine: Engine, source: Recording, targets: Sequence[Recording], to: Path) -> None:
    """Write ``content`` (T, C) and ``speaker`` (V,), float32, as .npz.

    Raises:
        RefusedError: a recording that cannot be used.
        ValueError: a file that is no such codes, or not named so.
        OSError: the disk is full or refuses.
    """
    if to.suffix != ".npz":
        raise ValueError(f"--codes wants a name that ends in .npz, got {to}")
    if to.exists() and not _are_codes(to):
        raise ValueError(f"{to} is there and holds no codes of ours: give another --codes")
    checks.check_source(source, longest=engine.longest)
    kept, _ = checks.check_references(targets)
    with torch.no_grad():
        content = engine.converter.encode_content(engine.hear(source)).numpy()
        voice = engine.converter.encode_speaker([engine.hear(one) for one in kept])
        speaker = engine.converter.speaker_vector(voice).numpy()
    to.parent.mkdir(parents=True, exist_ok=True)
    with replacing(to) as part, part.open("wb") as file:
        np.savez(file, content=content.astype(np.float32), speaker=speaker.astype(np.float32))


def _are_codes(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return set(file.namelist()) == {"content.npy", "speaker.npy"}
    except (OSError, zipfile.BadZipFile):
        return False
