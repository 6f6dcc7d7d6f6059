"""espeak-ng's phoneme mnemonics as the 39 phones of the CMU dictionary."""

from __future__ import annotations

from mynah.tasks.corpora.mini.script import SILENCE

STOPS = frozenset(("P", "T", "K", "B", "D", "G", "CH", "JH"))

# Merged vowels become two phones; "@" or "R" at the end is decided by the accent (see `arpabet`).
_TABLE = {
    "a": "AE",
    "aa": "AE",
    "a#": "AH",
    "@": "AH",
    "@2": "AH",
    "@5": "AH",
    "V": "AH",
    "VR": "ER",
    "IR": "ER",
    "3": "ER",
    "3:": "ER",
    "A:": "AA",
    "0": "AA",
    "O": "AO",
    "O2": "AO",
    "O:": "AO",
    "E": "EH",
    "I": "IH",
    "I2": "IH",
    "I#": "IH",
    "i": "IY",
    "i:": "IY",
    "U": "UH",
    "u": "UW",
    "u:": "UW",
    "aI": "AY",
    "aI2": "AY",
    "aU": "AW",
    "eI": "EY",
    "oU": "OW",
    "OI": "OY",
    "A@": "AA R",
    "o@": "AO R",
    "O@": "AO R",
    "e@": "EH R",
    "i@3": "IH R",
    "i@": "IH R",
    "U@": "UH R",
    "aI3": "AY R",
    "aI@": "AY AH",
    "aU@": "AW R",
    "@L": "AH L",
    "b": "B",
    "tS": "CH",
    "d": "D",
    "D": "DH",
    "f": "F",
    "g": "G",
    "h": "HH",
    "dZ": "JH",
    "k": "K",
    "l": "L",
    "m": "M",
    "n": "N",
    "n-": "N",
    "N": "NG",
    "p": "P",
    "r": "R",
    "r-": "R",
    "s": "S",
    "S": "SH",
    "t": "T",
    "t2": "T",
    "t#": "T",
    "t[": "T",
    "?": "T",
    "T": "TH",
    "v": "V",
    "w": "W",
    "w#": "W",
    "j": "Y",
    "z": "Z",
    "Z": "ZH",
    "_": SILENCE,
    "_:": SILENCE,
    "_!": SILENCE,
}
_IGNORED = frozenset((";", ""))  # palatalisation: part of its neighbour
_R_COLOURED = frozenset(("AA R", "AO R", "EH R", "IH R", "UH R", "AY R", "AW R"))
FIRST_SHARE = 0.6  # of a merged vowel


def arpabet(mnemonic: str, following: str, *, rhotic: bool) -> tuple[str, ...]:
    """Return the ARPAbet phones of one mnemonic, none if it only marks its neighbour.

    Args:
        mnemonic: espeak's name, stress marks included.
        following: the next mnemonic: an r-coloured vowel before ``r`` does not repeat the R.
        rhotic: whether the accent says the R of "car"; otherwise the glide is a schwa, and
            long "car", "four" have none.

    Raises:
        LookupError: an unknown mnemonic.
    """
    name = mnemonic.lstrip("',%=|")
    if name in _IGNORED:
        return ()
    if name not in _TABLE:
        raise LookupError(f"espeak-ng's phoneme {mnemonic!r} has no ARPAbet phone in the table")
    phones = _TABLE[name]
    if phones not in _R_COLOURED:
        return tuple(phones.split())
    vowel = phones.split()[0]
    if following.lstrip("',%=|") in ("r", "r-"):
        return (vowel,)
    if rhotic:
        return (vowel, "R")
    return (vowel,) if vowel in ("AA", "AO") else (vowel, "AH")
