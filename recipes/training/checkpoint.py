"""Checkpoints: whole folders or nothing.

``checkpoints/step-00000500/`` is a model folder (``model.safetensors``, ``config.json``: any
checkpoint can be probed) plus ``state.safetensors`` (the optimiser's moments) and ``state.json``
(step, identity of the run, sha256 of the other files and of itself). It is written under another
name, flushed, and renamed, so a name ``step-*`` is never half a checkpoint of ours; the hashes find
what disks and people do to it later. No random state is kept: every batch reseeds from its number.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mynah.files import sha256_of, sync_file, sync_folder, write_bytes
from mynah.recipes.training import optim
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Upstream

FORMAT = 1
STATE, TENSORS = "state.json", "state.safetensors"
FILES = (modelfolder.WEIGHTS, modelfolder.CONFIG, TENSORS)
NAME = re.compile(r"step-(\d{8,})")
LEFTOVER = ".unfinished-"


class DamagedError(ValueError):
    """A checkpoint is not whole; the message names the file and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands, apart from its weights.

    Attributes:
        step: optimiser steps done.
        epoch: epoch of the next batch.
        epoch_start: number of that epoch's first batch.
        bad_run: consecutive steps, up to now, that were skipped as non-finite.
        skipped: steps skipped so far.
        audio_seconds: audio seen so far by all processes.
    """

    step: int = 0
    epoch: int = 0
    epoch_start: int = 0
    bad_run: int = 0
    skipped: int = 0
    audio_seconds: float = 0.0


def save(
    root: Path,
    model: Upstream,
    optimizer: torch.optim.Optimizer | Mapping[str, torch.Tensor],
    progress: Progress,
    *,
    identity: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write a checkpoint and delete all but the newest ``keep``.

    Args:
        root: the run's ``checkpoints`` folder.
        model: weights to keep.
        optimizer: moments to keep, or ``optim.state_tensors`` of it.
        progress: where the run stands.
        identity: what a resumption must have in common with this run.
        keep: checkpoints to keep, this one included.

    Raises:
        OSError: the disk is full or refuses; earlier checkpoints are untouched.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"step-{progress.step:08d}"
    work = root / f"{LEFTOVER}{folder.name}"
    with _explained(root, model):
        try:
            shutil.rmtree(work, ignore_errors=True)
            modelfolder.save(model, work, extra={"step": progress.step})
            tensors = optimizer
            if isinstance(tensors, torch.optim.Optimizer):
                tensors = optim.state_tensors(tensors, model)
            _write_tensors(tensors, work / TENSORS)
            state = {
                "format": FORMAT,
                "progress": vars(progress),
                "identity": dict(identity),
                "files": {name: sha256_of(work / name) for name in FILES},
            }
            state["sha256"] = _digest(state)
            write_bytes(work / STATE, json.dumps(state, indent=1, allow_nan=False).encode())
            sync_folder(work)
            if folder.exists():  # a damaged one that the resumption had to skip
                folder.rename(root / f"{LEFTOVER}old-{folder.name}")
            work.rename(folder)
            sync_folder(root)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    tidy(root)
    for old in reversed(names(root)[keep:]):  # oldest first; renamed, so that no half is ever named
        doomed = root / f"{LEFTOVER}old-{old}"
        (root / old).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    return folder


def names(root: Path) -> list[str]:
    """Return the names of the checkpoints of a run, newest first, whole or not."""
    if not root.is_dir():
        return []
    found = [p.name for p in root.iterdir() if NAME.fullmatch(p.name)]
    return sorted(found, key=lambda name: int(name.partition("-")[2]), reverse=True)


def tidy(root: Path) -> None:
    """Delete what an interrupted save left behind."""
    for path in root.glob(f"{LEFTOVER}*") if root.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)


def newest(root: Path) -> tuple[Path | None, list[str]]:
    """Return the newest whole checkpoint (None where there is none) and what was skipped, and why."""
    problems = []
    for name in names(root):
        try:
            read_state(root / name)
        except DamagedError as error:
            problems.append(str(error))
        else:
            return root / name, problems
    return None, problems


def read_state(folder: Path) -> dict[str, Any]:
    """Return ``state.json`` after checking every file's sha256.

    Raises:
        DamagedError: a file is missing, unreadable or not what was written.
    """
    try:
        state = json.loads((folder / STATE).read_text("utf-8"))
        stated = state.pop("sha256")
        if stated != _digest(state):
            raise DamagedError(f"{folder / STATE} is damaged: its sha256 differs")
        for name in FILES:
            if sha256_of(folder / name) != state["files"][name]:
                raise DamagedError(f"{folder / name} is damaged: its sha256 differs")
    except FileNotFoundError as error:
        raise DamagedError(f"{error.filename} is missing") from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{folder / STATE} is damaged: {error!r}") from error
    if state["format"] != FORMAT:
        raise DamagedError(
            f"{folder / STATE} has format {state['format']}, this version reads {FORMAT}"
        )
    result: dict[str, Any] = state
    return result


def load(folder: Path, model: Upstream, optimizer: torch.optim.Optimizer | None = None) -> Progress:
    """Put a checkpoint's weights and moments into a model and its optimiser.

    Args:
        folder: of the checkpoint.
        model: receives the weights.
        optimizer: receives the moments; None where it is built later, for :func:`load_optimizer`.

    Raises:
        DamagedError: the checkpoint is not whole.
        ValueError: it is of another model.
    """
    state = read_state(folder)
    modelfolder.fill(model, folder / modelfolder.WEIGHTS)
    if optimizer is not None:
        load_optimizer(folder, model, optimizer)
    return Progress(**state["progress"])


def load_optimizer(folder: Path, model: Upstream, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's moments into an optimiser of a model, sharded or not.

    Raises:
        DamagedError: they cannot be read.
        ValueError: they are of another model.
    """
    try:
        with safe_open(folder / TENSORS, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DamagedError(f"{folder / TENSORS} cannot be read: {error}") from error
    optim.load_state_tensors(optimizer, model, tensors)


# -- writing --------------------------------------------------------------------------------------


def _write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
    sync_file(path)


def _digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


@contextmanager
def _explained(root: Path, model: Upstream) -> Iterator[None]:
    """Say what a full disk means for the run."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        need = 3 * sum(p.nbytes for p in model.parameters()) / 2**20
        free = shutil.disk_usage(root).free / 2**20
        raise OSError(
            error.errno,
            f"no room for a checkpoint: it needs about {need:.1f} MiB, {free:.1f} MiB are free. "
            "Earlier checkpoints are whole; make room and run the same command with --resume",
            str(root),
        ) from error
