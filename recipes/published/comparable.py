"""Which results of one's own stand among published ones, and what sets the others apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mynah.recipes.submission.layout import size_differs

if TYPE_CHECKING:
    from mynah.recipes.results import Result

CORPORA: dict[str, tuple[str, ...]] = {
    "pr": ("librispeech",),
    "asr": ("librispeech",),
    "ks": ("speech_commands",),
    "ic": ("fluent_speech_commands",),
    "sf": ("audio_snips",),
    "sid": ("voxceleb1",),
    "asv": ("voxceleb1",),
    "er": ("iemocap",),
    "qbe": ("quesst14",),
    "sd": ("librimix-sd",),
    "ss": ("librimix-ss",),
    "se": ("voicebank_demand",),
    "st": ("covost2",),
    "ood_asr": ("commonvoice-es", "commonvoice-zh-CN", "commonvoice-ar", "sbcsae"),
}
"""Task -> the corpora of the published scores, by the names that ``mynah prepare`` gives them."""

Entry = tuple[Path, "Result"]


def alike(result: Result) -> bool:
    """Return whether a result was made as the published ones were.

    On the corpus of the published scores, split as it is there, and all of its test set; under
    protocol superb as it is today; by the protocol's head on the weighted sum of all hidden states,
    after its number of updates. Learning rates are anybody's choice.
    """
    return (
        result.protocol == "superb"
        and result.corpus in CORPORA.get(result.task, ())
        and size_differs(result, result.main.n) is None
        and result.settings.get("heads") != "small"
        and not deviations(result)
    )


def deviations(result: Result) -> list[str]:
    """Return what of a result's settings is not as protocol superb has it, heads and corpus apart."""
    from mynah import tasks

    task = tasks.get(result.task).TASK
    today = task.PROTOCOLS["superb"]
    wanted = {
        "steps": ("updates", str(today.steps)),
        "layer": ("layer", "weighted sum"),
        "layer_norm": ("layer norm", "false"),
        "splits": ("splits", "corpus"),
    }
    found = [
        f"{name} {given}, not {value}"
        for key, (name, value) in wanted.items()
        if (given := result.settings.get(key, value)) != value
    ]
    if result.task_version != task.SPEC.version:
        found.append(f"version {result.task_version} of the task, not {task.SPEC.version}")
    return found


def counted(of_task: Mapping[str, Sequence[Entry]]) -> list[str]:
    """Return the tasks of a model that stand among published rows; of OOD-ASR, all four corpora."""
    out = []
    for task, entries in of_task.items():
        if all(alike(r) for _, r in entries) and (
            task != "ood_asr" or {r.corpus for _, r in entries} == set(CORPORA[task])
        ):
            out.append(task)
    return sorted(out)


def remarks(of_task: Mapping[str, Sequence[Entry]]) -> list[str]:
    """Return what sets a model's numbers apart from published ones."""
    out = []
    protocols = sorted({r.protocol for entries in of_task.values() for _, r in entries})
    if protocols != ["superb"]:
        out.append(f"protocol {', '.join(protocols)}, not superb")
    others = sorted(
        f"{task} {r.corpus}"
        for task, entries in of_task.items()
        for _, r in entries[:1]
        if r.corpus not in CORPORA.get(task, ())
    )
    if others:
        out.append(f"not SUPERB's corpora, or under other names: {', '.join(others)}")
    sizes = {
        task: size_differs(r, r.main.n)
        for task, entries in of_task.items()
        for _, r in entries[:1]
        if r.corpus in CORPORA.get(task, ())
    }
    if partly := [f"{task} {text}" for task, text in sorted(sizes.items()) if text]:
        out.append(f"not the whole test sets: {'; '.join(partly)}")
    small = sorted(t for t, e in of_task.items() if e[0][1].settings.get("heads") == "small")
    if small:
        out.append(f"small heads: {', '.join(small)}")
    changed = [
        f"{task} ({', '.join(texts)})"
        for task, entries in sorted(of_task.items())
        if entries[0][1].protocol == "superb" and (texts := deviations(entries[0][1]))
    ]
    if changed:
        out.append(f"not as the protocol has it: {', '.join(changed)}")
    skipped = sorted(t for t, entries in of_task.items() if any(r.skipped for _, r in entries))
    if skipped:
        out.append(f"utterances left out: {', '.join(skipped)}")
    return out
