"""``mynah judge codes METHOD...``: what content codes and speaker vectors of converters still say.

Fresh probes of two capacities (``conversion/code_probes``) try to read the speaker and the sentence from
the content code and from the speaker vector. Disentangled is: the sentence in the one, the speaker in
the other, and neither where it should not be. The plain auto-encoder beside them shows what a method's
device takes away. With ``--phones`` probes of frames (``conversion/phone_probes``) say how much of the
phones is still in the code, and whether the speaker vector has any.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction

from mynah.files import write_text

if TYPE_CHECKING:
    from mynah.recipes.conversion.code_probes import Capacity, Probed
    from mynah.recipes.conversion.codes import Coded
    from mynah.recipes.conversion.phone_probes import Tally
    from mynah.tasks.corpora.utterance import Utterance

FORMAT = 1
CELLS = (
    ("code", "speaker"),
    ("code", "sentence"),
    ("voice", "speaker"),
    ("voice", "sentence"),
)
PHONE_CELLS: tuple[tuple[str, str, Capacity], ...] = (
    ("code", "code|phone|linear", "linear"),
    ("code", "code|phone|cnn", "cnn"),
    ("voice", "voice|phone", "linear"),
)


@dataclass(frozen=True, kw_only=True)
class Args:
    """Probe codes of converters for speakers and sentences."""

    methods: Annotated[tuple[str, ...], Positional]
    """Method without training (stats, mkl, copy), run folder of a trained converter, or fbank: no
    converter, its features for comparison."""
    corpus: Path
    """Prepared corpus whose speakers say the same sentences."""
    out: Path
    """JSON file to write."""
    sentence: str = "text"
    """Label that tells sentences apart, such as keyword or sentence."""
    phones: str | None = None
    """Name of timed labels, such as phones: probe frames for them too."""
    not_phone: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Label, or pattern as '[+-]*', that is no phone and is left out as pauses (., sil, sp ...) always
    are; repeatable."""
    split: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Splits to use; repeatable; default: all."""
    count: int = 400
    """Utterances at most, evenly spread over the corpus."""
    frames: int = 200
    """Frames of an utterance at most, evenly spread, for probes of phones."""
    steps: int = 200
    """Updates of the convolutional probes."""
    folds: int = 5
    """Folds of speakers or sentences that are held out in turn."""
    seed: int = 0
    """Of folds, weights and batches."""


def main(args: Args) -> int:
    """Probe, print a table, write a JSON.

    Raises:
        ValueError, LookupError, FileNotFoundError: arguments that name nothing.
        BadDataError: audio or labels that cannot be used.
    """
    from mynah import __version__
    from mynah.recipes.conversion.codes import codes_of
    from mynah.recipes.errors import BadDataError
    from mynah.tasks.corpora.audio import BadAudioError
    from mynah.tasks.corpora.corpus import Corpus

    corpus = Corpus.open(args.corpus)
    every = [u for s in args.split for u in corpus.utterances(s)] or corpus.utterances()
    chosen = [u for u in every if u.speaker is not None and u.label(args.sentence) is not None]
    if not chosen:
        raise BadDataError(
            f"{args.corpus}: no utterance has a speaker and the label {args.sentence!r}: name the "
            "label with --sentence"
        )
    if left := len(every) - len(chosen):
        sys.stderr.write(
            f"left out: {left} of {len(every)} utterances without a speaker or the label "
            f"{args.sentence!r}\n"
        )
    chosen = chosen[:: max(1, -(-len(chosen) // args.count))]
    if args.phones is not None:
        _check_tier(args.corpus, args.phones, chosen)
    rows: list[dict[str, Any]] = []
    told: Tally | None = None
    for method in args.methods:
        try:
            coded = codes_of(method, chosen)
        except BadAudioError as error:
            raise BadDataError(str(error)) from error
        row = {"method": method, "identity": coded.identity}
        probes = whole_utterances(args, chosen, coded)
        if args.phones is not None:
            found, tally = frames_of(args, args.phones, chosen, coded)
            probes |= found
            row["phones"] = asdict(tally)
            if tally != told:
                _tell(args, tally)
            told = tally
        rows.append({**row, "probes": probes})
    for line in table(rows):
        sys.stdout.write(line + "\n")
    page = {
        "format": FORMAT,
        "corpus": corpus.name,
        "corpus_version": corpus.version,
        "utterances": len(chosen),
        "sentence": args.sentence,
        "phones": args.phones,
        "not_phone": args.not_phone,
        "frames": args.frames,
        "steps": args.steps,
        "folds": args.folds,
        "seed": args.seed,
        "rows": [
            {**row, "probes": {k: asdict(p) for k, p in row["probes"].items()}} for row in rows
        ],
        "mynah": __version__,
    }
    write_text(args.out, json.dumps(page, indent=1, ensure_ascii=False) + "\n")
    return 0


def whole_utterances(
    args: Args, utterances: Sequence[Utterance], coded: Coded
) -> dict[str, Probed]:
    """Return what probes of whole utterances read, by ``what|label|capacity``.

    Raises:
        ValueError: too few speakers or sentences, or a class that one fold has alone.
    """
    from mynah.recipes.conversion.code_probes import CAPACITIES, probe_codes

    labels = {
        "speaker": [str(u.speaker) for u in utterances],
        "sentence": [str(u.label(args.sentence)) for u in utterances],
    }
    other = {"speaker": "sentence", "sentence": "speaker"}
    return {
        f"{what}|{label}|{capacity}": probe_codes(
            coded.codes if what == "code" else coded.voices,
            labels[label],
            labels[other[label]],
            capacity=capacity,
            unit=other[label],
            folds=args.folds,
            steps=args.steps,
            seed=args.seed,
        )
        for what, label in CELLS
        for capacity in CAPACITIES
    }


def frames_of(
    args: Args, tier: str, utterances: Sequence[Utterance], coded: Coded
) -> tuple[dict[str, Probed], Tally]:
    """Return what probes of frames read, by ``what|phone|capacity``, and what became of frames.

    Raises:
        ValueError: too few phones or speakers.
    """
    from mynah.recipes.conversion.phone_probes import Tally, phone_frames, probe_phones

    frames = [
        phone_frames(u, tier, seconds_T, not_phones=args.not_phone, most=args.frames)
        for u, seconds_T in zip(utterances, coded.seconds, strict=True)
    ]
    found = {
        key: probe_phones(
            coded.codes if what == "code" else coded.voices,
            frames,
            [str(u.speaker) for u in utterances],
            capacity=capacity,
            unit="speaker",
            folds=args.folds,
            steps=args.steps,
            seed=args.seed,
        )
        for what, key, capacity in PHONE_CELLS
    }
    return found, Tally.of([one.tally for one in frames])


def _check_tier(corpus: Path, tier: str, utterances: Sequence[Utterance]) -> None:
    from mynah.recipes.errors import BadDataError

    without = sum(not u.intervals.get(tier) for u in utterances)
    if without == len(utterances):
        there = sorted({name for u in utterances for name in u.intervals})
        raise BadDataError(
            f"{corpus}: no utterance has the timed labels {tier!r}; there are: "
            f"{', '.join(there) or 'none'}. Name others with --phones, or prepare the corpus with "
            f"them: 'mynah prepare tsv ... --intervals {tier}=FOLDER'"
        )
    if without:
        sys.stderr.write(
            f"left out of the probes of phones: {without} of {len(utterances)} utterances without "
            f"the timed labels {tier!r}\n"
        )


def _tell(args: Args, tally: Tally) -> None:
    sys.stderr.write(
        f"phones: {tally.frames} frames of {tally.utterances} utterances; left out: {tally.outside} "
        f"outside of all labels, {tally.pauses} in pauses and other labels that are no phone, "
        f"{tally.thinned} beyond {args.frames} of an utterance\n"
    )


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a Markdown table: accuracies in per cent with their intervals."""
    keys = list(rows[0]["probes"])
    heads = [key.replace("|", " → ", 1).replace("|", ", ") for key in keys]
    lines = [f"| converter | {' | '.join(heads)} |", f"|---|{'---|' * len(keys)}"]
    chances = [f"{100 * rows[0]['probes'][key].chance:.1f}" for key in keys]
    for row in rows:
        cells = []
        for key in keys:
            p = row["probes"][key].accuracy
            cells.append(f"{100 * p.value:.1f} [{100 * p.low:.1f}, {100 * p.high:.1f}]")
        lines.append(f"| {Path(row['method']).name} | {' | '.join(cells)} |")
    return [*lines, f"| chance | {' | '.join(chances)} |"]
