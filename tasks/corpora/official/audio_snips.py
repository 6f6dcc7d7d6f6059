"""Audio SNIPS for SF: synthetic voices, split by voice, a slot for every word.

Lai et al. 2021, arXiv:2102.06283; the preparation and the voices are SUPERB's. Layout: ``train``,
``valid`` and ``test`` with ``VOICE-snips-PART-NUMBER.wav`` (or ``.mp3``), ``slots.txt`` with a slot a
line (``O`` first), and ``all.iob.snips.txt`` with the lines
``ID BOS WORDS EOS <tab> O SLOTS INTENT``: a slot for each word, without B- and I-.

Each part takes its own voices only; what the other voices say of it is left out and counted. Words
as SUPERB encodes them: punctuation marks are dropped, ``&`` is ``AND``. Label ``slots``: a tag
for each remaining word, ``O``, ``B-slot`` or ``I-slot``; neighbours of one slot are one span, for the
source does not tell two apart. Label ``intent``. Speaker: the voice. The normalisation of the words
themselves (``normalise``, months, upper case) is in the source already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import audio_files, require
from mynah.tasks.corpora.official.core.published import Size, splits
from mynah.tasks.corpora.rows import Problems, text_lines

ORIGIN = (
    "github.com/aws-samples/aws-lex-noisy-spoken-language-understanding (text) and audio_slu_v3.zip, "
    "prepared to the folder SNIPS as SUPERB does (s3prl's preprocess/snips_prepare_data.sh)"
)
VARIANTS: tuple[str, ...] = ()
PUBLISHED: Mapping[str, tuple[Size, ...]] = {
    "": (
        *splits(train=104672, dev=2800, test=2800),
        Size(count=8, unit="speakers", split="train"),
        Size(count=4, unit="speakers", split="dev"),
        Size(count=4, unit="speakers", split="test"),
    )
}

PARTS = {"train": "train", "valid": "dev", "test": "test"}
VOICES = {
    "train": ("Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"),
    "dev": ("Aditi", "Amy", "Geraint", "Nicole"),
    "test": ("Brian", "Emma", "Raveena", "Russell"),
}
OUTSIDE = "O"
_NAME = re.compile(r"([A-Za-z]+)-snips-(train|valid|test)-\d+")
_PUNCTUATION = "?!.,;-"  # a word that is a piece of this is dropped


def bio(words: Sequence[str], slots: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words as SUPERB encodes them, and a tag for each.

    Args:
        words: of the sentence.
        slots: of each word, ``O`` for none.

    Returns:
        words without punctuation marks, ``&`` as ``AND``; tags ``O``, ``B-slot``, ``I-slot``.
    """
    kept = [(w, s) for w, s in zip(words, slots, strict=True) if w not in _PUNCTUATION]
    tags = []
    last = OUTSIDE
    for _, slot in kept:
        tags.append(slot if slot == OUTSIDE else f"{'I' if slot == last else 'B'}-{slot}")
        last = slot
    return ["AND" if word == "&" else word for word, _ in kept], tags


def read(
    source: str | Path,
    problems: Problems,
    *,
    variant: str = "",
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> Found:
    """Read the sentences and find their audio.

    Args:
        source: the folder ``SNIPS``.
        problems: receives what is wrong: words and slots that differ in number, a slot that
            ``slots.txt`` does not have, a voice that SUPERB does not know, a sentence without audio,
            audio without a sentence, an id twice.
        variant: there is one kind only.
        audio_root: folders, besides the source, that audio may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: a folder or file is missing.
    """
    del variant
    folder = require(
        source, "Audio SNIPS", ORIGIN, *(f"{p}/" for p in PARTS), "all.iob.snips.txt", "slots.txt"
    )
    collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
    slots = {line.strip() for _, line in text_lines(folder / "slots.txt", problems, blame=False)}
    audio = {
        path.stem: f"{part}/{path}"
        for part in PARTS
        for path in audio_files(folder / part, (".wav", ".mp3", ".flac"))
    }
    seen: dict[str, str] = {}
    for where, line in text_lines(folder / "all.iob.snips.txt", problems):
        name, _, rest = line.strip().partition(" ")
        try:
            split = _split(name)
            if name in seen:
                raise ValueError(f"{name!r} is there twice, first at {seen[name]}")
            seen[name] = where
            if split is None:
                collector.skip("what other voices say of a part")
                continue
            words, tags, intent = _sentence(rest, slots)
            if name not in audio:
                raise ValueError(f"no audio {name}.wav for this sentence")
        except ValueError as error:
            problems.error(where, str(error), name)
            continue
        collector.add(
            where,
            name,
            audio[name],
            split=split,
            speaker=name.partition("-")[0],
            text=" ".join(words),
            labels={"slots": " ".join(tags), "intent": intent},
        )
    for name in sorted(audio.keys() - seen.keys() - problems.skipped.keys()):
        problems.error(audio[name], "all.iob.snips.txt has no sentence for this audio", name)
    return collector.found()


def _split(name: str) -> str | None:
    """Return the split of an id, None where its voice is not one of the split's.

    Raises:
        ValueError: it is no id, or the voice is unknown.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"wanted an id VOICE-snips-PART-NUMBER, got {name!r}")
    if not any(match[1] in voices for voices in VOICES.values()):
        raise ValueError(f"{match[1]!r} is none of the sixteen voices")
    split = PARTS[match[2]]
    return split if match[1] in VOICES[split] else None


def _sentence(text: str, known: set[str]) -> tuple[list[str], list[str], str]:
    """Return words, tags and intent of ``BOS WORDS EOS <tab> O SLOTS INTENT``.

    Raises:
        ValueError: it is not of that form, or a slot is unknown.
    """
    said, tab, labels = text.partition("\t")
    words, slots = said.strip().split(" "), labels.strip().split(" ")
    if not tab or len(words) < 3 or (words[0], words[-1]) != ("BOS", "EOS"):
        raise ValueError(f"wanted BOS words EOS, a tab and the slots, got {text!r}")
    if len(words) != len(slots):
        raise ValueError(f"{len(words) - 2} words, but {len(slots) - 2} slots")
    if unknown := sorted(set(slots[1:-1]) - known - {OUTSIDE}):
        raise ValueError(f"slots.txt does not have the slot {unknown[0]!r}")
    kept, tags = bio(words[1:-1], slots[1:-1])
    if not kept:
        raise ValueError("nothing but punctuation is said")
    return kept, tags, slots[-1]
