"""What sets results of one's own apart from published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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


def remarks(of_task: Mapping[str, Sequence[tuple[Path, Result]]]) -> list[str]:
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
    small = sorted(t for t, e in of_task.items() if e[0][1].settings.get("heads") == "small")
    if small:
        out.append(f"small heads: {', '.join(small)}")
    skipped = sorted(t for t, entries in of_task.items() if any(r.skipped for _, r in entries))
    if skipped:
        out.append(f"utterances left out: {', '.join(skipped)}")
    return out
