"""Trials of speaker verification: pairs of utterances, kept beside the manifests as ``trials.tsv``.

The file has a header and one trial a line: ``target`` (1 same speaker, 0 not), ``enrolment`` and
``test`` (ids of utterances of the corpus).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

TRIALS = "trials.tsv"
HEADER = ("target", "enrolment", "test")


class Trial(NamedTuple):
    """A pair of utterances, and whether one speaker says both."""

    target: bool
    enrolment: str
    test: str


def complete(trials: Sequence[Trial], known: Collection[str]) -> list[Trial]:
    """Return the trials of which both utterances are known."""
    return [t for t in trials if t.enrolment in known and t.test in known]


def dump(trials: Sequence[Trial]) -> bytes:
    """Return ``trials.tsv``."""
    lines = ["\t".join(HEADER), *(f"{int(t.target)}\t{t.enrolment}\t{t.test}" for t in trials)]
    return "".join(f"{line}\n" for line in lines).encode()


def load(folder: str | Path) -> list[Trial]:
    """Read the trials of a prepared corpus.

    Args:
        folder: of the prepared corpus.

    Raises:
        FileNotFoundError: it has none.
        ValueError: a line is not a trial.
    """
    path = Path(folder) / TRIALS
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: this corpus has no list of trials")
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or tuple(lines[0].split("\t")) != HEADER:
        raise ValueError(f"{path}:1: wanted the header {' '.join(HEADER)}")
    trials = []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) != len(HEADER) or cells[0] not in ("0", "1"):
            raise ValueError(f"{path}:{number}: wanted 0 or 1 and two ids, got {line!r}")
        trials.append(Trial(cells[0] == "1", cells[1], cells[2]))
    return trials
