"""VoiceBank-DEMAND for SE: 28 speakers with noise, and the same recordings without.

Valentini-Botinhao 2017, doi:10.7488/ds/2117; the parts are SUPERB's. Layout: ``noisy_NAME`` and
``clean_NAME`` for NAME ``trainset_28spk_wav_16k`` and ``testset_wav_16k`` (without ``_16k``: the
48 kHz files as they are published, resampled when they are read), the same files in both, and
``trainset_28spk_txt`` and ``testset_txt`` with a transcript a file, where they are there.

The noisy file is the utterance; label ``clean`` is the absolute path of the clean one, which must
have the same rate and length. Speakers p226 and p287 of the training set are dev. Ids are the files'
names: ``p226_001``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mynah.tasks.corpora.header import probe
from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import audio_files, either, require
from mynah.tasks.corpora.official.core.published import Size
from mynah.tasks.corpora.official.core.references import references
from mynah.tasks.corpora.rows import Problems

ORIGIN = (
    "datashare.ed.ac.uk/handle/10283/2791: noisy_ and clean_ of trainset_28spk_wav and testset_wav, "
    "trainset_28spk_txt and testset_txt; or the 16 kHz copy noisy-vctk-16k.zip that s3prl names"
)
VARIANTS: tuple[str, ...] = ()
PUBLISHED: Mapping[str, tuple[Size, ...]] = {
    "": (
        Size(count=824, split="test"),
        Size(count=10802, split="train", recalled=True),
        Size(count=770, split="dev", recalled=True),
        Size(count=28, unit="speakers", recalled=True),
    )
}

DEV_SPEAKERS = ("p226", "p287")
SETS = {
    "train": ("trainset_28spk_wav", "trainset_28spk_txt"),
    "test": ("testset_wav", "testset_txt"),
}
_NAME = re.compile(r"(p\d+)_\d+")


def read(
    source: str | Path,
    problems: Problems,
    *,
    variant: str = "",
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> Found:
    """Pair noisy with clean files.

    Args:
        source: the folder with the four folders of audio.
        problems: receives what is wrong: a noisy file without a clean one or the reverse, another
            rate or length, a name that is none.
        variant: there is one kind only.
        audio_root: folders, besides the source, that audio may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: a folder is missing.
    """
    del variant
    kinds = ("noisy", "clean")
    wanted = [f"{kind}_{wav}_16k/|{kind}_{wav}/" for wav, _ in SETS.values() for kind in kinds]
    folder = require(source, "VoiceBank-DEMAND", ORIGIN, *wanted)
    collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
    for split, (wav, texts) in SETS.items():
        noisy, clean = (either(folder, f"{kind}_{wav}_16k", f"{kind}_{wav}") for kind in kinds)
        files = {path.stem: path for path in audio_files(noisy, (".wav",))}
        others = {path.stem: path for path in audio_files(clean, (".wav",))}
        for name in sorted(others.keys() - files.keys()):
            problems.error(f"{clean.name}/{others[name]}", f"{noisy.name} lacks this file", name)
        for name, path in files.items():
            _pair(collector, name, noisy / path, clean / path, folder / texts, split)
    return collector.found()


def _pair(
    collector: Collector, name: str, noisy: Path, clean: Path, texts: Path, split: str
) -> None:
    """Collect a noisy utterance with its clean reference and its transcript."""
    where = f"{noisy.parent.name}/{noisy.name}"
    try:
        speaker = _NAME.fullmatch(name)
        if speaker is None:
            raise ValueError(f"wanted a name SPEAKER_NUMBER.wav, got {noisy.name!r}")
        labels = references(collector, probe(noisy), {"clean": clean})
        text = " ".join(_text(texts / f"{name}.txt").split())
    except ValueError as error:
        collector.problems.seen.add(name)
        collector.problems.blame(where, error, name)
        return
    dev = split == "train" and speaker[1] in DEV_SPEAKERS
    collector.add(
        where,
        name,
        noisy,
        split="dev" if dev else split,
        speaker=speaker[1],
        text=text,
        labels=labels,
    )


def _text(path: Path) -> str:
    """Return a transcript, empty where there is none.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8: {error}") from error
