"""Text of CoVoST 2 as SUPERB-SG cleans it: which pairs are kept, and how both sides are written.

The rules are those of s3prl's ``speech_translation/prepare_data``: pairs are judged as they come;
then the punctuation of both sides is normalised as Moses does (``normalize-punctuation.perl`` after
``replace-unicode-punctuation.perl``, control characters removed), with spaces before marks closed;
the source side also loses its punctuation and is lower-cased.
"""

from __future__ import annotations

import re
import string
import unicodedata

MAX_RATIO = 5.0
REMOVE = "REMOVE"  # how the translators marked sentences that cannot be translated

_KEPT = "'-"  # punctuation that stays in the source
_PUNCTUATION = str.maketrans("", "", "".join(set(string.punctuation) - set(_KEPT)))

_WIDE = str.maketrans(
    {
        **dict(zip("，、：？！；（）～％【】", ",,:?!;()~%[]", strict=True)),  # full width
        **dict(zip("∶━〈〉", ":-<>", strict=True)),
        **dict.fromkeys("“”《》「」", '"'),
        **{chr(ord("０") + digit): str(digit) for digit in range(10)},
        "’": "'",
        "…": "...",
    }
)
_FULL_STOP = re.compile(r"[。．]\s*")

_SPACES = re.compile(r" +")
_NBSP = "\u00a0"
_TO_ASCII = str.maketrans(
    {**dict.fromkeys("„“”", '"'), **dict.fromkeys("´‘‚’", "'"), "–": "-", "—": " - ", "…": "..."}
)
_BEFORE_QUOTES = (  # brackets and spaces
    (re.compile(r"\r"), ""),
    (re.compile(r"\("), " ("),
    (re.compile(r"\)"), ") "),
    (_SPACES, " "),
    (re.compile(r"\) ([.!:?;,])"), r")\1"),
    (re.compile(r"\( "), "("),
    (re.compile(r" \)"), ")"),
    (re.compile(r"(\d) %"), r"\1%"),
    (re.compile(r" ([:])"), r"\1"),
    (re.compile(r" ([;])"), r"\1"),
    (re.compile("`"), "'"),
    (re.compile("''"), ' " '),
)
_AFTER_QUOTES = (  # doubled apostrophes, French quotes, spaces that do not break
    (_SPACES, " "),
    (re.compile("''"), '"'),
    (re.compile(f"{_NBSP}«{_NBSP}|«{_NBSP}?"), '"'),
    (re.compile(f"{_NBSP}»{_NBSP}|{_NBSP}?»"), '"'),
    (re.compile(f"{_NBSP}%"), "%"),
    (re.compile(f"nº{_NBSP}"), "nº "),
    (re.compile(f"{_NBSP}:"), ":"),
    (re.compile(f"{_NBSP}(ºC|cm)"), r" \1"),
    (re.compile(f"{_NBSP}([?!;])"), r"\1"),
    (re.compile(f",{_NBSP}"), ", "),
    (_SPACES, " "),
)
_OF_LANGUAGE = {  # which side of a quotation mark commas and stops are on; spaces in numbers
    "en": (
        (re.compile(r'"([,.]+)'), r'\1"'),
        (re.compile(rf"(\d){_NBSP}(\d)"), r"\1.\2"),
    ),
    "de": (
        (re.compile(r',"'), '",'),
        (re.compile(r'(\.+)"(\s*[^<])'), r'"\1\2'),
        (re.compile(rf"(\d){_NBSP}(\d)"), r"\1,\2"),
    ),
}


def why_left_out(source: str, translation: str) -> str | None:
    """Return why a pair is left out, None where it is kept.

    Args:
        source: English sentence as it comes.
        translation: German sentence as it comes.
    """
    if REMOVE in source or REMOVE in translation:
        return f"marked {REMOVE}"
    words = len(source.split()), len(translation.split())
    if min(words) < 1:
        return "no word on one side"
    if max(words) / min(words) > MAX_RATIO:
        return f"more than {MAX_RATIO:g} times the words of the other side"
    return None


def moses(text: str, language: str) -> str:
    """Return a text with its punctuation normalised as Moses does.

    Args:
        text: of one line.
        language: ``en`` or ``de``.

    Raises:
        ValueError: another language.
    """
    if language not in _OF_LANGUAGE:
        raise ValueError(f"punctuation is known of {', '.join(_OF_LANGUAGE)}, not of {language!r}")
    text = _FULL_STOP.sub(". ", text.translate(_WIDE))
    for pattern, new in _BEFORE_QUOTES:
        text = pattern.sub(new, text)
    text = text.translate(_TO_ASCII)
    for pattern, new in (*_AFTER_QUOTES, *_OF_LANGUAGE[language]):
        text = pattern.sub(new, text)
    return "".join(c for c in text if unicodedata.category(c)[0] != "C").strip()


def _close(text: str) -> str:
    """Close spaces before marks, as SUPERB-SG does after Moses."""
    for mark in ".?,'":
        text = text.replace(f" {mark}", mark)
    return text.replace("do n't", "don't")


def source_text(text: str, language: str = "en") -> str:
    """Return the source side: normalised, without punctuation but ``'`` and ``-``, lower case."""
    bare = _close(moses(text, language)).translate(_PUNCTUATION)
    return " ".join(bare.split()).lower()


def target_text(text: str, language: str = "de") -> str:
    """Return the target side: normalised, nothing else."""
    return _close(moses(text, language))
