"""VCTK 0.92, for voice conversion between speakers who say the same sentences.

Yamagishi, Veaux and MacDonald 2019, doi:10.7488/ds/2645: 110 speakers of English accents, about 400
sentences each, at 48 kHz. All read the elicitation paragraph and the Rainbow Passage (about the first
24 sentences), so that ``mynah judge methods --sentence text`` finds sentences that two speakers share.
Layout, as it is unpacked::

    speaker-info.txt
    txt/p225/p225_001.txt
    wav48_silence_trimmed/p225/p225_001_mic1.flac, _mic2.flac

``--variant`` says which microphone: mic2 (usual, as in torchaudio and lhotse) or mic1. Speakers p280 and
p315 have no mic2, p315 no texts: what a speaker lacks as a whole is left out and counted.

VCTK has no official splits. Speakers are held out so that a converter meets unseen ones: of each gender,
in the order of their names, the 1st, 11th, 21st ... are test, the 2nd, 12th, 22nd ... dev, all others
train. Ids are file names without the microphone; labels are ``gender``, ``accent``, ``sentence`` (the
file's number, which is not always the same text for two speakers: ``text`` is).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import require
from mynah.tasks.corpora.official.core.published import Size
from mynah.tasks.corpora.rows import Problems, text_lines

ORIGIN = "datashare.ed.ac.uk/handle/10283/3443: VCTK-Corpus-0.92.zip, unpacked"
VARIANTS: tuple[str, ...] = ("mic1", "mic2")
DEFAULT = "mic2"
PUBLISHED: Mapping[str, tuple[Size, ...]] = {}

AUDIO = "wav48_silence_trimmed"
INFO = "speaker-info.txt"
EVERY = 10
GENDERS = {"F": "f", "M": "m"}


def read(
    source: str | Path,
    problems: Problems,
    *,
    variant: str = "",
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> Found:
    """Read every sentence that has a text and a recording.

    Args:
        source: the folder of the corpus.
        problems: receives what is wrong: a text without its recording, an empty text, a speaker of
            whom ``speaker-info.txt`` does not say the gender.
        variant: the microphone.
        audio_root: folders, besides the source, that audio may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: the layout is another one.
    """
    microphone = variant or DEFAULT
    folder = require(source, "VCTK 0.92", ORIGIN, INFO, "txt/", f"{AUDIO}/")
    collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
    told = _speakers(folder / INFO, problems)
    recorded = {p.name for p in (folder / AUDIO).iterdir() if p.is_dir()}
    written = {p.name for p in (folder / "txt").iterdir() if p.is_dir()}
    for speaker in sorted(recorded - written):
        collector.skip(f"speakers without texts: {speaker}")
    for speaker in sorted(recorded & written - told.keys()):
        problems.fault(f"{AUDIO}/{speaker}", f"{INFO} does not say this speaker's gender")
    split_of = held_out({s: told[s][0] for s in recorded & written & told.keys()})
    for speaker in sorted(split_of):
        texts = sorted((folder / "txt" / speaker).glob("[!.]*.txt"))
        files = [folder / AUDIO / speaker / f"{t.stem}_{microphone}.flac" for t in texts]
        if not any(file.is_file() for file in files):
            collector.skip(f"speakers without {microphone}: {speaker}")
            continue
        for text, file in zip(texts, files, strict=True):
            where = str(file.relative_to(folder))
            if not file.is_file():
                collector.skip(f"sentences that were not recorded with {microphone}")
                continue
            said = " ".join(
                " ".join(line for _, line in text_lines(text, problems, blame=False)).split()
            )
            if not said:
                problems.error(f"txt/{speaker}/{text.name}", "the text is empty", text.stem)
                continue
            gender, accent = told[speaker]
            collector.add(
                where,
                text.stem,
                file,
                split=split_of[speaker],
                speaker=speaker,
                text=said,
                labels={
                    "gender": gender,
                    "accent": accent,
                    "sentence": text.stem.removeprefix(f"{speaker}_"),
                },
            )
    return collector.found()


def held_out(genders: Mapping[str, str]) -> dict[str, str]:
    """Return speaker -> split; see the top of this module.

    Args:
        genders: speaker -> gender.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for speaker in sorted(genders):
        alike[genders[speaker]].append(speaker)
    place = {speaker: i % EVERY for group in alike.values() for i, speaker in enumerate(group)}
    return {s: {0: "test", 1: "dev"}.get(i, "train") for s, i in place.items()}


def _speakers(path: Path, problems: Problems) -> dict[str, tuple[str, str]]:
    """Return speaker -> gender and accent, of a table whose cells are set apart by spaces."""
    found: dict[str, tuple[str, str]] = {}
    for where, line in text_lines(path, problems, blame=False):
        cells = line.split()
        if not cells or cells[0].upper() == "ID":
            continue
        if len(cells) < 4 or cells[2] not in GENDERS:
            problems.error(where, f"wanted ID AGE F|M ACCENT, got {line.strip()!r}")
            continue
        found[cells[0]] = (GENDERS[cells[2]], cells[3])
    return found
