"""``mynah judge codes METHOD...``: what content codes and speaker vectors of converters still say.

Fresh probes of two capacities (``conversion/code_probes``) try to read the speaker and the sentence from
the content code and from the speaker vector. Disentangled is: the sentence in the one, the speaker in
the other, and neither where it should not be. The plain auto-encoder beside them shows what a method's
device takes away.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction

if TYPE_CHECKING:
    from torch import Tensor

    from mynah.recipes.conversion.code_probes import Probed
    from mynah.tasks.corpora.utterance import Utterance

FORMAT = 1
CELLS = (
    ("code", "speaker"),
    ("code", "sentence"),
    ("voice", "speaker"),
    ("voice", "sentence"),
)


@dataclass(frozen=True, kw_only=True)
class Args:
    """Probe codes of converters for speakers and sentences."""

    methods: Annotated[tuple[str, ...], Positional]
    """Method without training (stats, mkl, copy) or run folder of a trained converter."""
    corpus: Path
    """Prepared corpus whose speakers say the same sentences."""
    out: Path
    """JSON file to write."""
    sentence: str = "text"
    """Label that tells sentences apart, such as keyword or sentence."""
    split: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Splits to use; repeatable; default: all."""
    count: int = 400
    """Utterances at most, evenly spread over the corpus."""
    steps: int = 200
    """Updates of the convolutional probe."""
    folds: int = 5
    """Folds of speakers or sentences that are held out in turn."""
    seed: int = 0
    """Of folds, weights and batches."""


def codes_of(
    method: str, utterances: Sequence[Utterance]
) -> tuple[list[Tensor], list[Tensor], Any]:
    """Return content code (T, C) and speaker vector (1, V) of each utterance, and who made them.

    Raises:
        ValueError, LookupError, FileNotFoundError: no such converter.
        BadAudioError: a recording that cannot be read.
    """
    import torch

    from mynah.recipes.conversion.checks import Recording
    from mynah.recipes.conversion.opening import SIMPLE, Choice, open_engine
    from mynah.recipes.progress import track
    from mynah.tasks.corpora.audio import read

    choice = Choice(method=method) if method in SIMPLE else Choice(model=Path(method))
    engine = open_engine(choice)
    codes, voices = [], []
    with torch.no_grad():
        for u in track(utterances, f"codes of {Path(method).name}"):
            wav_S = read(u, engine.sample_rate)
            heard = engine.hear(Recording(wav_S=wav_S, sample_rate=engine.sample_rate))
            codes.append(engine.converter.encode_content(heard))
            voice = engine.converter.encode_speaker([heard])
            voices.append(engine.converter.speaker_vector(voice)[None])
    return codes, voices, engine.identity


def main(args: Args) -> int:
    """Probe, print a table, write a JSON.

    Raises:
        ValueError, LookupError, FileNotFoundError: arguments that name nothing.
        BadDataError: audio or labels that cannot be used.
    """
    from mynah import __version__
    from mynah.recipes import results
    from mynah.recipes.conversion.code_probes import CAPACITIES, probe_codes
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
    labels = {
        "speaker": [str(u.speaker) for u in chosen],
        "sentence": [str(u.label(args.sentence)) for u in chosen],
    }
    other = {"speaker": "sentence", "sentence": "speaker"}
    rows: list[dict[str, Any]] = []
    for method in args.methods:
        try:
            codes, voices, identity = codes_of(method, chosen)
        except BadAudioError as error:
            raise BadDataError(str(error)) from error
        found: dict[str, Probed] = {}
        for what, label in CELLS:
            for capacity in CAPACITIES:
                found[f"{what}|{label}|{capacity}"] = probe_codes(
                    codes if what == "code" else voices,
                    labels[label],
                    labels[other[label]],
                    capacity=capacity,
                    unit=other[label],
                    folds=args.folds,
                    steps=args.steps,
                    seed=args.seed,
                )
        rows.append({"method": method, "identity": identity, "probes": found})
    for line in table(rows):
        sys.stdout.write(line + "\n")
    page = {
        "format": FORMAT,
        "corpus": corpus.name,
        "corpus_version": corpus.version,
        "utterances": len(chosen),
        "sentence": args.sentence,
        "steps": args.steps,
        "folds": args.folds,
        "seed": args.seed,
        "rows": [
            {**row, "probes": {k: asdict(p) for k, p in row["probes"].items()}} for row in rows
        ],
        "mynah": __version__,
    }
    results.write_text(args.out, json.dumps(page, indent=1, ensure_ascii=False) + "\n")
    return 0


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
