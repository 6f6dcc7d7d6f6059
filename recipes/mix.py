"""``mynah mix KIND CORPUS OUT``: mixtures of the utterances of a corpus, for SE, SS and SD."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction

if TYPE_CHECKING:
    from mynah.tasks.corpora.utterance import Utterance


@dataclass(frozen=True, kw_only=True)
class Args:
    """Make a corpus of mixtures from a prepared corpus of single speakers.

    mynah mix separation CORPUS OUT | enhancement CORPUS OUT | diarization CORPUS OUT

    Parts and speakers stay apart as they are in the source; the same arguments give the same bytes.
    """

    kind: Annotated[Literal["separation", "enhancement", "diarization"], Positional]
    """separation (task ss), enhancement (task se) or diarization (task sd)."""
    corpus: Annotated[Path, Positional]
    """Prepared corpus whose utterances have a speaker."""
    out: Annotated[Path, Positional]
    """New folder: the prepared corpus of mixtures and their audio."""
    corpus_name: str | None = None
    """Name in tables; default: the source's and the kind."""

    split: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Part of the corpus to mix, as train; repeatable; default: all that it has."""
    count: int | None = None
    """Mixtures in all; default: as many as use each utterance about once."""
    seed: int = 0
    """Another seed gives other mixtures."""
    min_seconds: float = 1.0
    """Shorter utterances are not used."""

    noise: Path | None = None
    """Folder of recordings, or prepared corpus, of noise. enhancement makes coloured noise without."""
    snr: tuple[float, float] | None = None
    """Least and most dB of active speech over the noise, drawn for each mixture; default 0 15."""

    speakers: int | None = None
    """separation, diarization: speakers of a mixture; default 2."""
    spread: float | None = None
    """dB that levels of speakers may differ by; default 5."""
    mode: Literal["min", "max"] | None = None
    """separation: cut sources to the shortest (default) or fill them up to the longest."""
    seconds: float | None = None
    """diarization: length of a recording, about; default 30."""
    overlap: float | None = None
    """diarization: share of the turns that begin before the last one ends; default 0.3."""

    rate: int = 16000
    """Hz."""
    bits: Literal[16, 32] = 16
    """16-bit integers or 32-bit floats."""


_KINDS = {  # option -> the kinds that heed it
    "speakers": ("separation", "diarization"),
    "mode": ("separation",),
    "seconds": ("diarization",),
    "overlap": ("diarization",),
}


def main(args: Args) -> int:
    """Make the mixtures, and print what came of it.

    Raises:
        ValueError: options that do not go together, a folder that is not empty, or a corpus that
            cannot be mixed.
        FileNotFoundError: no such corpus or noise.
    """
    from mynah.recipes.prepare import summary
    from mynah.recipes.progress import console, track
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.tasks.corpora.mixture_plan import Options
    from mynah.tasks.corpora.mixtures import build

    _check(args)
    given: dict[str, Any] = {
        name: value
        for name in ("snr", "speakers", "spread", "mode", "seconds", "overlap")
        if (value := getattr(args, name)) is not None
    }
    options = Options(
        kind=args.kind,
        splits=args.split,
        count=args.count,
        seed=args.seed,
        rate=args.rate,
        bits=args.bits,
        least=args.min_seconds,
        **given,
    )
    made = build(
        args.out,
        Corpus.open(args.corpus),
        options,
        noise=None if args.noise is None else recordings(args.noise),
        name=args.corpus_name,
        track=lambda mixtures: track(mixtures, "mixing"),
    )
    console.print(summary(made), markup=False)
    return 0


def recordings(path: Path) -> list[Utterance]:
    """Return the recordings of noise in a prepared corpus or a folder of audio (first channels).

    Raises:
        FileNotFoundError, NotADirectoryError: no audio there.
        ValueError: audio that cannot be used.
    """
    from mynah.tasks.corpora import folder
    from mynah.tasks.corpora.corpus import PAGE, Corpus
    from mynah.tasks.corpora.rows import Problems
    from mynah.tasks.corpora.validate import validate

    if (path / PAGE).is_file():
        return Corpus.open(path).utterances()
    problems = Problems()
    found = validate(folder.read(path, problems, channel=0), problems, decode=False)
    if problems.errors:
        raise ValueError(f"noise that cannot be used: {'; '.join(map(str, problems.errors[:5]))}")
    return found


def _check(args: Args) -> None:
    """Refuse options that would do nothing."""
    for option, kinds in _KINDS.items():
        if getattr(args, option) is not None and args.kind not in kinds:
            raise ValueError(
                f"--{option} is for {' and '.join(kinds)} and does nothing for {args.kind}"
            )
    if args.snr is not None and args.noise is None and args.kind != "enhancement":
        raise ValueError("--snr needs --noise")
