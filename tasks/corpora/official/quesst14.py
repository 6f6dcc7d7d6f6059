"""QUESST 2014 for QbE: documents and queries in non-native English, and which holds which.

Anguera et al. 2015, doi:10.1109/ICASSP.2015.7179086; the subset is SUPERB's. Layout: ``Audio`` with
the documents, ``dev_queries`` and ``eval_queries``, and in ``scoring`` three lists
``language_key_utterances.lst``, ``language_key_dev.lst``, ``language_key_eval.lst`` (lines
``quesst14Database/PATH LANGUAGE``, of which those in ``nnenglish`` are taken) and the ground truth
``groundtruth_quesst14_PART/quesst14_PART.rttm`` (lines ``LEXEME DOCUMENT 1 START SECONDS QUERY ...``;
``NO_KEYWORD`` is none).

Splits: ``docs``, ``dev`` and ``test`` (eval). Labels: ``subset`` (``documents`` or ``queries``),
``language``, and on a query ``documents``: the ids of the documents that hold it, in order, spaces
between; without it no document of the subset does. Ids are the files' names, as the leaderboard's
``benchmark.stdlist.xml`` wants them.

Recalled, not read from the corpus itself: the columns of the rttm. The lists are as s3prl reads them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import require
from mynah.tasks.corpora.official.core.published import Size
from mynah.tasks.corpora.rows import Problems, text_lines
from mynah.tasks.corpora.utterance import Utterance

ORIGIN = "speech.fit.vutbr.cz/files/quesst14Database.tgz"
VARIANTS: tuple[str, ...] = ()
PUBLISHED: Mapping[str, tuple[Size, ...]] = {
    "": (
        Size(count=2714),
        Size(count=2438, split="docs", recalled=True),
        Size(count=138, split="dev", recalled=True),
        Size(count=138, split="test", recalled=True),
    )
}

LANGUAGE = "nnenglish"
LISTS = {"docs": "utterances", "dev": "dev", "test": "eval"}


def read(
    source: str | Path,
    problems: Problems,
    *,
    variant: str = "",
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> Found:
    """Read the lists and the ground truth.

    Args:
        source: the folder ``quesst14Database``.
        problems: receives what is wrong: a line that is none, a file listed twice or missing, ground
            truth of a query or document that no list names; a query that no document of the subset
            holds is a warning.
        variant: there is one kind only.
        audio_root: folders, besides the source, that audio may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: a folder, a list or the ground truth is missing.
    """
    del variant
    lists = {split: f"scoring/language_key_{name}.lst" for split, name in LISTS.items()}
    truths = {
        split: f"scoring/groundtruth_quesst14_{name}/quesst14_{name}.rttm"
        for split, name in LISTS.items()
        if split != "docs"
    }
    folder = require(source, "QUESST 2014", ORIGIN, "Audio/", *lists.values(), *truths.values())
    collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
    listed = {split: _listed(folder / name, problems) for split, name in lists.items()}
    chosen = {name for name, (_, _, language) in listed["docs"].items() if language == LANGUAGE}
    for split, files in listed.items():
        holders = (
            {}
            if split == "docs"
            else _truth(folder / truths[split], set(files), set(listed["docs"]), problems)
        )
        for name, (where, path, language) in files.items():
            if language != LANGUAGE:
                collector.skip(f"language {language}")
                continue
            holding = sorted(holders.get(name, set()) & chosen)
            if split != "docs" and not holding:
                problems.warn(where, f"no document in {LANGUAGE} holds {name!r}")
            collector.add(
                where,
                name,
                path,
                split=split,
                labels={
                    "subset": "documents" if split == "docs" else "queries",
                    "language": language,
                    "documents": " ".join(holding),
                },
            )
    return collector.found()


def settle(utterances: Sequence[Utterance], problems: Problems) -> list[Utterance]:
    """Return queries that name only documents which can be used.

    Args:
        utterances: those whose audio can be used.
        problems: receives a warning for each query that loses a document.
    """
    there = {u.id for u in utterances}
    out = []
    for u in utterances:
        holding = (u.label("documents") or "").split()
        left = [name for name in holding if name in there]
        if len(left) == len(holding):
            out.append(u)
            continue
        lost = ", ".join(name for name in holding if name not in there)
        problems.warn(u.id, f"documents that hold it cannot be used: {lost}")
        labels = {**u.labels, "documents": " ".join(left)}
        out.append(replace(u, labels={name: value for name, value in labels.items() if value}))
    return out


def _listed(path: Path, problems: Problems) -> dict[str, tuple[str, str, str]]:
    """Return id -> (``file:line``, path in the corpus, language)."""
    found: dict[str, tuple[str, str, str]] = {}
    for where, line in text_lines(path, problems):
        cells = line.split()
        if len(cells) != 2 or "/" not in cells[0]:
            problems.error(where, f"wanted quesst14Database/PATH and a language, got {line!r}")
            continue
        inside = cells[0].partition("/")[2]  # the first folder is the corpus itself
        name = Path(inside).stem
        if name in found:
            problems.error(where, f"{name!r} is there twice, first at {found[name][0]}", name)
            continue
        found[name] = (where, inside, cells[1])
    return found


def _truth(
    path: Path, queries: set[str], documents: set[str], problems: Problems
) -> dict[str, set[str]]:
    """Return query -> documents that hold it."""
    holders: dict[str, set[str]] = defaultdict(set)
    for where, line in text_lines(path, problems, blame=False):
        cells = line.split()
        if cells[0] != "LEXEME":
            continue
        if len(cells) < 6:
            problems.fault(
                where, f"wanted LEXEME, document, 1, start, seconds, query, got {line!r}"
            )
            continue
        document, query = cells[1], cells[5]
        if query == "NO_KEYWORD":
            continue
        if query not in queries or document not in documents:
            kind, name = ("query", query) if query not in queries else ("document", document)
            problems.fault(where, f"no list names the {kind} {name!r}")
            continue
        holders[query].add(document)
    return holders
