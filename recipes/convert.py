"""``mynah convert``: the same words in another voice.

One conversion (``--source --target --out``), many (``--list``), content codes and speaker vectors
instead of audio (``--codes``), or: is this one of ours? (``--detect``).

Beside every output lies a JSON of the same name: how it was made, of what. The file itself says
"synthetic voice" in its comment, and carries a watermark unless that is switched off.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import UseAppendAction

from mynah.files import replacing, sha256_of, write_text

if TYPE_CHECKING:
    from mynah.recipes.conversion.engine import Engine, Result

COMMENT = "synthetic voice, mynah"


@dataclass(frozen=True, kw_only=True)
class Args:
    """Convert a voice: what SOURCE says, as TARGET would say it.

    Methods without training: mkl (default; some seconds of both speakers), knn (with --upstream a
    pretrained upstream, half a minute of the target), stats, copy (no conversion, the vocoder's
    ceiling). Trained ones: --model RUN of mynah pretrain vc/adain-tiny and its relatives.
    """

    source: Path | None = None
    """Recording to convert, 0.5 s or more; of several channels the first."""
    target: tuple[Path, ...] = ()
    """Recordings of the voice to convert to: 5 s or more in all."""
    out: Path | None = None
    """WAV file to write; a JSON is written beside it."""
    list: Path | None = None
    """TSV with the columns source, target (several separated by commas) and out, paths relative to
    it: a conversion per line; what is there already, made of the same, is kept."""
    codes: Path | None = None
    """Write content (frames, width of the code) and speaker (width of the vector) to this .npz instead
    of audio; a frame is a hop of the converter's spectrogram."""
    detect: tuple[Path, ...] = ()
    """Look for the watermark in these files, and do nothing else."""

    method: str | None = None
    """mkl, knn, stats or copy; default: mkl, or knn where --upstream is given."""
    model: Path | None = None
    """Run folder of a trained converter, in place of a method. One of taco2_ar speaks in the voice that
    it was trained on; the target then gives pitch alone."""
    upstream: str | None = None
    """Spec of the frozen upstream that knn matches by; for --model: where its upstream lies now."""
    layer: int = -1
    """Hidden state that knn reads."""
    setting: Annotated[tuple[str, ...], UseAppendAction] = ()
    """NAME=VALUE of the method (mynah info vc/knn), as neighbours=8; repeatable."""
    vocoder: str | None = None
    """Name (griffin_lim, world) or folder of a vocoder; default: world where pyworld is installed,
    else griffin_lim."""
    semitones: float = 0.0
    """Shift of pitch beside the target's; needs a vocoder that is given F0 (world)."""
    keep_f0: bool = False
    """Leave pitch where the source has it; likewise."""
    max_seconds: float = 300.0
    """Longer sources are refused."""
    watermark: bool = True
    """Mark what comes out as synthetic, inaudibly."""
    force: bool = False
    """Overwrite a file that is no conversion of ours."""


def read_list(path: Path) -> list[tuple[Path, tuple[Path, ...], Path]]:
    """Return source, targets and output of every line.

    Raises:
        FileNotFoundError: no such list.
        BadDataError: a column that is missing, an empty cell, or one output twice.
    """
    import csv

    from mynah.recipes.errors import BadDataError

    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    found = []
    for number, row in enumerate(rows, start=2):
        cells = [(row.get(name) or "").strip() for name in ("source", "target", "out")]
        if not all(cells):
            raise BadDataError(f"{path}:{number}: source, target and out must all be given")
        targets = tuple(path.parent / part.strip() for part in cells[1].split(",") if part.strip())
        found.append((path.parent / cells[0], targets, path.parent / cells[2]))
    outs = [out for *_, out in found]
    places = [os.path.abspath(out) for out in outs]  # noqa: PTH100  of links too, by name
    twice = sorted(
        {str(o) for o, place in zip(outs, places, strict=True) if places.count(place) > 1}
    )
    if twice or not found:
        raise BadDataError(f"{path}: " + (f"written twice: {twice[0]}" if twice else "no lines"))
    return found


def request(engine: Engine, args: Args, source: Path, targets: Sequence[Path]) -> dict[str, Any]:
    """Return what decides a conversion, ready for JSON."""
    return {
        "source": sha256_of(source),
        "targets": [sha256_of(path) for path in targets],
        "converter": json.loads(json.dumps(engine.identity)),
        "vocoder": engine.vocoder.identity,
        "semitones": args.semitones,
        "keep_f0": args.keep_f0,
        "watermark": args.watermark,
    }


def sidecar(out: Path) -> Path:
    """Return where the JSON of an output lies."""
    return out.with_name(out.name + ".json")


def state_of(out: Path, wanted: dict[str, Any], *, force: bool) -> str:
    """Return ``new``, ``done``, or ``other``: a conversion of ours of another request.

    Raises:
        ValueError: a name that is no WAV file's, or a file that is no conversion of ours.
    """
    if out.suffix.lower() != ".wav":
        raise ValueError(f"what comes out is a WAV file: give {out} a name that ends in .wav")
    if not out.exists():
        return "new"
    try:
        page = json.loads(sidecar(out).read_text(encoding="utf-8"))
        digest = sha256_of(out)
        whole = isinstance(page, dict) and page.get("sha256") == digest
        stopped = isinstance(page, dict) and page.get("replaces") == digest
    except (OSError, ValueError):
        whole = stopped = False
    if whole:
        return "done" if page.get("request") == wanted else "other"
    if stopped:
        return "other"
    if not force:
        raise ValueError(
            f"{out} is there and is no conversion of ours (or was changed): give another --out, or "
            "--force"
        )
    return "new"


def write(result: Result, out: Path, wanted: dict[str, Any], *, replaces: str | None) -> None:
    """Write a WAV file and its JSON, whole or not at all.

    Two files cannot be replaced at once. The JSON goes first and names the file that it is of and the
    one of ours whose place that takes, so that whichever lies beside it is known to be ours.

    Args:
        result: what to write.
        out: the WAV file.
        wanted: what was asked for, see :func:`request`.
        replaces: sha256 of the conversion of ours that lies there.

    Raises:
        OSError: the disk is full or refuses.
    """
    import soundfile

    from mynah import __version__

    out.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    with replacing(out) as part:
        with soundfile.SoundFile(
            part, "w", result.sample_rate, 1, subtype="PCM_16", format="WAV"
        ) as file:
            file.comment = f"{COMMENT}, {wanted['converter']['method']}, {digest}"
            file.write(result.wav_S)
        page = {
            "said": COMMENT,
            "request": wanted,
            "sha256": sha256_of(part),
            **({"replaces": replaces} if replaces else {}),
            "seconds": result.seconds,
            "warnings": list(result.warnings),
            **result.record,
            "mynah": __version__,
        }
        write_text(sidecar(out), json.dumps(page, indent=1, ensure_ascii=False) + "\n")


def detect(paths: Sequence[Path]) -> int:
    """Print a line per file; exit status 1 where one carries no mark, 3 where one cannot be read."""
    from mynah.recipes.conversion import watermark
    from mynah.recipes.conversion.checks import read_recording
    from mynah.tasks.corpora.audio import BadAudioError

    missing = unread = 0
    for path in paths:
        try:
            one = read_recording(path)
        except BadAudioError as error:
            unread += 1
            sys.stderr.write(f"{path}: not looked into: {error}\n")
            continue
        found = watermark.detect(one.wav_S, one.sample_rate)
        missing += not found.marked
        said = "marked: synthetic" if found.marked else "no mark found"
        if not found.marked and found.seconds < watermark.NEEDED:
            said += f" (under {watermark.NEEDED:g} s one may be missed)"
        sys.stdout.write(
            f"{path}\t{said}\tscore {found.score:.1f} (above {watermark.THRESHOLD:g} is marked)\t"
            f"{found.seconds:.1f} s\n"
        )
    return 3 if unread else int(missing > 0)


def settings(given: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    """Return the settings of NAME=VALUE: numbers, true and false, or text.

    Raises:
        ValueError: not of that form.
    """
    import yaml

    found = []
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"--setting wants NAME=VALUE, such as neighbours=8, got {text!r}")
        found.append((name, yaml.safe_load(value)))
    return tuple(found)


def chosen(args: Args) -> Engine:
    """Open what is asked for.

    Raises:
        ValueError, LookupError, FileNotFoundError: it cannot be.
    """
    from mynah.recipes.conversion.opening import Choice, open_engine

    method = args.method
    if method is None and args.model is None:
        method = "knn" if args.upstream is not None else "mkl"
    return open_engine(
        Choice(
            method=method,
            model=args.model,
            upstream=args.upstream,
            layer=args.layer,
            vocoder=args.vocoder,
            options=settings(args.setting),
            longest=args.max_seconds,
            marked=args.watermark,
        )
    )


def one(engine: Engine, args: Args, source: Path, targets: Sequence[Path], out: Path) -> str:
    """Convert one recording; returns a line about it.

    Raises:
        BadAudioError, ValueError: a recording or an output that cannot be used.
    """
    from mynah.recipes.conversion.checks import read_recording

    said = read_recording(source)
    voices = [read_recording(path) for path in targets]
    wanted = request(engine, args, source, targets)
    if (state := state_of(out, wanted, force=args.force)) == "done":
        return f"{out}: there already"
    result = engine.convert(said, voices, semitones=args.semitones, keep_f0=args.keep_f0)
    write(result, out, wanted, replaces=sha256_of(out) if state == "other" else None)
    replaced = ", in place of a conversion of other settings" if state == "other" else ""
    lines = [f"{out}: {said.seconds:.1f} s in {result.seconds:.1f} s{replaced}"]
    return "\n".join([*lines, *(f"  warning: {text}" for text in result.warnings)])


def main(args: Args) -> int:
    """Convert, and return the exit status: 3 where lines of a list could not be converted.

    Raises:
        ValueError, LookupError, FileNotFoundError: arguments that do not go together or name nothing.
        BadDataError: a recording that cannot be used.
    """
    from mynah.recipes.conversion.checks import read_recording
    from mynah.recipes.conversion.code_file import write_codes
    from mynah.recipes.errors import BadDataError
    from mynah.tasks.corpora.audio import BadAudioError

    if args.detect:
        return detect(args.detect)
    single = args.source is not None and bool(args.target)
    if args.list is None and not (single and (args.out is None) != (args.codes is None)):
        raise ValueError(
            "give --source, --target and --out (or --codes); or --list; or --detect FILES"
        )
    if args.list is not None and (args.source or args.target or args.out or args.codes):
        raise ValueError("--list says sources, targets and outputs: leave out the other options")
    engine = chosen(args)
    if args.list is None:
        assert args.source is not None
        try:
            if args.codes is not None:
                voices = [read_recording(path) for path in args.target]
                write_codes(engine, read_recording(args.source), voices, args.codes)
                sys.stdout.write(f"{args.codes}: content code and speaker vector\n")
            else:
                assert args.out is not None
                sys.stdout.write(one(engine, args, args.source, args.target, args.out) + "\n")
        except BadAudioError as error:
            raise BadDataError(str(error)) from error
        return 0
    failed = 0
    for source, targets, out in read_list(args.list):
        try:
            sys.stdout.write(one(engine, args, source, targets, out) + "\n")
        except (BadAudioError, ValueError, FileNotFoundError) as error:
            failed += 1
            sys.stderr.write(f"{out}: not converted: {error}\n")
    if failed:
        sys.stderr.write(f"{failed} lines could not be converted\n")
    return 3 if failed else 0
