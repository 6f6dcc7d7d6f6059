"""LibriSpeech for PR, ASR and pretraining: train-clean-100, dev-clean and test-clean.

Panayotov et al. 2015, doi:10.1109/ICASSP.2015.7178964; the parts are those of SUPERB (PR and ASR).
Layout: ``PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac`` beside ``SPEAKER-CHAPTER.trans.txt``,
whose lines are an id and an upper-case transcript, and ``SPEAKERS.TXT`` with id, sex, part.
Labels: ``gender`` (``f``, ``m``), ``chapter`` and ``part``. Phones are made from the transcript by
the task, with ``--lexicon``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import audio_files, pairs, require
from mynah.tasks.corpora.official.core.published import Size, splits
from mynah.tasks.corpora.rows import Problems, text_lines

ORIGIN = "openslr.org/12: train-clean-100, dev-clean and test-clean, unpacked to one folder"
VARIANTS: tuple[str, ...] = ()
PUBLISHED: Mapping[str, tuple[Size, ...]] = {"": splits(train=28539, dev=2703, test=2620)}

PARTS = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}


def read(
    source: str | Path,
    problems: Problems,
    *,
    variant: str = "",
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> Found:
    """Read the three parts.

    Args:
        source: the folder ``LibriSpeech``.
        problems: receives what is wrong: audio without a transcript, a transcript without audio,
            an id twice, a speaker that ``SPEAKERS.TXT`` does not know (a warning).
        variant: there is one kind only.
        audio_root: folders, besides the source, that audio may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: a part or ``SPEAKERS.TXT`` is missing.
    """
    del variant
    folder = require(
        source, "LibriSpeech", ORIGIN, *(f"{part}/" for part in PARTS.values()), "SPEAKERS.TXT"
    )
    collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
    genders = _genders(folder / "SPEAKERS.TXT", problems)
    unknown: set[str] = set()
    for split, part in PARTS.items():
        files: dict[Path, dict[str, Path]] = {}
        for path in audio_files(folder / part, (".flac", ".wav")):
            files.setdefault(path.parent, {})[path.stem] = path
        chapters = {path.parent for path in (folder / part).rglob("[!.]*.trans.txt")}
        chapters |= {folder / part / parent for parent in files}
        for chapter in sorted(chapters):
            audio = files.get(chapter.relative_to(folder / part), {})
            _chapter(collector, folder / part, chapter, audio, split, genders, unknown)
    for speaker in sorted(unknown):
        problems.warn("SPEAKERS.TXT", f"speaker {speaker!r} has audio but no line here: no gender")
    return collector.found()


def _chapter(
    collector: Collector,
    part: Path,
    chapter: Path,
    audio: dict[str, Path],
    split: str,
    genders: Mapping[str, str],
    unknown: set[str],
) -> None:
    """Collect the utterances of one chapter."""
    problems = collector.problems
    lines: dict[str, tuple[str, str]] = {}
    for file in sorted(chapter.glob("[!.]*.trans.txt")):
        lines |= pairs(file, problems)
    named = problems.skipped
    for name in sorted(audio.keys() - lines.keys() - named.keys()):
        problems.error(str(part.name / audio[name]), "no transcript names this audio", name)
    for name, (where, text) in sorted(lines.items()):
        if name not in audio:
            problems.error(where, f"no audio {name}.flac for this transcript", name)
            continue
        speaker = name.partition("-")[0]
        if speaker not in genders:
            unknown.add(speaker)
        collector.add(
            where,
            name,
            audio[name],
            base=part,
            split=split,
            speaker=speaker,
            text=text,
            labels={
                "gender": genders.get(speaker, ""),
                "chapter": chapter.name,
                "part": part.name,
            },
        )


def _genders(path: Path, problems: Problems) -> dict[str, str]:
    """Return speaker -> ``f`` or ``m``; lines are ``ID | SEX | SUBSET | MINUTES | NAME``."""
    found = {}
    for where, line in text_lines(path, problems, blame=False):
        if line.startswith(";"):
            continue
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 2 or cells[1] not in ("F", "M"):
            problems.fault(where, f"wanted ID | SEX | ..., SEX being F or M, got {line!r}")
            continue
        found[cells[0]] = cells[1].lower()
    return found
