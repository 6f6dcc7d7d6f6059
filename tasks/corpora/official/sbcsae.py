"""SBCSAE, spontaneous American English, for OOD-ASR: as the preprocessing leaves it.

Du Bois et al. 2000-2005 (Santa Barbara Corpus of Spoken American English). Layout: what
``vectominist/SBCSAE-preprocess`` writes: ``wav`` with ``SBC009_000000-001316.wav`` (recording, start and
end in hundredths of a second) and ``train.tsv``, ``dev.tsv``, ``test.tsv`` (in the source or in
``tsv``) with the columns ``path`` and ``sentence``. Sentences are upper case, letters, ``'`` and spaces.

Recordings 1 to 46 are train, 47 to 53 dev, 54 to 60 test; an utterance in another part is a fault.
Label ``session``: the recording (there is no telling who speaks). Nothing is published of how many
utterances there are. Recalled: 16.7, 1.6 and 2.2 hours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import either, require, table
from mynah.tasks.corpora.official.core.published import Size
from mynah.tasks.corpora.rows import Problems

ORIGIN = (
    "linguistics.ucsb.edu/research/santa-barbara-corpus, prepared with "
    "github.com/vectominist/SBCSAE-preprocess (--wav SOURCE/wav --tsv SOURCE)"
)
VARIANTS: tuple[str, ...] = ()
PUBLISHED: Mapping[str, tuple[Size, ...]] = {}

RECORDINGS = {"train": range(1, 47), "dev": range(47, 54), "test": range(54, 61)}
_NAME = re.compile(r"SBC(\d{3})_(\d{6})-(\d{6})")
_SENTENCE = re.compile(r"[A-Z' ]+")
_TOLERANCE = 0.02  # seconds; both times were cut to hundredths


def read(
    source: str | Path,
    problems: Problems,
    *,
    variant: str = "",
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> Found:
    """Read the three tables.

    Args:
        source: the folder with ``wav`` and the tables.
        problems: receives what is wrong: a name that is none, a recording of another part, a
            sentence with other characters, a file that does not last as its name says.
        variant: there is one kind only.
        audio_root: folders, besides the source, that audio may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: a table or ``wav`` is missing.
        ValueError: a table lacks a column.
    """
    del variant
    folder = require(
        source, "SBCSAE", ORIGIN, "wav/", *(f"{s}.tsv|tsv/{s}.tsv" for s in RECORDINGS)
    )
    collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
    for split, allowed in RECORDINGS.items():
        path = either(folder, f"{split}.tsv", f"tsv/{split}.tsv")
        for where, cells in table(path, problems, ("path", "sentence")):
            name = Path(cells["path"]).stem
            sentence = cells["sentence"].strip()
            try:
                parts = _NAME.fullmatch(name)
                if parts is None:
                    raise ValueError(f"wanted SBCnnn_START-END.wav, got {cells['path']!r}")
                if int(parts[1]) not in allowed:
                    raise ValueError(f"recording {parts[1]} does not belong to {split}")
                if not _SENTENCE.fullmatch(sentence):
                    raise ValueError(f"wanted upper-case letters, ' and spaces, got {sentence!r}")
            except ValueError as error:
                problems.error(where, str(error), name)
                continue
            collector.add(
                where,
                name,
                cells["path"],
                base=folder / "wav",
                split=split,
                text=sentence,
                labels={"session": f"SBC{parts[1]}", "language": "en"},
                declared_seconds=(int(parts[3]) - int(parts[2])) / 100,
                tolerance=_TOLERANCE,
            )
    return collector.found()
