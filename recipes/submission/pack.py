"""A model's results as a submission: the official files, and the form to fill in beside them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mynah.recipes.submission import activity, forms
from mynah.recipes.submission.layout import (
    FOLDS,
    MEANS,
    REFUSED,
    ROOT,
    OfATest,
    by_task,
    doubts,
    key,
)

if TYPE_CHECKING:
    from mynah.recipes.kept import Rows
    from mynah.recipes.results import Result

EPOCH = (1980, 1, 1, 0, 0, 0)
LIMIT = 50 * 2**20  # bytes that the server's form takes
LONGEST = 100  # milliseconds between frames that it takes


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A submission before it is written.

    Attributes:
        files: content by name.
        tasks: what is in it.
        results: whose predictions these are.
        left: task -> why it is not in it.
        remarks: what may keep a test set from being whole, or the leaderboard's.
    """

    files: dict[str, bytes]
    tasks: list[str]
    results: list[Result]
    left: dict[str, str]
    remarks: list[str]


def pack(entries: Sequence[tuple[Path, Result]]) -> Packed:
    """Return the files of one model's results.

    Args:
        entries: its results, one of each task (and one more of ASR with a language model).

    Raises:
        ValueError: two results of a task, predictions that are not those that were scored, or ones
            that the format cannot say.
    """
    from mynah.recipes import kept

    files: dict[str, bytes] = {}
    tasks: list[str] = []
    chosen: list[Result] = []
    sizes: list[tuple[str, OfATest, int]] = []
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
        if reason := unusable(path, result):
            left[name] = reason
            continue
        rows = kept.read(path, result)
        if reason := unfit(result, rows):
            left[name] = reason
            continue
        kept.scored(path, result, rows=rows)  # raises where they are not the result's own
        files.update(_files(result, rows, lm=lm))
        tasks.append(name)
        chosen.append(result)
        sizes.append((name, result, len(rows.ids)))
    return Packed(files=files, tasks=tasks, results=chosen, left=left, remarks=doubts(sizes))


def unusable(path: Path, result: Result) -> str | None:
    """Return why there is nothing to submit of a result, and what to run; None where there is."""
    again = f"run `{result.command} --rerun always`"
    if not result.predictions:
        return f"its predictions were not kept: {again}"
    if not path.with_name(result.predictions).is_file():
        return f"its predictions are gone ({result.predictions}): {again}"
    return None


def unfit(result: Result, rows: Rows) -> str | None:
    """Return why predictions do not fit the leaderboard's files; None where they do."""
    if result.task == "ic" and any(true.count("|") != 2 for true in rows.references):
        return "its intents are not of three slots (action, object, location)"
    if result.task == "er" and (folds := len(set(rows.folds))) != FOLDS:
        return f"it is submitted in {FOLDS} folds, this result has {folds}"
    return None


def _files(result: Result, rows: Rows, *, lm: bool) -> dict[str, bytes]:
    part = by_task(result.task, lm=lm)
    names = [key(result.task, name) for name in rows.ids]
    pairs = list(zip(names, rows.predictions, strict=True))
    references = dict(zip(names, rows.references, strict=True))
    base = ROOT + part.path
    if part.form == "activity":
        found = activity.pack(dict(pairs), references)
        return {f"{base}/{name}": data for name, data in found.items()}
    if "{fold}" in part.path:
        by_fold = {
            base.format(fold=number): [
                pair for pair, of in zip(pairs, rows.folds, strict=True) if of == fold
            ]
            for number, fold in enumerate(sorted(set(rows.folds)), 1)
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


def form(results: Sequence[Result], *, stride: float | None) -> dict[str, object]:
    """Return what the leaderboard's form asks for, as far as it is known; else "to fill in".

    Args:
        results: of one model.
        stride: milliseconds between its frames, where known.

    Raises:
        ValueError: results of different models.
    """
    prints = {r.fingerprint for r in results}
    if len(prints) != 1:
        raise ValueError(f"these results are of {len(prints)} different models")
    first = next((r for r in results if r.upstream_macs_total is not None), results[0])
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
        "stride": ask if stride is None else _whole(stride),
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


def _whole(stride: float) -> int | str:
    """Return a stride as the form takes it: whole milliseconds, from 0 to 100."""
    if stride.is_integer() and stride <= LONGEST:
        return int(stride)
    return f"{stride:g} ms: the form takes whole milliseconds, {LONGEST} at most"


def form_text(fields: Mapping[str, object]) -> str:
    """Return the form as JSON text."""
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
