"""Common Voice 7 for OOD-ASR: Mexican Spanish, Chinese and Arabic, one ``--variant`` each.

Ardila et al. 2020, arXiv:1912.06670; the choice is SUPERB-SG's. Layout: the folder of a language (or
the release's, which holds it) with ``train.tsv``, ``dev.tsv``, ``test.tsv`` (columns ``client_id``,
``path``, ``sentence``, ``gender``, ``accent``; ``accents`` in later releases) and ``clips``. Of ``es``
only rows with the accent ``mexicano`` are taken. Text is normalised (``commonvoice_text``); sentences
that the rules drop are counted. s3prl converts the MP3 files to 16 kHz beforehand; here they are
decoded and resampled when they are read (converted clips are taken too).

Nothing is published of how many utterances remain. Recalled: 21.5, 1.2 and 0.6 hours of es, 31.2,
14.5 and 15.3 of zh-CN, 30.7, 12.2 and 12.5 of ar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mynah.tasks.corpora.official.commonvoice_text import LANGUAGES, normalise
from mynah.tasks.corpora.official.core.clips import Clips
from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import require, table
from mynah.tasks.corpora.official.core.published import Size
from mynah.tasks.corpora.rows import Problems

ORIGIN = "commonvoice.mozilla.org: version 7.0 (2021-07-21) of the language"
VARIANTS = LANGUAGES
DEFAULT: str | None = None
PUBLISHED: Mapping[str, tuple[Size, ...]] = {}

PARTS = ("train", "dev", "test")
ACCENT = {"es": "mexicano"}


def read(
    source: str | Path,
    problems: Problems,
    *,
    variant: str,
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> Found:
    """Read the tables of a language, normalise its sentences, find the clips.

    Args:
        source: the folder of the language, or the one that holds it.
        problems: receives what is wrong: a clip that no folder holds, a clip listed twice, a row of
            another language.
        variant: the language.
        audio_root: folders, besides the source, that clips may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: a table lacks a column.
    """
    home = Path(source) / variant if (Path(source) / variant).is_dir() else Path(source)
    wanted = [*(f"{part}.tsv" for part in PARTS), *([] if audio_root else ["clips/"])]
    folder = require(home, f"Common Voice ({variant})", ORIGIN, *wanted)
    collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
    clips = Clips(folder, audio_root)
    for split in PARTS:
        file = folder / f"{split}.tsv"
        for where, cells in table(file, problems, ("client_id", "path", "sentence")):
            if variant in ACCENT and not {"accent", "accents"} & cells.keys():
                raise ValueError(f"{file}: {variant} is chosen by accent, there is no such column")
            _row(collector, clips, where, split, variant, cells)
    return collector.found()


def _row(
    collector: Collector,
    clips: Clips,
    where: str,
    split: str,
    language: str,
    cells: Mapping[str, str],
) -> None:
    """Collect an utterance, unless the protocol leaves it out."""
    name = Path(cells["path"]).stem
    if (there := cells.get("locale", language)) != language:
        collector.problems.error(where, f"wanted is {language}, the row is in {there!r}", name)
        return
    accent = cells.get("accent", cells.get("accents", ""))
    if (only := ACCENT.get(language)) and accent != only:
        collector.skip(f"accent is not {only}")
        return
    text = normalise(_unquoted(cells["sentence"]), language)
    if text is None:
        collector.skip("the sentence is dropped by the text rules")
        return
    try:
        path = clips.find(cells["path"])
    except ValueError as error:
        collector.problems.error(where, str(error), name)
        return
    collector.add(
        where,
        name,
        path,
        split=split,
        speaker=cells["client_id"],
        text=text,
        labels={"language": language, "accent": accent, "gender": cells.get("gender", "")},
    )


def _unquoted(cell: str) -> str:
    """Return a cell without the quotes that a CSV writer put round it."""
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell
