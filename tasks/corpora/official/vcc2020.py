"""Voice Conversion Challenge 2020, task 1, for VC: four targets, four sources, 25 test sentences.

Zhao et al. 2020, doi:10.21437/VCC_BC.2020-14; the lists are SUPERB-SG's (s3prl's
``a2o-vc-vcc2020/data/lists``). Layout: as s3prl merges it, ``SPEAKER/SENTENCE.wav`` and
``prompts/Eng_transcriptions.txt``; or as it is unpacked, the same under ``source``, ``target_task1``,
``vcc2020_database_evaluation`` and ``vcc2020_database_groundtruth``, with
``vcc2020_database_transcriptions``. Lines of a transcription are the sentence's number without its
``E``, and the text.

Label ``role``:

- ``target``: what the models learn. Train are the sentences E10001-E10060 and E20001-E20050 that the
  speaker has (60 of the 110), dev E10061-E10070.
- ``source``: E30001-E30025 by SEF1, SEF2, SEM1, SEM2 (test): to be converted to every target.
- ``reference``: the same sentences by the targets (test): what conversions are compared with.

Label ``parallel``: the sentence. Ids are ``SPEAKER-SENTENCE``. Files are 24 kHz and stay so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import either, require
from mynah.tasks.corpora.official.core.published import Size
from mynah.tasks.corpora.rows import Problems, text_lines

ORIGIN = "github.com/nii-yamagishilab/VCC2020-database: its zip files, unpacked to one folder"
VARIANTS: tuple[str, ...] = ()
PUBLISHED: Mapping[str, tuple[Size, ...]] = {
    "": (
        Size(count=100, label="role", value="source"),
        Size(count=100, label="role", value="reference"),
        Size(count=40, split="dev"),
        Size(count=240, split="train", recalled=True),
    )
}

TARGETS = ("TEF1", "TEF2", "TEM1", "TEM2")
SOURCES = ("SEF1", "SEF2", "SEM1", "SEM2")
TRAIN = tuple(f"E{n}" for n in (*range(10001, 10061), *range(20001, 20051)))
DEV = tuple(f"E{n}" for n in range(10061, 10071))
TEST = tuple(f"E{n}" for n in range(30001, 30026))

_TEXTS = (
    "prompts/Eng_transcriptions.txt",
    "vcc2020_database_transcriptions/transcriptions_training/"
    "vcc2020_database_training_Eng_transcriptions.txt",
    "vcc2020_database_transcriptions/transcriptions_evaluation/"
    "vcc2020_database_evaluation_transcriptions.txt",
)


def read(
    source: str | Path,
    problems: Problems,
    *,
    variant: str = "",
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> Found:
    """Read what the lists name.

    Args:
        source: the folder of the database.
        problems: receives what is wrong: a dev or test sentence without a file, a target without
            any training sentence, a sentence transcribed twice or not at all (a warning).
        variant: there is one kind only.
        audio_root: folders, besides the source, that audio may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: a speaker is missing.
    """
    del variant
    wanted = [
        *(f"{speaker}/|target_task1/{speaker}/" for speaker in TARGETS),
        *(f"{speaker}/|vcc2020_database_evaluation/{speaker}/" for speaker in SOURCES),
    ]
    folder = require(source, "VCC 2020", ORIGIN, *wanted)
    collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
    texts = _texts(folder, problems)
    untold: set[str] = set()
    for speaker, sentence, split, role in _lists():
        name = f"{speaker}-{sentence}"
        path = _file(folder, speaker, sentence, role)
        if not path.is_file():
            if split == "train":
                collector.skip("training sentences that a target did not read")
            else:
                problems.error(str(path.relative_to(folder)), f"the {role} lacks this file", name)
            continue
        if sentence not in texts:
            untold.add(sentence)
        collector.add(
            str(path.relative_to(folder)),
            name,
            path,
            split=split,
            speaker=speaker,
            text=texts.get(sentence),
            labels={"role": role, "parallel": sentence, "gender": speaker[2].lower()},
        )
    trained = {row.speaker for row in collector.rows if row.labels["split"] == "train"}
    for speaker in TARGETS:
        if speaker not in trained:
            problems.fault(speaker, "no training sentence of this target is there")
    if untold:
        problems.warn(
            "transcriptions", f"{len(untold)} sentences have no transcript, first {min(untold)}"
        )
    return collector.found()


def _lists() -> Iterator[tuple[str, str, str, str]]:
    """Yield speaker, sentence, split and role of all that the lists name."""
    for speaker in TARGETS:
        yield from ((speaker, sentence, "train", "target") for sentence in TRAIN)
        yield from ((speaker, sentence, "dev", "target") for sentence in DEV)
        yield from ((speaker, sentence, "test", "reference") for sentence in TEST)
    for speaker in SOURCES:
        yield from ((speaker, sentence, "test", "source") for sentence in TEST)


def _file(folder: Path, speaker: str, sentence: str, role: str) -> Path:
    """Return the file of a sentence, in either layout."""
    unpacked = {
        "target": "target_task1",
        "reference": "vcc2020_database_groundtruth",
        "source": "vcc2020_database_evaluation",
    }[role]
    name = f"{speaker}/{sentence}.wav"
    return either(folder, name, f"{unpacked}/{name}")


def _texts(folder: Path, problems: Problems) -> dict[str, str]:
    """Return sentence -> transcript."""
    texts: dict[str, str] = {}
    for name in _TEXTS:
        if not (folder / name).is_file():
            continue
        for where, line in text_lines(folder / name, problems, blame=False):
            number, _, text = line.strip().replace("\t", " ").partition(" ")
            sentence = f"E{number.removeprefix('E')}"
            if texts.get(sentence, text.strip()) != text.strip():
                problems.fault(where, f"{sentence} has another transcript already")
                continue
            texts[sentence] = text.strip()
    return texts
