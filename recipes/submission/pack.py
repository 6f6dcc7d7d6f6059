"""A model's results as a submission: the official files, and the form to fill in beside them."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mynah.recipes.submission import activity, forms
from mynah.recipes.submission.layout import FOLDS, MEANS, REFUSED, ROOT, by_task

if TYPE_CHECKING:
    from mynah.recipes.kept import Rows
    from mynah.recipes.results import Result

EPOCH = (1980, 1, 1, 0, 0, 0)
LIMIT = 50 * 2**20  # bytes that the server's form takes


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A submission before it is written.

    Attributes:
        files: content by name.
        tasks: what is in it.
        left: task -> why it is not in it.
    """

    files: dict[str, bytes]
    tasks: list[str]
    left: dict[str, str]


def pack(entries: Sequence[tuple[Path, Result]]) -> Packed:
    """Return the files of one model's results.

    Args:
        entries: its results, one of each task (and one more of ASR with a language model).

    Raises:
        ValueError: two results of a task, or predictions that the format cannot say.
        FileNotFoundError: predictions are gone.
    """
    from mynah.recipes import kept

    files: dict[str, bytes] = {}
    tasks: list[str] = []
    left: dict[str, str] = {}
    for path, result in entries:
        lm = bool(result.settings.get("lm"))
        name = result.task + (" with a language model" if lm else "")
        if result.task in REFUSED:
            left[name] = REFUSED[result.task]
            continue
        if lm and result.task != "asr":
            left[name] = "the leaderboard takes a language model for ASR only"
            continue
        if name in tasks:
            raise ValueError(
                f"two results of {name}: {path} and another; choose with --seed or --corpus"
            )
        if result.task == "ic" and any(
            r.count("|") != 2 for r in kept.read(path, result).references
        ):
            left[name] = "its intents are not of three slots (action, object, location)"
            continue
        files.update(_files(result, kept.read(path, result), lm=lm))
        tasks.append(name)
    return Packed(files=files, tasks=tasks, left=left)


def _files(result: Result, rows: Rows, *, lm: bool) -> dict[str, bytes]:
    part = by_task(result.task, lm=lm)
    pairs = list(zip(rows.ids, rows.predictions, strict=True))
    references = dict(zip(rows.ids, rows.references, strict=True))
    base = ROOT + part.path
    if part.form == "activity":
        found = activity.pack(dict(pairs), references)
        return {f"{base}/{name}": data for name, data in found.items()}
    if "{fold}" in part.path:
        folds = sorted(set(rows.folds))
        if len(folds) != FOLDS:
            raise ValueError(
                f"{result.task} is submitted in {FOLDS} folds, this result has {len(folds)}: leave it "
                f"out with --without {result.task}"
            )
        by_fold = {
            base.format(fold=number): [
                pair for pair, of in zip(pairs, rows.folds, strict=True) if of == fold
            ]
            for number, fold in enumerate(folds, 1)
        }
        return {name: forms.write_lines(some).encode() for name, some in by_fold.items()}
    if part.form == "intent":
        text = forms.write_intents(pairs)
    elif part.form == "terms":
        text = forms.write_terms(pairs)
    elif part.form == "translation":
        text = forms.write_translation(pairs, references)
    elif part.form == "means":
        text = forms.write_means(
            {
                name: result.metrics[ours].value
                for name, ours in MEANS.items()
                if ours in result.metrics
            }
        )
    else:
        text = forms.write_lines(pairs)
    return {base: text.encode()}


def as_zip(files: Mapping[str, bytes]) -> bytes:
    """Return a zip: the same bytes for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o100644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name], compresslevel=9)
    return buffer.getvalue()


def form(results: Sequence[Result]) -> dict[str, object]:
    """Return what the leaderboard's form asks for, as far as results know it; else "to fill in".

    Raises:
        ValueError: results of different models.
    """
    prints = {r.fingerprint for r in results}
    if len(prints) != 1:
        raise ValueError(f"these results are of {len(prints)} different models")
    first = results[0]
    macs = first.upstream_macs_total
    buckets = dict(first.upstream_macs_buckets)
    ask = "to fill in"
    return {
        "submitName": first.upstream[:20],
        "modelURL": ask,
        "modelDesc": ask,
        "inputFormat": "waveform",
        "corpus": ask,
        "paramDesc": ask,
        "stride": ask,
        "macs": ask if macs is None else macs,
        **{
            f"macs{name.capitalize()}": buckets.get(name, ask)
            for name in ("short", "medium", "long", "longer")
        },
        "paramShared": first.upstream_params,
        "fineTunedParam": 0,
        "taskSpecParam": {r.task: r.head_params for r in results},
        "task": 1,
        "protocols": sorted({r.protocol for r in results}),
        "corpora": {r.task: r.corpus for r in results},
        "fingerprint": first.fingerprint,
        "commands": {r.task: r.command for r in results},
    }


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def form_text(fields: Mapping[str, object]) -> str:
    """Return the form as JSON text."""
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
