"""VoxCeleb1 for SID and ASV: one corpus with both splits, and the list of trials.

Nagrani et al. 2017, arXiv:1706.08612; the splits are SUPERB's. Layout: ``dev/wav`` and ``test/wav``
with ``SPEAKER/VIDEO/NUMBER.wav``, and two lists beside them (or in ``meta/``):

- ``iden_split.txt`` (``veri_test_class.txt`` in s3prl): ``1 SPEAKER/VIDEO/NUMBER.wav``, 1 train, 2
  dev, 3 test. It is the label ``sid_split``: all speakers are in all parts, videos (label
  ``session``) in one.
- ``voxceleb1_test_v2.txt``: ``1 PATH PATH``, 1 for one speaker, 0 for two. Its speakers are the
  split ``test``, all others ``train``: no speaker is in both, and there is no dev. The pairs become
  ``trials.tsv`` beside the manifests.

Where there is sound in each utterance is kept as the tier ``sounds``: SUPERB cuts silences out of what
ASV hears, not of what SID hears.

Ids are ``SPEAKER-VIDEO-NUMBER``, as the leaderboard's ``test_predict.txt`` wants them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import audio_files, either, require
from mynah.tasks.corpora.official.core.published import Size, by_value
from mynah.tasks.corpora.official.core.trials import Trial
from mynah.tasks.corpora.rows import Problems, text_lines

ORIGIN = (
    "robots.ox.ac.uk/~vgg/data/voxceleb: the wav files of dev and test, each unpacked to a folder "
    "of its name, and meta/iden_split.txt; the trials are voxceleb1_test_v2.txt of openslr.org/49"
)
VARIANTS: tuple[str, ...] = ()
SOUNDS = True  # silences are cut out of what verification hears
PUBLISHED: Mapping[str, tuple[Size, ...]] = {
    "": (
        *by_value(None, "sid_split", {"train": 138361, "dev": 6904, "test": 8251}),
        Size(count=1251, unit="speakers"),
        Size(count=1211, unit="speakers", split="train"),
        Size(count=37720, unit="trials"),
    )
}

AUDIO = ("dev/wav", "test/wav")
SPLITS = (
    "iden_split.txt",
    "veri_test_class.txt",
    "meta/iden_split.txt",
    "meta/veri_test_class.txt",
)
TRIALS = ("voxceleb1_test_v2.txt", "meta/voxceleb1_test_v2.txt")
_USAGE = {"1": "train", "2": "dev", "3": "test"}


def read(
    source: str | Path,
    problems: Problems,
    *,
    variant: str = "",
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> Found:
    """Read both lists and find their audio.

    Args:
        source: the folder with ``dev``, ``test`` and the lists.
        problems: receives what is wrong: a file that a list names and no folder holds, a line that
            is none, a trial of an utterance that the split file does not name; audio that it does
            not name is a warning.
        variant: there is one kind only.
        audio_root: folders, besides the source, that audio may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: a folder or a list is missing.
    """
    del variant
    folder = require(
        source, "VoxCeleb1", ORIGIN, *(f"{a}/" for a in AUDIO), "|".join(SPLITS), "|".join(TRIALS)
    )
    collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
    usage = _usage(either(folder, *SPLITS), problems)
    trials = _trials(either(folder, *TRIALS), usage, problems)
    tested = {_speaker(name) for trial in trials for name in (trial.enrolment, trial.test)}
    audio = {
        str(path): f"{part}/{path}"
        for part in AUDIO
        for path in audio_files(folder / part, (".wav",))
    }
    listed = set()
    for name, (where, path, part) in usage.items():
        listed.add(path)
        if path not in audio:
            problems.error(where, f"neither {' nor '.join(AUDIO)} holds {path}", name)
            continue
        speaker, video, _ = path.split("/")
        collector.add(
            where,
            name,
            audio[path],
            split="test" if speaker in tested else "train",
            speaker=speaker,
            labels={"sid_split": part, "session": video},
        )
    if extra := sorted(audio.keys() - listed):
        problems.warn(
            either(folder, *SPLITS).name,
            f"{len(extra)} audio files are not in this list and are left out, first {extra[0]}",
        )
    return collector.found(trials)


def _speaker(name: str) -> str:
    return name.partition("-")[0]


def _identifier(path: str) -> str:
    """Return the id of an utterance.

    Raises:
        ValueError: the path is not ``SPEAKER/VIDEO/NUMBER.wav``.
    """
    parts = path.split("/")
    if len(parts) != 3 or not all(parts) or not path.endswith(".wav"):
        raise ValueError(f"wanted SPEAKER/VIDEO/NUMBER.wav, got {path!r}")
    return "-".join(parts).removesuffix(".wav")


def _usage(path: Path, problems: Problems) -> dict[str, tuple[str, str, str]]:
    """Return id -> (``file:line``, path, part of the identification split)."""
    found: dict[str, tuple[str, str, str]] = {}
    for where, line in text_lines(path, problems):
        cells = line.split()
        try:
            if len(cells) != 2 or cells[0] not in _USAGE:
                raise ValueError(f"wanted 1, 2 or 3 and a path, got {line!r}")
            name = _identifier(cells[1])
        except ValueError as error:
            problems.error(where, str(error))
            continue
        if name in found:
            problems.error(where, f"{cells[1]} is there twice, first at {found[name][0]}", name)
            continue
        found[name] = (where, cells[1], _USAGE[cells[0]])
    return found


def _trials(path: Path, known: Mapping[str, object], problems: Problems) -> list[Trial]:
    trials = []
    for where, line in text_lines(path, problems, blame=False):
        cells = line.split()
        try:
            if len(cells) != 3 or cells[0] not in ("0", "1"):
                raise ValueError(f"wanted 0 or 1 and two paths, got {line!r}")
            trial = Trial(cells[0] == "1", _identifier(cells[1]), _identifier(cells[2]))
            for name in (trial.enrolment, trial.test):
                if name not in known:
                    raise ValueError(f"the split file does not name {name!r}")
            if trial.target != (_speaker(trial.enrolment) == _speaker(trial.test)):
                raise ValueError(f"{cells[0]} contradicts the speakers: {line!r}")
        except ValueError as error:
            problems.fault(where, str(error))
            continue
        trials.append(trial)
    return trials
