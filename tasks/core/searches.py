"""What query by example searches in a corpus: spoken queries, documents, and which holds which.

Three kinds of corpus are understood; the docstring of ``tasks.qbe`` describes them. Words are
compared without case and punctuation, and a document holds a query if it has its words one after
the other. Choices are by hash of the ids, so that they are the same on every machine.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from mynah.tasks.core.contract import DataError
from mynah.tasks.core.splits import (
    Parts,
    first_few,
    given_or_made,
    order,
    part_of,
    speaker_unit,
)
from mynah.tasks.corpora.utterance import Utterance

QUERIES, DOCUMENTS = 100, 1000  # of searches that are made here, at most
QUERY_SECONDS = 0.2
COMMON = 0.5  # a word in a greater share of the documents is no query
ASKED = ("dev", "test")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched in one part.

    Attributes:
        queries: in the order of their ids.
        documents: likewise.
        true: id of a query -> ids of the documents that hold it, in order.
    """

    queries: tuple[Utterance, ...]
    documents: tuple[Utterance, ...]
    true: Mapping[str, tuple[str, ...]]


def words(text: str | None) -> tuple[str, ...]:
    """Return the words of a transcript, without case and punctuation."""
    return tuple(_WORD.findall((text or "").casefold()))


def holds(document: Sequence[str], query: Sequence[str]) -> bool:
    """Return whether a document has the words of a query one after the other."""
    size = len(query)
    starts = range(len(document) - size + 1)
    return any(tuple(document[at : at + size]) == tuple(query) for at in starts)


def searches_of(
    utterances: Sequence[Utterance], *, seed: int, take_given: bool
) -> tuple[dict[str, Search], str]:
    """Return what is searched in ``dev`` and in ``test``, and a sentence that says what that is.

    Args:
        utterances: of the corpus.
        seed: of what is chosen here.
        take_given: whether the parts that the corpus names count.

    Raises:
        DataError: nothing in the corpus says what a document holds, a query is said to be in a
            document that is not there, or nothing (or everything) can be found in a part.
    """
    if any(u.label("subset") == "documents" for u in utterances):
        searches, note = _labelled(utterances, seed, take_given)
    elif any(u.label("term") for u in utterances):
        searches, note = _terms(utterances, seed, take_given)
    else:
        searches, note = _single(utterances, seed, take_given)
    for name, search in searches.items():
        if not any(search.true.values()):
            raise DataError(
                f"no document holds any of the {len(search.queries)} queries of {name}: "
                f"{first_few(u.id for u in search.queries) or 'none could be made'}"
            )
        if all(len(ids) in (0, len(search.documents)) for ids in search.true.values()):
            raise DataError(
                f"all {len(search.documents)} documents hold every query of {name} that is found "
                "at all: there is nothing to tell apart"
            )
    return searches, note


def _labelled(
    utterances: Sequence[Utterance], seed: int, take_given: bool
) -> tuple[dict[str, Search], str]:
    """Return the searches of a corpus whose queries name the documents that hold them."""
    documents = [u for u in utterances if u.label("subset") == "documents"]
    asked = [u for u in utterances if u.label("subset") == "queries"]
    true = {u.id: tuple((u.label("documents") or "").split()) for u in asked}
    known = {u.id for u in documents}
    strange = [
        f"{name} of query {query}"
        for query, names in true.items()
        for name in names
        if name not in known
    ]
    if strange:
        raise DataError(f"queries name documents that are not there: {first_few(strange)}")
    parts: Parts = {name: [u for u in asked if part_of(u.split) == name] for name in ASKED}
    if take_given and all(parts.values()):
        lost = [f"{u.id} ({u.split})" for u in asked if part_of(u.split) not in ASKED]
        if lost:
            raise DataError(f"queries must be in dev or in test; these are not: {first_few(lost)}")
        note = "queries are split as the corpus says"
    else:
        names = order(true, f"queries-{seed}")
        first = set(names[: len(names) // 2])
        parts = {
            "dev": [u for u in asked if u.id in first],
            "test": [u for u in asked if u.id not in first],
        }
        note = "queries were split here, half for dev and half for test"
    return (
        {name: _search(parts[name], documents, true) for name in ASKED},
        f"{note}; documents are those of the corpus, the same for both",
    )


def _terms(
    utterances: Sequence[Utterance], seed: int, take_given: bool
) -> tuple[dict[str, Search], str]:
    """Return the searches of a corpus with spoken terms."""
    kept = [u for u in utterances if words(u.text) or u.label("term")]
    parts, note = _parts(kept, seed, take_given)
    searches = {}
    for name in ASKED:
        asked = [u for u in parts[name] if u.label("term")]
        documents = _documents([u for u in parts[name] if not u.label("term")], seed)
        spelled = {u.id: words(u.label("term")) for u in asked}
        searches[name] = _held(asked, spelled, documents, seed, share=1.0)
    return searches, f"queries are the corpus's spoken terms, documents of their part; {note}"


def _single(
    utterances: Sequence[Utterance], seed: int, take_given: bool
) -> tuple[dict[str, Search], str]:
    """Return the searches for single words of a corpus with transcripts."""
    kept = [u for u in utterances if words(u.text)]
    if not kept:
        raise DataError(
            "qbe needs queries that name their documents (labels subset and documents), spoken "
            f"terms (label term) or transcripts; none of the {len(utterances)} utterances has any"
        )
    parts, note = _parts(kept, seed, take_given)
    documents = _documents(parts["train"], seed)
    searches = {}
    for name in ASKED:
        asked = _takes(parts[name], seed)
        spelled = {u.id: words(u.text) for u in asked}
        searches[name] = _held(asked, spelled, documents, seed, share=COMMON)
    return searches, f"queries are single words, documents are those of train; {note}"


def _parts(kept: Sequence[Utterance], seed: int, take_given: bool) -> tuple[Parts, str]:
    unit, unit_name = speaker_unit(kept)
    return given_or_made(kept, unit, unit_name=unit_name, seed=seed, take_given=take_given)


def _documents(utterances: Sequence[Utterance], seed: int) -> list[Utterance]:
    """Return the utterances of several words, or of one where there are none of several."""
    several = [u for u in utterances if len(words(u.text)) > 1]
    return _some(several or [u for u in utterances if words(u.text)], f"docs-{seed}", DOCUMENTS)


def _takes(utterances: Sequence[Utterance], seed: int) -> list[Utterance]:
    """Return one take of each word of each speaker, cut out by time or an utterance of its own."""
    takes: dict[tuple[str, str], list[Utterance]] = defaultdict(list)
    for u in utterances:
        who = u.speaker or u.id
        if len(words(u.text)) == 1:
            takes[who, words(u.text)[0]].append(u)
            continue
        for k, interval in enumerate(u.intervals.get("words", ())):
            if len(word := words(interval.symbol)) == 1:
                cut = dataclasses.replace(
                    u,
                    id=f"{u.id}#{k}",
                    start=u.start + interval.start,
                    duration=interval.end - interval.start,
                    text=word[0],
                    intervals={},
                )
                takes[who, word[0]].append(cut)
    long = ([u for u in own if u.duration >= QUERY_SECONDS] for own in takes.values())
    return [_some(own, f"take-{seed}", 1)[0] for own in long if own]


def _held(
    asked: Sequence[Utterance],
    spelled: Mapping[str, Sequence[str]],
    documents: Sequence[Utterance],
    seed: int,
    *,
    share: float,
) -> Search:
    """Return the search for the queries that documents hold, but no more than a share of them."""
    texts = {u.id: words(u.text) for u in documents}
    answers = {  # each query once, however many takes there are of it
        query: tuple(i for i, text in texts.items() if holds(text, query))
        for query in {tuple(text) for text in spelled.values()}
    }
    true = {name: answers[tuple(text)] for name, text in spelled.items()}
    kept = [u for u in asked if 0 < len(true[u.id]) <= share * len(documents)]
    return _search(_some(kept, f"queries-{seed}", QUERIES), documents, true)


def _search(
    asked: Sequence[Utterance], documents: Sequence[Utterance], true: Mapping[str, Sequence[str]]
) -> Search:
    return Search(
        queries=tuple(sorted(asked, key=lambda u: u.id)),
        documents=tuple(sorted(documents, key=lambda u: u.id)),
        true={u.id: tuple(sorted(true[u.id])) for u in asked},
    )


def _some(utterances: Sequence[Utterance], salt: str, most: int) -> list[Utterance]:
    """Return at most so many utterances, chosen by hash."""
    at = {u.id: u for u in utterances}
    return [at[name] for name in order(at, salt)[:most]]
