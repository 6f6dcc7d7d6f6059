"""What is wrong with recognised text: of phones, of words, of words with slots around them.

A server scores any text; what a model cannot have said, because its vocabulary has no such symbol,
shows that a file was normalised otherwise than the references, or is another task's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

Row = tuple[str, str]
UNKNOWN = "<unk>"  # a symbol of s3prl's vocabularies
_PHONES = (
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V "
    "W Y Z ZH SPN SIL"
)
_SLOTS = (
    "album artist best_rating city condition_description condition_temperature country cuisine "
    "current_location entity_name facility genre geographic_poi location_name movie_name "
    "movie_type music_item object_location_type object_name object_part_of_series_type "
    "object_select object_type party_size_description party_size_number playlist playlist_owner "
    "poi rating_unit rating_value restaurant_name restaurant_type served_dish service sort "
    "spatial_relation state timeRange track year"
)
PHONES = frozenset(_PHONES.split())
SLOTS = frozenset(_SLOTS.split())
"""Of Audio SNIPS; other corpora have those of their references."""
_CUE = re.compile(r"[BE]-(\S+)")
_ENGLISH = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ' ")


def mistakes(
    task: str, rows: Sequence[Row], references: Mapping[str, str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield each kind of mistake with what and where; nothing may be there.

    Args:
        task: ``pr``, ``asr`` or ``sf``.
        rows: (id, prediction).
        references: of the test set, by id.
    """
    if task != "sf":  # characters and slots are joined as they come, and scored as single spaces
        yield (
            "spaces that are not single",
            [f"{i}: {s!r}" for i, s in rows if s != " ".join(s.split())],
        )
    if task == "pr":
        yield "phone that does not exist", _phones(rows, references)
        return
    if task == "sf":
        yield "slot that does not exist", _slots(rows, references)
    yield from _characters(rows, references)


def _phones(rows: Sequence[Row], references: Mapping[str, str]) -> list[str]:
    known = {token for true in references.values() for token in true.split()} | {UNKNOWN}
    known |= PHONES | {phone + stress for phone in PHONES for stress in "012"}
    return [f"{i}: {token!r}" for i, said in rows for token in said.split() if token not in known]


def _slots(rows: Sequence[Row], references: Mapping[str, str]) -> list[str]:
    """Return cues of no slot; text may follow one without a space, as ``E-cityTO``."""
    true = {name for text in references.values() for name in _CUE.findall(text)}
    known = tuple(SLOTS | true)
    return [
        f"{i}: {name!r}"
        for i, said in rows
        for name in _CUE.findall(said)
        if not name.startswith(known)
    ]


def _characters(
    rows: Sequence[Row], references: Mapping[str, str]
) -> Iterator[tuple[str, list[str]]]:
    plain = [(i, _CUE.sub("", said).replace(UNKNOWN, "")) for i, said in rows]
    true = "".join(_CUE.sub("", text) for text in references.values())
    letters = set(true) | {" "}
    if true == true.upper():
        lower = [f"{i}: {said!r}" for i, said in plain if said != said.upper()]
        yield "lower-case letters where references have none", lower
        plain = [(i, said.upper()) for i, said in plain]
        letters |= _ENGLISH
    elif true == true.lower():
        upper = [f"{i}: {said!r}" for i, said in plain if said != said.lower()]
        yield "upper-case letters where references have none", upper
        plain = [(i, said.lower()) for i, said in plain]
    yield (
        "character that references never have",
        [
            f"{i}: {letter!r}"
            for i, said in plain
            for letter in dict.fromkeys(said)
            if letter not in letters
        ],
    )
