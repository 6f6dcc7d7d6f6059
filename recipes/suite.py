"""``mynah suite OUT``: the embedded corpus, ready for every task, and which part serves which.

A suite is a YAML file beside the corpora::

    pr: [mini]
    sd: [diarization]

Task -> prepared corpora, relative to the file. ``mynah bench SPEC --suite OUT/suite.yaml`` runs all
of it. Write your own for other corpora.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

FILE = "suite.yaml"


@dataclass(frozen=True, kw_only=True)
class Args:
    """Make the embedded corpus and mixtures of it, one suite for every task."""

    out: Annotated[Path, Positional]
    """Folder to write."""
    size: Literal["tiny", "small", "medium", "large"] = "small"
    """How much to synthesise."""
    backend: Literal["espeak", "formant"] = "espeak"
    """The synthesiser; ``formant`` needs nothing installed and sounds worse."""
    mixtures: int = 60
    """Mixtures of each kind (separation, enhancement, diarization) for training; a quarter each for
    dev and test."""
    seed: int = 0
    """Of the corpus and the mixtures."""


def read_suite(path: Path) -> dict[str, list[Path]]:
    """Return task -> corpora of a suite.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a mapping of tasks to lists of folders.
        LookupError: an unknown task.
    """
    import yaml

    from mynah import registry, tasks

    if not path.is_file():
        raise FileNotFoundError(f"no suite {path}; 'mynah suite' makes one of the embedded corpus")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or not data:
        raise ValueError(f"{path} must map tasks to lists of corpora, as 'pr: [mini]'")
    known = tasks.available()
    out = {}
    for name, folders in data.items():
        if name not in known:
            raise LookupError(registry.unknown("task", str(name), known))
        listed = [folders] if isinstance(folders, str) else folders
        if not isinstance(listed, list) or not all(isinstance(f, str) for f in listed):
            raise ValueError(f"{path}: {name} must be a list of folders, got {folders!r}")
        out[name] = [path.parent / folder for folder in listed]
    return out
