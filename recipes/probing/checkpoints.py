"""The models of a pretraining run as specs, from before the first step to the end. Light to import.

The untrained model is not in a run folder; it follows from the run's recipe and seed and is written
as a checkpoint of step 0 into a folder of its own, so that results name a spec that can be loaded.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

UNTRAINED = "untrained"


def specs_of(run: Path, out: Path) -> list[str]:
    """Return a spec for each model of a run, by step: untrained, whole checkpoints, final.

    Damaged checkpoints are left out with a warning. The last checkpoint is left out where it is the
    final model.

    Args:
        run: folder that ``mynah pretrain`` wrote.
        out: where the untrained model is kept, under ``untrained/``.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: not a run, or none of its models is whole.
        OSError: the disk is full.
    """
    from mynah.upstream.core import modelfolder, spec

    if not run.is_dir():
        raise FileNotFoundError(f"no such folder: {run}")
    run = run.absolute()  # a folder may be called as a family is
    iterations = sorted(p for p in run.glob("iteration-*") if p.is_dir())
    if iterations and not (run / "checkpoints").is_dir():
        raise ValueError(
            f"{run} is a run of several iterations, each a run by itself: give one of "
            f"{', '.join(map(str, iterations))}"
        )
    found = spec.candidates(run)
    if not found or found == [run]:
        raise ValueError(
            f"{run} is not the folder of a pretraining run (it has neither checkpoints/ nor "
            "final/): give the --out of 'mynah pretrain'"
        )
    by_step: dict[int, Path] = {}
    for path in reversed(found):  # oldest first; the final model takes the last checkpoint's place
        try:
            modelfolder.verify(path)
        except ValueError as error:
            log.warning("left out: %s", error)
            continue
        known = spec.training(str(path))
        if known is None:
            log.warning("left out: %s does not say after how many steps it is", path)
            continue
        by_step[known[1]] = path
    if not by_step:
        raise ValueError(f"no model of {run} is whole")
    first = untrained(run, out)
    if first is not None:
        by_step.setdefault(0, first)
    return [str(by_step[step]) for step in sorted(by_step)]


def untrained(run: Path, out: Path) -> Path | None:
    """Return the model that a run began with, as a model folder; None where it cannot be made again.

    It cannot where the run learnt from a teacher, from whose weights a model may start, or where
    ``run.json`` is not there.

    Raises:
        ValueError: the run's recipe is damaged, or of a family or setting that is not known.
        OSError: the disk is full.
    """
    from mynah import upstream
    from mynah.recipes.pretrain import build_model
    from mynah.recipes.training import runfolder
    from mynah.recipes.training.config import Recipe
    from mynah.recipes.training.values import TrainConfig
    from mynah.upstream.core import modelfolder

    record: dict[str, Any] | None = runfolder.read(run)
    if record is None:
        log.warning("no untrained model of %s: it has no run.json", run)
        return None
    if "teacher" in record["identity"].get("data", {}):
        log.warning("no untrained model of %s: it may have started from its teacher's weights", run)
        return None
    try:
        values = record["identity"]["recipe"]
        family, variant = values["family"], values["variant"]
        train = TrainConfig(seed=values["train"]["seed"])
        config = modelfolder.config_from(
            upstream.get(family).Config, values["model"], where=run / "run.json"
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{run / 'run.json'} is damaged: {error!r}") from error
    model = build_model(Recipe(family=family, variant=variant, model=config, train=train))
    name = model.fingerprint()[:6]
    folder = out / UNTRAINED / name / run.resolve().name / "checkpoints" / "step-00000000"
    modelfolder.save(model, folder, extra={"step": 0})
    return folder
