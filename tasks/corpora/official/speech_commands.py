"""Speech Commands for KS: the training archive by hash of the speaker, the test archive as it is.

Warden 2018, arXiv:1804.03209; the rules are SUPERB's. Layout: ``speech_commands_v0.01/WORD/*.wav``
and ``speech_commands_test_set_v0.01/CLASS/*.wav`` side by side (v0.02 likewise, not official).

- Twelve classes (label ``keyword``): ten commands, ``_unknown_`` for every other word, ``_silence_``.
  The word itself, where a folder names it, is the label ``word``.
- SHA-1 of the file's name before ``_nohash_`` (the speaker), modulo 2^27, as a percentage of
  2^27 - 1: below 10 is dev, from 10 to 20 is left out (it is the archive's own test part, and the
  test archive stands for it), the rest is train.
- Silence: the recordings of ``_background_noise_`` as stretches of one second, one after the other,
  each an utterance with the label ``recording``. s3prl draws a second of each recording at random,
  for train and dev alike; here every recording is in both too, but its last tenth (one second at
  least) is dev and the rest train, so that no second is in both. So ``_silence_`` is counted in
  recordings, not in utterances.

Ids are the class' or word's folder and the name: ``yes-0a7c2a8d_nohash_0`` (with ``.wav`` they are
what the leaderboard's ``test_predict.txt`` wants).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mynah.tasks.corpora.header import BadAudioError, probe
from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import audio_files, require
from mynah.tasks.corpora.official.core.published import Size, by_value
from mynah.tasks.corpora.rows import Problems

ORIGIN = (
    "download.tensorflow.org/data: speech_commands_v0.01.tar.gz and "
    "speech_commands_test_set_v0.01.tar.gz, each unpacked to a folder of its name"
)
VARIANTS = ("v0.01", "v0.02")
DEFAULT = "v0.01"

COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE, NOISE = "_unknown_", "_silence_", "_background_noise_"

_TRAIN = {"yes": 1860, "no": 1853, "up": 1843, "down": 1842, "left": 1839, "right": 1852, "on": 1864,
          "off": 1839, "stop": 1885, "go": 1861, UNKNOWN: 32550}  # fmt: skip
_DEV = {"yes": 261, "no": 270, "up": 260, "down": 264, "left": 247, "right": 256, "on": 257,
        "off": 256, "stop": 246, "go": 260, UNKNOWN: 4221}  # fmt: skip
_TEST = {"yes": 256, "no": 252, "up": 272, "down": 253, "left": 267, "right": 259, "on": 246,
         "off": 262, "stop": 249, "go": 251, UNKNOWN: 257, SILENCE: 257}  # fmt: skip
PUBLISHED: Mapping[str, tuple[Size, ...]] = {
    "v0.01": (
        *by_value("train", "keyword", _TRAIN),
        *by_value("dev", "keyword", _DEV),
        *by_value("test", "keyword", _TEST),
        Size(count=6, unit="values", label="recording", split="train"),
        Size(count=6, unit="values", label="recording", split="dev"),
    )
}

_MAX_PER_CLASS = 2**27 - 1
_DEV_BELOW, _TEST_BELOW = 10.0, 20.0
_DEV_SHARE = 10  # of a recording's seconds, one in so many is dev
_SPEAKER = re.compile(r"([0-9a-f]+)_nohash_")


def percentage(file: str) -> float:
    """Return where in 0..100 the hash of a file's name puts its speaker.

    Args:
        file: name with suffix, as ``0a7c2a8d_nohash_0.wav``; all takes of a speaker give the same.
    """
    speaker = re.sub(r"_nohash_.*$", "", file)
    digest = int(hashlib.sha1(speaker.encode(), usedforsecurity=False).hexdigest(), 16)
    return digest % (_MAX_PER_CLASS + 1) * (100.0 / _MAX_PER_CLASS)


def split_of(file: str) -> str | None:
    """Return ``train``, ``dev``, or None for the band that is left out."""
    share = percentage(file)
    return "dev" if share < _DEV_BELOW else None if share < _TEST_BELOW else "train"


def read(
    source: str | Path,
    problems: Problems,
    *,
    variant: str = DEFAULT,
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> Found:
    """Read both archives.

    Args:
        source: the folder that holds both unpacked archives.
        problems: receives what is wrong: a test folder that is no class, a recording of noise
            shorter than two seconds.
        variant: ``v0.01`` (SUPERB's) or ``v0.02``.
        audio_root: folders, besides the source, that audio may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: an archive is missing, or the recordings of noise.
    """
    train, test = f"speech_commands_{variant}", f"speech_commands_test_set_{variant}"
    folder = require(
        source,
        "Speech Commands",
        ORIGIN.replace("v0.01", variant),
        f"{train}/",
        f"{train}/{NOISE}/",
        f"{test}/",
    )
    collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
    for path in audio_files(folder / train, (".wav",)):
        if path.parts[0] == NOISE:
            _silence(collector, folder / train, path)
        elif (split := split_of(path.name)) is None:
            collector.skip("the training archive's own test part, by hash")
        else:
            word = path.parts[0]
            _word(collector, folder / train, path, split, word if word in COMMANDS else UNKNOWN)
    for path in audio_files(folder / test, (".wav",)):
        label = path.parts[0]
        if label not in (*COMMANDS, UNKNOWN, SILENCE):
            problems.error(
                f"{test}/{path}", f"{label!r} is not one of the twelve classes", _name(path)
            )
            continue
        _word(collector, folder / test, path, "test", label)
    return collector.found()


def _name(path: Path) -> str:
    return f"{path.parts[0]}-{path.stem}"


def _word(collector: Collector, base: Path, path: Path, split: str, keyword: str) -> None:
    speaker = _SPEAKER.search(path.name)
    word = path.parts[0]
    collector.add(
        f"{base.name}/{path}",
        _name(path),
        path,
        base=base,
        split=split,
        speaker=speaker.group(1) if speaker else None,
        labels={"keyword": keyword, "word": "" if word in (UNKNOWN, SILENCE) else word},
    )


def _silence(collector: Collector, base: Path, path: Path) -> None:
    """Collect the seconds of a recording of noise."""
    where = f"{base.name}/{path}"
    try:
        seconds = int(probe(base / path).duration)
        if seconds < 2:
            raise ValueError(
                "a recording of noise needs two seconds, one for train and one for dev"
            )
    except (BadAudioError, ValueError) as error:
        collector.problems.error(where, str(error), _name(path))
        return
    dev_from = seconds - max(1, seconds // _DEV_SHARE)
    for second in range(seconds):
        collector.add(
            where,
            f"{_name(path)}-{second:03d}",
            path,
            base=base,
            split="train" if second < dev_from else "dev",
            labels={"keyword": SILENCE, "recording": path.stem},
            start=float(second),
            end=second + 1.0,
        )
