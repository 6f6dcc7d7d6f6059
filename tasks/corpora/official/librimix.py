"""Libri2Mix for SD (diarisation) and SS (separation): ``--variant sd`` or ``--variant ss``.

Cosentino et al. 2020, arXiv:2005.11262; the preparation is SUPERB's.

``sd``: the three Kaldi folders ``train``, ``dev`` and ``test`` that LibriMix' ``prepare_diarization.py``
leaves (16 kHz, max). Read are ``wav.scp``, ``reco2dur`` where there is one, and ``rttm``, whose lines
``SPEAKER RECORDING 1 START SECONDS <NA> <NA> WHO`` become the timed labels (tier ``speakers``) of the
whole recording. Audio mostly lies elsewhere: name its folder with ``--audio-root``.

``ss``: ``wav16k/min`` of the generated corpus, with ``train-100``, ``dev`` and ``test`` of
``mix_clean/ID.wav``, ``s1/ID.wav`` and ``s2/ID.wav``. The mixture is the utterance; labels ``s1`` and
``s2`` are the absolute paths of its sources, which must lie in the source or an audio root, and have
the mixture's rate and length. Dev is SUPERB's subset of 1000: the ids in order, shuffled by Python's
``random`` seeded with 7, the first 1000; the others are left out.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from mynah.tasks.corpora.header import probe
from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import audio_files, pairs, require
from mynah.tasks.corpora.official.core.published import Size, splits
from mynah.tasks.corpora.official.core.references import references
from mynah.tasks.corpora.rows import Problems, text_lines
from mynah.tasks.corpora.utterance import Interval

ORIGIN = (
    "github.com/s3prl/LibriMix: generate_librimix_sd.sh and scripts/prepare_diarization.py make the "
    "folders of sd, generate_librimix_ss.sh those of ss (Libri2Mix)"
)
VARIANTS = ("sd", "ss")
DEFAULT: str | None = None
PUBLISHED: Mapping[str, tuple[Size, ...]] = {
    "sd": splits(train=13901, dev=3014, test=3002),
    "ss": splits(train=13900, dev=1000, test=3000),
}

SPEAKERS = 2
DEV_SIZE, DEV_SEED = 1000, 7
_SS = {"train": "train-100", "dev": "dev", "test": "test"}
_TOLERANCE = 0.05  # seconds; reco2dur and the audio may differ by rounding


def read(
    source: str | Path,
    problems: Problems,
    *,
    variant: str,
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> Found:
    """Read the corpus of one task.

    Args:
        source: the folder with the three Kaldi folders (sd), or the folder ``Libri2Mix`` (ss).
        problems: receives what is wrong: a recording without turns, turns of no recording, more or
            fewer speakers than two (sd); a mixture without a source, sources of another length (ss).
        variant: ``sd`` or ``ss``.
        audio_root: folders, besides the source, that audio may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: a folder or list is missing.
    """
    if variant == "sd":
        wanted = [f"{split}/{name}" for split in _SS for name in ("wav.scp", "rttm")]
        folder = require(source, "Libri2Mix for diarisation", ORIGIN, *wanted)
        collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
        for split in _SS:
            _diarisation(collector, folder / split, split)
    else:
        kinds = ("mix_clean", "s1", "s2")
        wanted = [f"wav16k/min/{part}/{kind}/" for part in _SS.values() for kind in kinds]
        folder = require(source, "Libri2Mix for separation", ORIGIN, *wanted)
        collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
        for split, part in _SS.items():
            _separation(collector, folder / "wav16k" / "min" / part, split)
    return collector.found()


def dev_subset(names: Sequence[str]) -> set[str]:
    """Return the dev mixtures that SUPERB scores on: 1000 of 3000, always the same."""
    shuffled = sorted(names)
    random.Random(DEV_SEED).shuffle(shuffled)
    return set(shuffled[:DEV_SIZE])


def _diarisation(collector: Collector, folder: Path, split: str) -> None:
    """Collect the recordings of a Kaldi folder with their turns."""
    problems = collector.problems
    files = pairs(folder / "wav.scp", problems)
    durations = pairs(folder / "reco2dur", problems) if (folder / "reco2dur").is_file() else {}
    turns = _turns(folder / "rttm", files, problems)
    for name, (line, path) in files.items():
        where = f"{split}/{line}"
        spoken = sorted(turns.get(name, []), key=lambda turn: (turn.start, turn.end, turn.symbol))
        try:
            speakers = {turn.symbol for turn in spoken}
            if len(speakers) != SPEAKERS:
                raise ValueError(f"the rttm has {len(speakers)} speakers of it, wanted {SPEAKERS}")
            declared = float(durations[name][1]) if name in durations else None
            last = max(turn.end for turn in spoken)
            if declared is not None and last > declared + _TOLERANCE:
                raise ValueError(f"a turn ends at {last:.3f} s, the recording at {declared:.3f} s")
        except ValueError as error:
            problems.error(where, str(error), name)
            continue
        collector.add(
            where,
            name,
            path,
            base=folder,
            split=split,
            intervals={"speakers": tuple(spoken)},
            declared_seconds=declared,
            tolerance=_TOLERANCE,
        )


def _turns(
    path: Path, known: Mapping[str, object], problems: Problems
) -> dict[str, list[Interval]]:
    """Return recording -> its turns, in seconds, from an rttm file."""
    turns: dict[str, list[Interval]] = {}
    for number, line in text_lines(path, problems, blame=False):
        cells = line.split()
        where = f"{path.parent.name}/{number}"
        if cells[0] != "SPEAKER":
            continue
        try:
            if len(cells) < 8:
                raise ValueError(f"wanted SPEAKER, recording, 1, start, seconds, ..., got {line!r}")
            start, seconds = float(cells[3]), float(cells[4])
            if not (0 <= start < math.inf and 0 < seconds < math.inf):
                raise ValueError(f"a turn needs a start from 0 on and a length, got {line!r}")
        except ValueError as error:
            problems.error(where, str(error), *cells[1:2])
            continue
        if cells[1] not in known:
            problems.error(where, f"recording {cells[1]!r} is not in wav.scp", cells[1])
            continue
        turns.setdefault(cells[1], []).append(Interval(cells[7], start, start + seconds))
    return turns


def _separation(collector: Collector, folder: Path, split: str) -> None:
    """Collect the mixtures of a part with their sources."""
    files = {path.stem: path for path in audio_files(folder / "mix_clean", (".wav",))}
    chosen = dev_subset(list(files)) if split == "dev" else set(files)
    if others := len(files) - len(chosen):
        collector.skip(f"dev mixtures outside SUPERB's {DEV_SIZE}", others)
    for name in sorted(chosen):
        where = f"{folder.name}/mix_clean/{files[name]}"
        mixture = folder / "mix_clean" / files[name]
        wanted = {kind: folder / kind / files[name] for kind in ("s1", "s2")}
        try:
            labels = references(collector, probe(mixture), wanted)
        except ValueError as error:
            collector.problems.seen.add(name)
            collector.problems.blame(where, error, name)
            continue
        collector.add(where, name, mixture, split=split, labels=labels)
