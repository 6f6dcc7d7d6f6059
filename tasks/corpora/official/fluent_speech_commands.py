"""Fluent Speech Commands for IC: official parts, three slots of the intent.

Lugosch et al. 2019, arXiv:1904.03670. Layout: ``data/train_data.csv``, ``valid_data.csv`` and
``test_data.csv`` with the columns ``path`` (relative to the corpus), ``speakerId``,
``transcription``, ``action``, ``object``, ``location``, and the audio under ``wavs/speakers``.
Labels: ``action``, ``object``, ``location``; a slot that is not said is ``none``. Ids are the files'
names, as the leaderboard's ``test_predict.csv`` wants them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import require, table
from mynah.tasks.corpora.official.core.published import Size, splits
from mynah.tasks.corpora.rows import Problems

ORIGIN = "fluent.ai: fluent_speech_commands_dataset, on request"
VARIANTS: tuple[str, ...] = ()
SLOTS = ("action", "object", "location")
PUBLISHED: Mapping[str, tuple[Size, ...]] = {
    "": (
        *splits(train=23132, dev=3118, test=3793),
        *(
            Size(count=count, unit="values", label=slot)
            for slot, count in zip(SLOTS, (6, 14, 4), strict=True)
        ),
    )
}

PARTS = {"train": "train_data.csv", "dev": "valid_data.csv", "test": "test_data.csv"}


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
        source: the folder ``fluent_speech_commands_dataset``.
        problems: receives what is wrong: an empty slot; in dev or test, a value of a slot that train
            does not have, because no head could predict it.
        variant: there is one kind only.
        audio_root: folders, besides the source, that audio may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: a table or the audio is missing.
        ValueError: a table lacks a column.
    """
    del variant
    wanted = [f"data/{name}" for name in PARTS.values()]
    folder = require(source, "Fluent Speech Commands", ORIGIN, *wanted, "wavs/")
    collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
    known: dict[str, set[str]] = defaultdict(set)
    columns = ("path", "speakerId", "transcription", *SLOTS)
    for split, name in PARTS.items():
        for where, cells in table(folder / "data" / name, problems, columns, delimiter=","):
            identifier = Path(cells["path"]).stem
            labels = {slot: cells[slot].strip() for slot in SLOTS}
            try:
                for slot, value in labels.items():
                    if not value:
                        raise ValueError(f"no {slot}; a slot that is not said is 'none'")
                    if split == "train":
                        known[slot].add(value)
                    elif value not in known[slot]:
                        raise ValueError(f"train has no {slot} {value!r}")
            except ValueError as error:
                problems.error(where, str(error), identifier)
                continue
            collector.add(
                where,
                identifier,
                cells["path"],
                split=split,
                speaker=cells["speakerId"],
                text=cells["transcription"],
                labels=labels,
            )
    return collector.found()
