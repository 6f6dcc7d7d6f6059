"""The folder of a run: one owner at a time, and a record of what ran in it.

run.json            recipe, data, versions, command lines, git commit
recipe.yaml         the resolved recipe; ``--config`` reads it
metrics.jsonl       losses, each the mean since the line before (the terminal shows single steps);
                    tensorboard/ shows them
checkpoints/        step-00000500/ ... (see checkpoint.py)
nonfinite/          what was in a batch whose loss was not finite
final/              the model at the end
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mynah.files import write_bytes
from mynah.recipes.errors import BadDataError
from mynah.recipes.progress import err
from mynah.recipes.training import checkpoint
from mynah.recipes.training.config import Recipe
from mynah.recipes.training.values import HARMLESS
from mynah.upstream.core import modelfolder
from mynah.upstream.store.lock import Hold, lock

if TYPE_CHECKING:
    from mynah.recipes.training.distributed import World

# what a run, or HuBERT's iterations, may have written before there is a run.json, and logs of a launcher
OWN = re.compile(
    r"recipe\.yaml|lock|labels|final|tensorboard|checkpoints|iteration-\d+|logs?|.*\.(log|out|err)"
)
PACKAGES = ("mynah", "torch", "numpy", "safetensors", "soundfile", "soxr")


def identity(
    recipe: Recipe, data: Mapping[str, Any], *, hardware: str, threads: int, world_size: int
) -> dict[str, Any]:
    """Return all that a run and its resumption must have in common for the same weights."""
    values = recipe.as_dict()
    values["train"] = {k: v for k, v in values["train"].items() if k not in HARMLESS}
    return {
        "recipe": values,
        "data": dict(data),
        "machine": {"hardware": hardware, "threads": threads, "world_size": world_size},
        "versions": {name: _version(name) for name in ("mynah", "torch")},
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one line per value that differs: its path, before, now."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return [
        f"{key}: was {old.get(key, 'not there')}, is {new.get(key, 'not there')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "not there") != new.get(key, "not there")
    ]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, json.dumps(value)


def read(folder: Path) -> dict[str, Any] | None:
    """Return ``run.json``, None where there is no run yet.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / "run.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text("utf-8"))
        if isinstance(record, dict) and isinstance(record["identity"], dict):
            return record
    except (ValueError, KeyError):
        pass
    raise ValueError(f"{path} is damaged: give another --out, or delete {folder}")


def prepare(
    folder: Path, identity: Mapping[str, Any], *, resume: bool
) -> tuple[str, Path | None, list[str]]:
    """Decide what to do in a run folder.

    A run that ended before its first checkpoint left nothing to go on with: another may begin there.

    Returns:
        ``done``, ``start`` or ``resume``; the checkpoint to resume from; warnings.

    Raises:
        ValueError: an unfinished run without ``resume``, or a run with another identity.
        BadDataError: checkpoints exist and none of them is whole.
    """
    before = read(folder)
    if before is None:
        return "start", None, []
    final, root = folder / "final", folder / "checkpoints"
    if not final.exists() and not checkpoint.names(root):
        shutil.rmtree(folder / "nonfinite", ignore_errors=True)
        return "start", None, [f"{folder} holds no checkpoint of an earlier run: this one is new"]
    finished = (final / modelfolder.CONFIG).is_file()
    # A finished model is what it is, whichever machine asks for it again.
    parts = ("recipe", "data") if finished else tuple(identity)
    differing = differences(
        {part: before["identity"].get(part) for part in parts},
        {part: identity[part] for part in parts},
    )
    if differing and (finished or resume):
        listed = "\n".join(f"  {line}" for line in differing)
        state = "a finished" if finished else "an unfinished"
        raise ValueError(
            f"{folder} holds {state} run that differs from this one:\n{listed}\n"
            "Give another --out, or the same settings"
        )
    if finished:
        modelfolder.verify(final)
        return "done", None, []
    if not resume:
        raise ValueError(
            f"{folder} holds an unfinished run: add --resume to go on with it, or give another --out"
        )
    checkpoint.tidy(root)
    whole, problems = checkpoint.newest(root)
    if whole is None and problems:
        raise BadDataError(
            "no checkpoint of this run is whole, so nothing was touched:\n"
            + "\n".join(f"  {problem}" for problem in problems)
        )
    return "resume", whole, [f"skipped: {problem}" for problem in problems]


def start(
    folder: Path, recipe: Recipe, identity: Mapping[str, Any], details: Mapping[str, Any], step: int
) -> None:
    """Write or extend ``run.json`` and ``recipe.yaml``.

    Args:
        folder: of the run.
        recipe: resolved.
        identity: see :func:`identity`.
        details: of the data, for people.
        step: steps done; with none, sessions are all that is kept of an earlier ``run.json``.
    """
    before = read(folder)
    record = before or {}
    if before is None or not step:
        record = {
            "identity": dict(identity),
            "recipe": recipe.as_dict(),
            "data": dict(details),
            "sessions": before["sessions"] if before else [],
        }
    record["sessions"].append(
        {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "from_step": step,
            "command": sys.argv,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in PACKAGES},
            "commit": commit(),
        }
    )
    values = recipe.as_dict()
    text = f"# {recipe.family}/{recipe.variant}, resolved\n" + yaml.safe_dump(
        {"model": _plain(values["model"]), "train": values["train"]}, sort_keys=False
    )
    write_bytes(folder / "recipe.yaml", text.encode())
    write_bytes(folder / "run.json", json.dumps(record, indent=1).encode())


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))  # tuples become lists, which YAML can hold


@cache
def _version(package: str) -> str:
    if package == "mynah":
        from mynah import __version__

        return __version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def commit() -> str | None:
    """Return the git commit of this code (``+`` appended where it has been edited), None if none."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*", "--dirty=+"],
            check=False,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def own(stack: ExitStack, world: World, folder: Path) -> None:
    """Hold a run folder for all processes of a run until the stack is closed; say who died in it.

    Raises:
        ValueError: as :func:`locked`, in every process, so that none waits for one that gave up.
    """
    died = world.from_first(lambda: stack.enter_context(locked(folder)).recovered)
    if died and world.first:
        err.print(f"the lock of a run that died ({died}) was taken over", markup=False)


def _refuse_others(folder: Path) -> None:
    """Refuse a file, and a folder that holds files but no run."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a new folder, or an empty one")
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    foreign = sorted(name for name in found if not (OWN.fullmatch(name) or name.startswith(".")))
    if foreign and "run.json" not in found:
        more = " ..." if len(foreign) > 3 else ""
        raise ValueError(
            f"{folder} is no run and holds {', '.join(foreign[:3])}{more}: give a new folder, or an "
            "empty one"
        )


@contextmanager
def locked(folder: Path) -> Iterator[Hold]:
    """Hold a run folder, through ``RUN/lock``, while the block runs.

    A block that fails before it has written anything leaves no folder where there was none.

    Raises:
        ValueError: it is a file, or a folder of something else; or another process holds it, and the
            message names process and host.
    """
    _refuse_others(folder)
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / "lock", wait=False) as hold:
        if not hold:
            raise ValueError(
                f"{folder} is in use by another run ({hold.holder}): wait for it, stop it, or give "
                "another --out"
            )
        try:
            yield hold
        except BaseException:
            if new and [path.name for path in folder.iterdir()] == ["lock"]:
                with suppress(OSError):  # somebody else may begin there meanwhile
                    (folder / "lock").unlink()
                    folder.rmdir()
            raise
