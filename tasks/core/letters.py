"""Text letter by letter: what a decoder that writes characters writes with.

Two ways. *Plain*: every character of the training text, the space among them, is a symbol.
*Pieces*: what a character model of SentencePiece (Kudo and Richardson 2018) and fairseq's dictionary
make of it: text is normalised (NFKC with SentencePiece's few exceptions), every word starts with
``▁``, which stands for the space, the symbols are the commonest characters up to a limit, the
commoner first, and a run of other characters is one ``<unk>``. A character model has nothing else to
learn, so that it is defined here rather than trained: inventories and codes equal those of
sentencepiece 0.2.3, compared on random texts and on every character of Unicode 14's first three
planes, of which it writes one (U+0344) otherwise.

Both start with special symbols, of which ``<pad>`` is number 1 and ``</s>`` number 2.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Self

PAD, EOS = 1, 2
UNK = "<unk>"
SPACE = "▁"
PLAIN_SPECIAL = (UNK, "<pad>", "</s>")
PIECES_SPECIAL = ("<s>", "<pad>", "</s>", UNK)

_WIDE_TILDE = "～"  # kept, where NFKC makes it a narrow one
_DROPPED = [*range(0x01, 0x09), 0x0B, *range(0x0E, 0x20), 0x7F, 0x8F, 0x9F]
_SPACES = [0x09, 0x0A, 0x0C, 0x0D, 0x61C, 0x1680, 0x200B, 0x200C, 0x200E, 0x200F, 0x2028, 0x2029,
           0x2581, 0xFEFF, 0xFFFD]  # fmt: skip
_CLEANED = {**dict.fromkeys(_DROPPED, ""), **dict.fromkeys(_SPACES, " ")}


class Letters:
    """The symbols of a text and the text of symbols.

    Args:
        symbols: all of them, the special ones first.
        pieces: written as SentencePiece and fairseq do.

    Raises:
        ValueError: symbols that do not start with the special ones, or a symbol twice.
    """

    def __init__(self, symbols: Sequence[str], *, pieces: bool) -> None:
        special = PIECES_SPECIAL if pieces else PLAIN_SPECIAL
        if tuple(symbols[: len(special)]) != special or len(set(symbols)) != len(symbols):
            raise ValueError(
                f"symbols must be distinct and start with {', '.join(special)}, "
                f"got {', '.join(map(repr, symbols[:8]))} ..."
            )
        self.symbols = tuple(symbols)
        self.pieces = pieces
        self._index = {symbol: i for i, symbol in enumerate(self.symbols)}
        self._unknown = self._index[UNK]
        self._special = len(special)

    @classmethod
    def of(cls, texts: Iterable[str], *, pieces: bool, limit: int | None = None) -> Self:
        """Return the letters of texts.

        Args:
            texts: of the training part.
            pieces: as SentencePiece and fairseq do: the commoner ones first, equally common ones in
                the order of Unicode; else all in the order of Unicode.
            limit: most symbols, the special ones included; the commonest are kept.
        """
        special = PIECES_SPECIAL if pieces else PLAIN_SPECIAL
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(spelled(text, pieces=pieces))
        found = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
        if limit is not None:
            found = found[: max(0, limit - len(special))]
        return cls((*special, *(found if pieces else sorted(found))), pieces=pieces)

    def __len__(self) -> int:
        """Return the number of symbols."""
        return len(self.symbols)

    def encode(self, text: str) -> list[int]:
        """Return the symbols of a text, without ``</s>``; none of a text without characters."""
        out: list[int] = []
        for character in spelled(text, pieces=self.pieces):
            symbol = self._index.get(character, self._unknown)
            if not (self.pieces and symbol == self._unknown and out[-1:] == [symbol]):
                out.append(symbol)
        return out

    def decode(self, symbols: Iterable[int]) -> str:
        """Return the text of symbols without the special ones, but for ``<unk>`` of pieces."""
        kept = [
            self.symbols[i]
            for i in symbols
            if i >= self._special or (self.pieces and i == self._unknown)
        ]
        text = "".join(kept)
        return text.replace(SPACE, " ").strip() if self.pieces else " ".join(text.split())


def normal_form(text: str) -> str:
    """Return a text as SentencePiece's rule ``nmt_nfkc`` writes it, with single spaces."""
    parts = text.translate(_CLEANED).split(_WIDE_TILDE)
    joined = _WIDE_TILDE.join(unicodedata.normalize("NFKC", part) for part in parts)
    return " ".join(word for word in joined.split(" ") if word)


def spelled(text: str, *, pieces: bool) -> str:
    """Return the characters of a text as they are counted; none of a text without any."""
    if not pieces:
        return " ".join(text.split())
    normal = normal_form(text)
    return SPACE + normal.replace(" ", SPACE) if normal else ""
