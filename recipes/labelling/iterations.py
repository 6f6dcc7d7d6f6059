"""Cluster, predict, cluster what was learnt, predict again: HuBERT's iterations as one run.

RUN/iteration-1/labels/   clusters of MFCC (or of a teacher's hidden state) and a label per frame
RUN/iteration-1/          a run like any other, see runfolder.py
RUN/iteration-2/labels/   clusters of a hidden state of RUN/iteration-1/final
...
RUN/final/                the model of the last iteration

What is there already is kept, so that ``--resume`` goes on in the iteration where a run was stopped,
and more iterations can be added to a finished run.
"""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mynah.files import new_folder, sync_tree, tidy
from mynah.recipes.labelling.make import identity_of, kept, labels_for
from mynah.recipes.labelling.sources import MfccSource, Source, StateSource
from mynah.recipes.labelling.store import INDEX, Labels
from mynah.recipes.pretrain import Args, build_model, run
from mynah.recipes.progress import err
from mynah.recipes.training import runfolder
from mynah.recipes.training.config import Recipe
from mynah.recipes.training.distributed import World
from mynah.recipes.training.material import gather
from mynah.recipes.training.values import LabelsConfig, TrainConfig
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.spec import load

POLL = 2.0  # seconds between two looks for labels that another process makes


def run_iterations(
    args: Args, recipe: Recipe, world: World, stop: Any, teacher: Upstream | None
) -> int:
    """Run every iteration that is not done yet, and return the exit status.

    Raises:
        ValueError, LookupError, FileNotFoundError, OSError: as ``pretrain.main``.
    """
    with ExitStack() as stack:
        runfolder.own(stack, world, args.out)
        return _iterate(args, recipe, world, stop, teacher)


def _iterate(args: Args, recipe: Recipe, world: World, stop: Any, teacher: Upstream | None) -> int:
    last = args.iterations or 1
    for number in range(1, last + 1):
        folder = args.out / f"iteration-{number}"
        now = recipe_of(recipe, number)
        if number == 1:
            source: Source = MfccSource()
            if teacher is not None:
                source = StateSource(teacher, _labels(recipe).layer)
        else:
            before = load(str(args.out / f"iteration-{number - 1}"), device=world.device)
            source = StateSource(before, _labels(recipe).layer, of=f"iteration-{number - 1}")
        if world.first:
            err.print(f"iteration {number} of {last}", markup=False)
        labels = make_labels(args, now, world, folder / "labels", source)
        code = run(replace(args, out=folder), now, world, stop, labels=labels)
        if code:
            return code
    world.from_first(lambda: publish(args.out / f"iteration-{last}" / "final", args.out / "final"))
    return 0


def recipe_of(recipe: Recipe, number: int) -> Recipe:
    """Return the recipe of one iteration: its clusters, and its steps if the first has its own."""
    labels = _labels(recipe)
    train = recipe.train
    if number == 1 and labels.first_steps is not None:
        train = TrainConfig.model_validate({**train.model_dump(), "steps": labels.first_steps})
    model = replace(recipe.model, clusters=labels.clusters_of(number))
    return replace(recipe, model=model, train=train)


def make_labels(args: Args, recipe: Recipe, world: World, folder: Path, source: Source) -> Labels:
    """Return an iteration's labels: the first process makes them, the others wait.

    What is there already is looked at first, so that nobody goes on with labels that are refused.
    Then the others wait for the file, not in a collective operation, whose patience would end
    before the labelling of a large corpus does; if the first process dies, the launcher ends them.

    Raises:
        ValueError: there are labels of something else, or as :func:`labels_for`; of the former
            every process hears.
        BadDataError: audio, a manifest or the labels are damaged.
    """
    from mynah.recipes.errors import BadDataError
    from mynah.tasks.corpora.audio import BadAudioError
    from mynah.tasks.corpora.manifest import ManifestError

    config = _labels(recipe)
    settings: dict[str, Any] = {"clusters": recipe.model.clusters, "seed": recipe.train.seed}
    model = build_model(recipe)
    try:
        material = gather(args.corpus, args.split, recipe.train.min_seconds, speakers=args.speaker)
    except ManifestError as error:
        raise BadDataError(str(error)) from error

    def check() -> None:
        identity = identity_of(model, source, config, **settings, data=material.key)
        if kept(folder, identity) is None:
            tidy(folder)

    world.from_first(check)
    if not world.first:
        while not (folder / INDEX).is_file():
            time.sleep(POLL)
        return Labels(folder)
    try:
        labels = labels_for(
            folder, material.utterances, model, source, config, **settings, data=material.key
        )
    except BadAudioError as error:
        raise BadDataError(str(error)) from error
    err.print(
        f"{labels.clusters} clusters of {source.name}: mean squared distance {labels.inertia:.4g}",
        markup=False,
    )
    return labels


def publish(model: Path, out: Path) -> None:
    """Copy a model folder to where the whole run's result is expected, whole or not at all.

    An older result stays, complete, until the new one is on the disk.
    """
    tidy(out.parent)
    if (out / modelfolder.CONFIG).is_file() and (
        modelfolder.verify(out)["sha256"] == modelfolder.verify(model)["sha256"]
    ):
        return
    with new_folder(out, over=True) as made:
        shutil.copytree(model, made, dirs_exist_ok=True)
        sync_tree(made)


def _labels(recipe: Recipe) -> LabelsConfig:
    assert recipe.labels is not None
    return recipe.labels
