"""``mynah judge vc LIST.tsv``: how good converted speech is, from any system.

The list is described in ``conversion_list``: a conversion per line, with the target's own recording,
what was said, who said it and who should seem to.

``--asr`` and ``--asv`` are heads that ``mynah probe`` trained. The threshold of the verification is
set at the EER of its trials of real recordings: those of the list (``reference``, ``source_audio``),
or those of ``--real CORPUS``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional

from mynah.files import sha256_of, write_text
from mynah.recipes.conversion_list import Row, read_list
from mynah.recipes.ears import FALLBACK, Ears
from mynah.recipes.errors import BadDataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from mynah.recipes.listening import Listener
    from mynah.tasks.core.contract import ProtocolName
    from mynah.tasks.corpora.utterance import Utterance
    from mynah.tasks.metrics.bootstrap import Interval
    from mynah.tasks.metrics.conversion import Conversion
    from mynah.tasks.vc import Judged, Judges

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Args:
    """Score converted speech: distance to the target's recording, words, voice.

    mynah judge vc LIST.tsv. Others with options of their own: mynah judge methods, mynah judge codes,
    mynah judge vocoders.
    """

    what: Annotated[Literal["vc"], Positional]
    """What is judged: vc, voice conversion."""
    list: Annotated[Path, Positional]
    """TSV with the columns converted, source, target, reference, text; and, if wanted, id,
    source_audio, transcript, f0_min, f0_max."""
    out: Path
    """JSON file to write: metrics with intervals, and a row per conversion."""
    asr: Path | None = None
    """Trained head that writes words, for WER and CER."""
    asv: Path | None = None
    """Trained head of speaker verification, for the accept rate."""
    real: Path | None = None
    """Prepared corpus whose recordings make the real trials, in place of the list's."""
    threshold: float | None = None
    """Of the verification, in place of the one at the EER of real trials."""
    protocol: Literal["fixed", "superb"] = "fixed"
    """superb aligns approximately, as the published benchmark does (mynah info vc)."""
    rate: int | None = None
    """Hz at which distances are measured; needed where the files differ."""
    upstream: str | None = None
    """Spec of the heads' upstream, where it is no longer what their files say."""
    upstream_seed: int = 0
    """Of the upstream's random weights, where its spec has no others."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the upstream's forward, as the heads were trained on it."""
    device: str = "cpu"
    """Where the upstream runs."""


def distance(row: Row, ears: Ears, *, exact: bool) -> Conversion | None:
    """Return how far a conversion is from the target's recording, None where there is none.

    Raises:
        BadAudioError: a file that cannot be read.
        ValueError: files of different rates.
    """
    from mynah.tasks.metrics.conversion import compare
    from mynah.tasks.vc import F0_RANGES

    if row.reference is None:
        return None
    f0_range = row.f0_range or F0_RANGES.get(row.target, FALLBACK)
    voices = [ears.voice(row.converted, f0_range), ears.voice(row.reference, f0_range)]
    rates = [voice.sample_rate for voice in voices]
    if rates[0] != rates[1]:
        raise ValueError(
            f"{row.converted} has {rates[0]} Hz and {row.reference} {rates[1]}: say at which rate "
            "distances are measured, --rate 24000 for instance"
        )
    return compare(*voices, exact=exact)


def open_judge(args: Args, head: Path | None, metrics: Sequence[str], beside: Listener | None,
               option: str) -> Listener | None:  # fmt: skip
    """Open a head if one was given.

    Raises:
        ValueError: a head of a task that is not scored by one of these metrics.
    """
    from mynah.recipes.listening import open_listener

    if head is None:
        return None
    found = open_listener(
        head,
        upstream=args.upstream,
        seed=args.upstream_seed,
        precision=args.precision,
        device=args.device,
        beside=beside,
    )
    if found.task.SPEC.metric not in metrics:
        raise ValueError(
            f"{head} is a head of {found.card.task}: {option} needs one that is scored by "
            f"{' or '.join(metrics)}"
        )
    return found


def name_of(head: Path) -> str:
    """Return the name of a head for signatures: its file and six digits of its sha256."""
    digest = sha256_of(head)[:6]
    return f"{head.name.removesuffix('.head.safetensors')}-{digest}"


def real_recordings(args: Args, rows: Sequence[Row]) -> list[tuple[str, Path | Utterance]]:
    """Return speaker and recording of real speech, each once: of ``--real``, else of the list."""
    from mynah.tasks.corpora.corpus import Corpus

    if args.real is not None:
        return [(u.speaker, u) for u in Corpus.open(args.real).utterances() if u.speaker]
    pairs = [
        (speaker, path)
        for row in rows
        for speaker, path in ((row.target, row.reference), (row.source, row.source_audio))
        if path is not None
    ]
    return list(dict.fromkeys(pairs))


def threshold_of(
    vectors: Sequence[ArrayLike], names: Sequence[str], protocol: ProtocolName
) -> dict[str, Any]:
    """Return ``threshold``, that at the EER of real recordings, and what it was made of.

    Args:
        vectors: embedding of each recording.
        names: its speaker.
        protocol: which pairs are trials, see ``tasks.vc``.

    Raises:
        DataError: too few recordings.
    """
    from mynah.tasks.metrics.detection import threshold_at_eer
    from mynah.tasks.vc import real_trials

    trials, targets = real_trials(vectors, names, protocol)
    eer, threshold = threshold_at_eer(trials, targets)
    return {
        "threshold": threshold,
        "eer_of_real_trials": eer,
        "target_trials": int(targets.sum()),
        "other_trials": int((~targets).sum()),
    }


def accepted(
    args: Args, rows: Sequence[Row], listener: Listener, ears: Ears
) -> tuple[list[float | None], dict[str, Any]]:
    """Return the acceptance of each conversion, and how the threshold came about.

    Raises:
        DataError: too few real recordings for a threshold.
        BadAudioError, ValueError: audio that cannot be used.
    """
    import numpy as np

    from mynah.tasks.vc import acceptance

    names, vectors = [], []
    for speaker, recording in real_recordings(args, rows):
        names.append(speaker)
        vectors.append(np.asarray(ears.said(listener, recording)))
    how: dict[str, Any] = {"threshold": args.threshold}
    if args.threshold is None:
        how = threshold_of(vectors, names, args.protocol)
    threshold = float(how["threshold"])
    out: list[float | None] = []
    for row in rows:
        if row.reference is not None:
            real = [np.asarray(ears.said(listener, row.reference))]
        else:
            real = [v for name, v in zip(names, vectors, strict=True) if name == row.target]
        said = np.asarray(ears.said(listener, row.converted))
        out.append(acceptance(said, real, threshold) if real else None)
    return out, how


def judged(args: Args) -> tuple[list[Judged], Judges, dict[str, Any]]:
    """Return what was found of each conversion, who judged, and how the voice was judged.

    Raises:
        BadDataError: a list or audio that cannot be used.
        FileNotFoundError, LookupError, ValueError: heads, upstreams or settings that cannot be.
    """
    from mynah.recipes.progress import track
    from mynah.tasks.core.contract import DataError
    from mynah.tasks.corpora.audio import BadAudioError
    from mynah.tasks.vc import Judged, Judges

    rows = read_list(args.list)
    if args.asr is not None and any(row.transcript for row in rows):
        raise ValueError("--asr and a column of transcripts: leave one of them out")
    asr = open_judge(args, args.asr, ("wer", "cer"), None, "--asr")
    asv = open_judge(args, args.asv, ("eer",), asr, "--asv")
    ears = Ears(args.rate)
    try:
        voices, how = accepted(args, rows, asv, ears) if asv else ([None] * len(rows), {})
        found = []
        for row, voice in zip(track(rows, "judging"), voices, strict=True):
            one = Judged(
                id=row.id,
                source=row.source,
                target=row.target,
                distance=distance(row, ears, exact=args.protocol == "fixed"),
                text=row.text,
                transcript=str(ears.said(asr, row.converted)) if asr else row.transcript,
                accepted=voice,
            )
            found.append(one)
            ears.forget([row.converted])  # lists may be long; references come again
    except (BadAudioError, DataError) as error:
        raise BadDataError(f"{args.list}: {error}") from error
    judges = Judges(
        protocol=args.protocol,
        recogniser=name_of(args.asr) if args.asr else "given",
        verifier=name_of(args.asv) if args.asv else "",
        threshold=how.get("threshold"),
    )
    return found, judges, how


def lines(found: dict[str, Interval]) -> list[str]:
    """Return a line per score."""
    out = []
    for name, score in found.items():
        value, low, high = (score.scale * x for x in (score.value, score.low, score.high))
        out.append(
            f"{name:<8} {value:8.3f} [{low:.3f}, {high:.3f}]  n {score.n}, {score.units} "
            f"{score.unit}s"
        )
    return out


def main(args: Args) -> int:
    """Judge, write the JSON, print the scores.

    Raises:
        BadDataError: a list or audio that cannot be used.
        FileNotFoundError, LookupError, ValueError: heads, upstreams or settings that cannot be.
    """
    from mynah import __version__
    from mynah.tasks.core.contract import DataError
    from mynah.tasks.vc import SPEC, by_target, scores

    found, judges, how = judged(args)
    try:
        metrics = scores(found, judges)
        targets = by_target(found, judges)
    except DataError as error:
        raise BadDataError(f"{args.list}: {error}") from error
    if not metrics:
        raise BadDataError(
            f"{args.list}: nothing to score: conversions need a reference, or a text and --asr (or "
            "a transcript), or --asv"
        )
    page = {
        "format": FORMAT,
        "task": SPEC.name,
        "task_version": SPEC.version,
        "protocol": args.protocol,
        "list": str(args.list),
        "list_sha256": sha256_of(args.list),
        "rate": args.rate,
        "judges": asdict(judges),
        "verification": how,
        "metrics": {name: asdict(score) for name, score in metrics.items()},
        "by_target": targets,
        "rows": [asdict(one) for one in found],
        "mynah": __version__,
    }
    write_text(args.out, json.dumps(page, indent=1, ensure_ascii=False) + "\n")
    for line in lines(metrics):
        sys.stdout.write(f"{line}\n")
    return 0
