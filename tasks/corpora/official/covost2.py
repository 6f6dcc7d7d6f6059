"""CoVoST 2, English to German, for ST: Common Voice 4 clips with translations.

Wang et al. 2020, arXiv:2007.10310; the cleaning is SUPERB-SG's (``covost_text``), of all parts, test
included. Layout: the English folder of Common Voice 4 with ``clips``, and beside them either the
tables ``covost_v2.en_de.train.tsv``, ``.dev.tsv``, ``.test.tsv`` that ``get_covost_splits.py`` makes
(columns ``path``, ``sentence``, ``translation``, ``client_id``), or what it makes them of:
``covost_v2.en_de.tsv`` (``path``, ``translation``, ``split``) and ``validated.tsv``, joined here by
the same rule: train is ``train`` and ``train_covost``, dev and test are themselves, others in none.

Text is the cleaned English, label ``translation`` the cleaned German. Pairs that the rules leave out
are counted by reason. Nothing is published of how many remain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mynah.tasks.corpora.official import covost_text
from mynah.tasks.corpora.official.core.clips import Clips
from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import require, table
from mynah.tasks.corpora.official.core.published import Size
from mynah.tasks.corpora.rows import Problems

ORIGIN = (
    "commonvoice.mozilla.org: version 4 (2019-12-10) of English; and "
    "dl.fbaipublicfiles.com/covost: covost_v2.en_de.tsv.tar.gz, unpacked to the same folder"
)
VARIANTS: tuple[str, ...] = ()
PUBLISHED: Mapping[str, tuple[Size, ...]] = {}

PARTS = ("train", "dev", "test")
MERGED = "covost_v2.en_de.tsv"
_SPLITS = {"train": "train", "train_covost": "train", "dev": "dev", "test": "test"}


def read(
    source: str | Path,
    problems: Problems,
    *,
    variant: str = "",
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> Found:
    """Read the tables, clean the pairs, find the clips.

    Args:
        source: the English folder of Common Voice 4.
        problems: receives what is wrong: a clip that no folder holds, a translation of a clip that
            ``validated.tsv`` does not name, a clip listed twice, a source that is nothing but
            punctuation.
        variant: there is one kind only.
        audio_root: folders, besides the source, that clips may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: the tables are missing.
        ValueError: a table lacks a column.
    """
    del variant
    tables = [f"covost_v2.en_de.{part}.tsv" for part in PARTS]
    joined = not (Path(source) / tables[0]).is_file() and (Path(source) / MERGED).is_file()
    wanted = [MERGED, "validated.tsv"] if joined else [f"{tables[0]}|{MERGED}", *tables[1:]]
    folder = require(source, "CoVoST 2", ORIGIN, *wanted, *([] if audio_root else ["clips/"]))
    collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
    clips = Clips(folder, audio_root)
    pairs = _joined(folder, collector) if joined else _separate(folder, problems)
    for where, split, cells in pairs:
        name = Path(cells["path"]).name.partition(".")[0]
        if reason := covost_text.why_left_out(cells["sentence"], cells["translation"]):
            collector.skip(reason)
            continue
        try:
            path = clips.find(cells["path"])
            text = covost_text.source_text(cells["sentence"])
            if not text:
                raise ValueError(f"nothing but punctuation: {cells['sentence']!r}")
        except ValueError as error:
            problems.error(where, str(error), name)
            continue
        collector.add(
            where,
            name,
            path,
            split=split,
            speaker=cells["client_id"],
            text=text,
            labels={"translation": covost_text.target_text(cells["translation"]), "language": "en"},
        )
    return collector.found()


def _separate(folder: Path, problems: Problems) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield ``file:line``, split and cells of the tables of the parts."""
    columns = ("path", "sentence", "translation", "client_id")
    for split in PARTS:
        for where, cells in table(folder / f"covost_v2.en_de.{split}.tsv", problems, columns):
            yield where, split, cells


def _joined(folder: Path, collector: Collector) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield the same of the two tables that those of the parts are made of."""
    problems = collector.problems
    spoken = {
        cells["path"]: cells
        for _, cells in table(folder / "validated.tsv", problems, ("path", "sentence", "client_id"))
    }
    for where, cells in table(folder / MERGED, problems, ("path", "translation", "split")):
        if (split := _SPLITS.get(cells["split"])) is None:
            collector.skip(f"split {cells['split']!r}")
        elif cells["path"] not in spoken:
            name = Path(cells["path"]).name.partition(".")[0]
            problems.error(where, f"validated.tsv does not name {cells['path']}", name)
        else:
            yield where, split, {**spoken[cells["path"]], **cells}
