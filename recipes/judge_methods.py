"""``mynah judge methods METHOD_OR_RUN...``: converters against each other, and what bounds them.

Every method converts the same sentences between the same speakers, through the same engine and the
same vocoder as ``mynah convert``; what comes out is scored as ``mynah judge vc`` scores. Anchors stand
in the same table, because no score means anything alone: the source as it is and through the vocoder,
the target's own recording through the vocoder, another take of it where the corpus has one. A run of
the plain auto-encoder (``mynah pretrain vc/autoencoder-tiny``) is put among the anchors: it says what
the others' devices against the source's voice are worth.

Where speakers say the same sentences, ``--sentence`` names the label that tells them apart: what a
converter hears of the target are other sentences, and the target's own recording of the sentence is
what the conversion is compared with. Without ``--sentence`` any two speakers make pairs. There is no
MCD then, nor an F0 that should have been reached; what is left says whether the words are still there,
whether the intonation is the source's, and whether pitch and voice are the target's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction

from mynah.files import write_text

if TYPE_CHECKING:
    from mynah.recipes.conversion.engine import Engine
    from mynah.recipes.conversion.pairs import Pair
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.tasks.corpora.utterance import Utterance

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Args:
    """Compare ways to convert voices, on speakers who say the same sentences or different ones."""

    methods: Annotated[tuple[str, ...], Positional]
    """Methods without training (stats, mkl, knn; copy is an anchor, and there anyway) and run folders
    of trained converters. Runs of one variant that speak in one voice each (taco2_ar) are one row;
    there must be one for every target."""
    corpus: Path
    """Prepared corpus of two speakers or more; with --sentence, ones who say the same sentences."""
    out: Path
    """JSON file to write: scores with intervals, and every conversion of every method."""
    vocoder: str | None = None
    """Name (griffin_lim, world), run or folder of a vocoder, for all methods; default: world where
    pyworld is installed, else griffin_lim."""
    split: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Splits that speakers are drawn from, repeatable, or all; default: test, or all of a corpus that
    names no splits."""
    sentence: str | None = None
    """Label that tells sentences apart, such as text or keyword, where speakers say the same ones:
    MCD, F0 RMSE and F0 corr are to the target's own recording. Default: pairs of any utterances, and
    those scores are left out."""
    same: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Label that source, target and references must share beside, such as emotion; repeatable."""
    to: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Target speaker; repeatable. Default: everybody."""
    targets: int = 8
    """Recordings of the target that a converter hears, without --sentence half of the target's at
    most; more where these hold under 3 s."""
    own: int = 0
    """Other recordings of the source speaker that a converter hears; mynah convert has none."""
    pairs: int = 40
    """Conversions of each method, at most."""
    upstream: str | None = None
    """Spec of the frozen upstream that knn matches by; default: spectrograms."""
    layer: int = -1
    """Hidden state that knn reads of it."""
    asr: Path | None = None
    """Trained head that writes words (asr), for CER against the label text, or phones (pr), for PER
    against the label phones."""
    asv: Path | None = None
    """Trained head of speaker verification, for the accept rate and the EER; its threshold is that at
    the EER of the drawn speakers' real recordings."""
    keep: Path | None = None
    """New or empty folder for all audio; default: none is kept."""
    seed: int = 0
    """Of the drawing of pairs."""


def main(args: Args) -> int:
    """Convert, judge, print a table, write a JSON.

    Raises:
        ValueError, LookupError, FileNotFoundError: arguments that name nothing.
        BadDataError: audio or labels that cannot be used, or a corpus of which no pair can be drawn.
    """
    from mynah.recipes.conversion.contender import contenders
    from mynah.recipes.conversion.free_pairs import tried
    from mynah.recipes.conversion.method_page import page_of
    from mynah.recipes.conversion.method_report import gender_table, notes, table
    from mynah.recipes.conversion.method_scores import Panel
    from mynah.recipes.conversion.pairs import check_counts, witnesses
    from mynah.recipes.conversion.systems import Recordings, anchors, convert
    from mynah.recipes.errors import BadDataError
    from mynah.recipes.progress import track
    from mynah.tasks.core.contract import DataError
    from mynah.tasks.corpora.audio import BadAudioError
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.tasks.metrics.conversion import need_world

    need_world()  # before anything is converted
    check_counts(args.pairs, args.targets, args.own)
    corpus = Corpus.open(args.corpus)
    splits, chosen = utterances_of(corpus, args.split)
    try:
        pairs = drawn(args, chosen)
    except ValueError as error:
        raise BadDataError(f"{args.corpus}, {' and '.join(splits) or ALL}: {error}") from error
    engines = open_engines(args)
    copy = engines.pop("copy")
    rivals = contenders(engines, pairs)
    vocoders = {name: one.vocoder.identity for name, one in {"copy": copy, **engines}.items()}
    with folder_of(args.keep) as folder:
        real = Recordings(folder / "real")
        try:
            known = witnesses(chosen, pairs, seed=args.seed)
            more = tried(pairs, known) if args.sentence is None else []
            panel = Panel(
                pairs,
                real,
                rate=rate_of(pairs),
                witnesses=known,
                tried=more,
                asr=args.asr,
                asv=args.asv,
            )
            systems, copies = anchors(copy, pairs, folder / "copy", real, more)
            for number, rival in enumerate(rivals, start=1):
                where = folder / f"{number:02d}-{Path(rival.name).name}"
                systems.append(convert(rival, pairs, where, real))
            systems.sort(key=lambda one: one.kind)  # anchors first, else as given
            rows = [(one, panel.score(one)) for one in track(systems, "judging")]
            own = {
                "real": panel.accuracy({path: path for path in copies}),
                "vocoded": panel.accuracy(copies),
            }
        except (BadAudioError, DataError) as error:
            raise BadDataError(str(error)) from error
        page = page_of(args, corpus, splits, pairs, rows, panel, own)
        page["vocoders"] = vocoders
        write_text(args.out, json.dumps(page, indent=1, ensure_ascii=False) + "\n")
    parallel = panel.parallel
    tables = (*table(rows, parallel=parallel), *gender_table(rows, parallel=parallel))
    for line in (*tables, *notes(rows, panel, own, pairs)):
        sys.stdout.write(line + "\n")
    return 0


def drawn(args: Args, chosen: Sequence[Utterance]) -> list[Pair]:
    """Return the conversions that are to be made.

    Raises:
        ValueError: utterances of which no pair can be drawn.
    """
    from mynah.recipes.conversion.free_pairs import draw_free
    from mynah.recipes.conversion.pairs import draw

    wanted: dict[str, Any] = {
        "same": args.same,
        "to": args.to,
        "pairs": args.pairs,
        "targets": args.targets,
        "own": args.own,
        "seed": args.seed,
    }
    if args.sentence is None:
        return draw_free(chosen, **wanted)
    return draw(chosen, sentence=args.sentence, **wanted)


def utterances_of(corpus: Corpus, wanted: Sequence[str]) -> tuple[list[str], list[Utterance]]:
    """Return the splits, and what is in them.

    Raises:
        LookupError: no such split.
    """
    splits = list(dict.fromkeys(wanted)) or (["test"] if corpus.splits else [])
    if not splits or ALL in splits:
        return [], corpus.utterances()
    return splits, [u for name in splits for u in corpus.utterances(name)]


def rate_of(pairs: Sequence[Pair]) -> int:
    """Return the Hz at which distances are measured: no more than every recording has, 16000 at most.

    What lies above a recording's own band is no speech, and would outweigh what is.
    """
    from mynah.recipes.conversion.systems import RATE
    from mynah.tasks.metrics.mel_cepstrum import ALPHAS

    lowest = min(RATE, *(u.sample_rate for p in pairs for u in (p.source, p.target)))
    return max((rate for rate in ALPHAS if rate <= lowest), default=min(ALPHAS))


def open_engines(args: Args) -> dict[str, Engine]:
    """Return the engine of ``copy`` and of every method, by the name of its row.

    Raises:
        ValueError, LookupError, FileNotFoundError: a method, run, vocoder or upstream that cannot be.
    """
    from mynah.recipes.conversion.opening import SIMPLE, Choice, open_engine

    methods = ["copy", *(m for m in args.methods if m != "copy")]
    if args.upstream is not None and "knn" not in methods:
        raise ValueError("--upstream is what knn matches by, and knn is not among the methods")
    if len(set(methods)) != len(methods):
        raise ValueError(f"every method once, got {', '.join(args.methods)}")
    short = [Path(m).name for m in methods]
    found = {}
    for method, name in zip(methods, short, strict=True):
        if method in SIMPLE:
            upstream = args.upstream if method == "knn" else None
            choice = Choice(
                method=method, vocoder=args.vocoder, upstream=upstream, layer=args.layer
            )
        elif Path(method).exists():
            choice = Choice(model=Path(method), vocoder=args.vocoder)
        else:
            choice = Choice(method=method)  # says what there is
        found[name if short.count(name) == 1 else method] = open_engine(choice)
    return found


@contextmanager
def folder_of(keep: Path | None) -> Iterator[Path]:
    """Give a folder for audio, one that goes away again where none is to be kept.

    Raises:
        ValueError: the folder holds something.
    """
    if keep is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise ValueError(f"--keep {keep} is there and not empty: name a new folder")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep
