"""Text of Common Voice as SUPERB-SG's OOD-ASR writes it, per language.

The rules are those of s3prl's ``ctc/corpus/common_voice_preprocess.py``: NFKC, upper case,
punctuation but ``'`` to spaces, spaces joined; no spaces in Chinese; sentences of Chinese and Arabic
that hold a Latin letter or ``'`` are dropped, and so are those with characters that occur in a few
sentences only (another script in Spanish, Greek, Cyrillic and kana in Chinese).
"""

from __future__ import annotations

import re
import string
import unicodedata

LANGUAGES = ("es", "zh-CN", "ar")

_MARKS = (
    "「」『』《》〈〉、。⋯・ー〜丶"  # CJK
    "–—―‐−─"  # dashes, the minus and a box's line
    "‘“”«»"
    "،؛؟"  # Arabic
    "¡¿·×☭ː"
    "\u0301\u0303\u030c"  # acute, tilde and caron that stand alone
)
_TO_SPACE = {*string.punctuation, *_MARKS} - {"'"}
_TABLE = str.maketrans({**dict.fromkeys(_TO_SPACE, " "), "’": "'", "ㄧ": "一"})  # bopomofo i: one
_LATIN = re.compile(r"[A-Za-z']")
_RARE = {
    "es": frozenset("しらゴミムラ消箱良"),
    "zh-CN": frozenset("ΜИТオカドヤ䴕"),
    "ar": frozenset(),
}


def normalise(sentence: str, language: str) -> str | None:
    """Return a sentence as it is to be recognised, None where it is dropped.

    Args:
        sentence: as Common Voice has it.
        language: ``es``, ``zh-CN`` or ``ar``.

    Raises:
        ValueError: another language.
    """
    if language not in LANGUAGES:
        raise ValueError(f"rules are known of {', '.join(LANGUAGES)}, not of {language!r}")
    text = unicodedata.normalize("NFKC", sentence).upper().translate(_TABLE)
    text = re.sub(" +", "" if language == "zh-CN" else " ", text)
    if language in ("zh-CN", "ar") and _LATIN.search(text):
        return None
    if not _RARE[language].isdisjoint(text):
        return None
    return text.strip() or None
