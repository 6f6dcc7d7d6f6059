"""Pronunciations of every word that the corpus can say, written by hand, in 39 ARPAbet phones."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def load() -> dict[str, tuple[str, ...]]:
    """Return word -> phones."""
    text = resources.files(__package__).joinpath("lexicon.txt").read_text(encoding="utf-8")
    rows = (line.split() for line in text.splitlines() if line)
    return {row[0]: tuple(row[1:]) for row in rows}


def pronounce(word: str) -> tuple[str, ...]:
    """Return the phones of a word.

    Raises:
        LookupError: the word is not in ``lexicon.txt``.
    """
    try:
        return load()[word]
    except KeyError:
        raise LookupError(f"the word {word!r} is not in lexicon.txt: add a line for it") from None
