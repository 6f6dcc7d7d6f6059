"""``mynah doctor``: what this environment has and lacks, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["ok", "note", "bad"]

CORE = (
    "torch", "torchaudio", "numpy", "scipy", "librosa", "soundfile", "soxr", "lhotse",
    "scikit-learn", "jiwer", "sacrebleu", "s3prl", "safetensors", "pydantic", "tyro", "pyyaml",
    "rich", "tensorboard", "matplotlib", "jinja2",
)  # fmt: skip
EXTRAS = {
    "synth": ("espeakng-loader", "the embedded corpus with its default voice"),
    "hf": ("transformers", "hf: upstreams and the speed races"),
    "audio": ("pesq", "metrics of enhancement and WORLD analysis"),
    "lm": ("flashlight-text", "decoding with a language model"),
    "cluster": ("submitit", "mynah bench --launcher slurm"),
    "export": ("onnxscript", "mynah export --as onnx"),
    "demo": ("gradio", "the voice-conversion page"),
    "submit": ("h5py", "HDF5 files of submissions"),
}
TESTED = {"torch": "2.11.0", "torchaudio": "2.11.0"}


@dataclass(frozen=True, kw_only=True)
class Args:
    """Check Python, packages, devices, threads and disk; exit status 1 if something is bad."""

    folder: Path = Path()
    """Where results and features will be kept: its free space is shown."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        state: ``ok``, ``note`` (works, but know this) or ``bad``.
        what: what was looked at.
        found: what is there.
        advice: what to do, "" where nothing.
    """

    state: State
    what: str
    found: str
    advice: str = ""


def version(package: str) -> str | None:
    """Return the installed version of a distribution, None where absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages() -> list[Finding]:
    """Check the core packages and the extras."""
    found = []
    for name in CORE:
        have = version(name)
        if have is None:
            found.append(
                Finding(state="bad", what=name, found="missing", advice="pip install -e .")
            )
        elif name in TESTED and have.partition("+")[0] != TESTED[name]:
            advice = f"the tested version is {TESTED[name]}: pip install -c constraints.txt -e ."
            found.append(Finding(state="note", what=name, found=have, advice=advice))
        else:
            found.append(Finding(state="ok", what=name, found=have))
    for extra, (name, use) in EXTRAS.items():
        have = version(name)
        if have is None:
            advice = f"for {use}: pip install 'mynah[{extra}]'"
            found.append(
                Finding(state="note", what=f"[{extra}]", found="not installed", advice=advice)
            )
        else:
            found.append(Finding(state="ok", what=f"[{extra}]", found=f"{name} {have}"))
    return found


def importing() -> list[Finding]:
    """Import the binaries that break in mismatched installations."""
    found = []
    try:
        import torchaudio.functional  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        advice = (
            "torch and torchaudio do not fit: pip install torch==2.11.0 torchaudio==2.11.0 "
            "from PyPI (a CPU-only torch wheel breaks torchaudio)"
        )
        found.append(
            Finding(state="bad", what="torchaudio's library", found=str(error), advice=advice)
        )
    else:
        found.append(Finding(state="ok", what="torchaudio's library", found="loads"))
    try:
        from mynah.upstream.interop.s3prl import ensure_importable

        ensure_importable()
    except (ImportError, OSError, RuntimeError) as error:
        advice = "needed only for s3prl: upstreams and races: pip install s3prl==0.4.18 setuptools"
        found.append(Finding(state="note", what="s3prl import", found=str(error), advice=advice))
    else:
        found.append(Finding(state="ok", what="s3prl import", found="works through our shim"))
    return found


def machine(folder: Path) -> list[Finding]:
    """Check Python, devices, threads, oneDNN and disk."""
    import torch

    found = [
        Finding(state="ok", what="python", found=f"{platform.python_version()} {sys.platform}")
    ]
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        advice = "use Python 3.11, 3.12 or 3.13"
        found[0] = Finding(
            state="bad", what="python", found=platform.python_version(), advice=advice
        )
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found.append(Finding(state="ok", what="GPU", found=", ".join(names)))
    else:
        advice = "everything runs on the CPU; base-size pretraining wants a GPU"
        found.append(Finding(state="note", what="GPU", found="none", advice=advice))
    fast = torch.backends.mkldnn.is_available()
    found.append(
        Finding(
            state="ok" if fast else "note",
            what="oneDNN",
            found="available" if fast else "not in this build of torch",
            advice="" if fast else "frozen forwards on the CPU take about twice as long",
        )
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found.append(
        Finding(state="ok", what="threads", found=f"{torch.get_num_threads()} of {cores} cores")
    )
    free = shutil.disk_usage(folder.resolve()).free / 1e9
    low = free < 5
    found.append(
        Finding(
            state="note" if low else "ok",
            what="disk",
            found=f"{free:.0f} GB free at {folder.resolve()}",
            advice="frames of a base model take 3.6 GB per hour of audio; pooled 20 kB per utterance"
            if low
            else "",
        )
    )
    return found


def main(args: Args) -> int:
    """Print the diagnosis.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    if not args.folder.is_dir():
        raise FileNotFoundError(f"no folder {args.folder}")
    findings = packages()
    if not any(f.state == "bad" for f in findings):
        findings = machine(args.folder) + importing() + findings
    from rich.table import Table

    from mynah.recipes.progress import console

    colour = {"ok": "green", "note": "yellow", "bad": "bold red"}
    table = Table("", "what", "found", "what to do")
    for f in findings:
        table.add_row(
            f"[{colour[f.state]}]{f.state}[/]",
            f.what.replace("[", "\\["),
            f.found,
            f.advice.replace("[", "\\["),
        )
    console.print(table)
    bad = sum(f.state == "bad" for f in findings)
    console.print("Ready." if not bad else f"{bad} problem(s): see the last column.")
    return 1 if bad else 0
