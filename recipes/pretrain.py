"""``mynah pretrain FAMILY/VARIANT --corpus DIR --out RUN``: learn from unlabelled audio."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction

from mynah.recipes.training.material import Material, fetch_speakers, gather, look_at, usable

if TYPE_CHECKING:
    from mynah.recipes.labelling.store import Labels
    from mynah.recipes.training.config import Recipe
    from mynah.recipes.training.distributed import World
    from mynah.upstream.core.contract import Upstream

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Args:
    """Pretrain an upstream on the audio of prepared corpora.

    Values come from the variant's own recipe, then --config, then key.sub=value arguments, then the
    options here. Start it with torchrun to use several processes. Exit status 75 (130 for Ctrl-C)
    means: stopped after a checkpoint, run it again with --resume; torchrun reports it as 1.
    """

    model: Annotated[str, Positional]
    """Family and variant, such as apc/tiny; base where none is named."""
    overrides: Annotated[tuple[str, ...], Positional] = ()
    """Recipe values, such as train.lr=1e-3 model.dropout=0.2; `mynah info MODEL` lists them all."""
    corpus: Annotated[tuple[Path, ...], UseAppendAction]
    """Folder of a prepared corpus."""
    out: Path
    """Folder of the run."""
    split: str | None = None
    """Split to train on, or all; by default train, or all of a corpus that names no splits."""
    config: Path | None = None
    """YAML file with values of 'model' and 'train' to change."""
    steps: int | None = None
    """Optimiser steps (train.steps)."""
    minutes: float | None = None
    """Checkpoint and stop after this time, with status 75; schedules depend on the steps alone."""
    resume: bool = False
    """Go on from the newest whole checkpoint, if there is one."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["fp32", "bf16"] | None = None
    """Arithmetic of the forward pass (train.precision)."""
    seed: int | None = None
    """Of weights, order, crops, masks and dropout (train.seed)."""
    teacher: str | None = None
    """Upstream to learn from (any spec): what distilhubert imitates, what code_bert reads codes from,
    what a first iteration of hubert clusters instead of MFCC, what a voice converter listens through."""
    speaker: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Train on this speaker alone; repeatable. Voice converters to one target need it."""
    iterations: int | None = None
    """hubert: rounds of clustering and masked prediction; each clusters what the last one learnt."""


def build_model(recipe: Recipe, teacher: Upstream | None = None) -> Upstream:
    """Return the recipe's model with random weights drawn from its seed.

    Args:
        recipe: its model's config fits the teacher.
        teacher: what the model learns from, if anything.

    Raises:
        ValueError: settings that it cannot have, no weights to train, or it does not fit the teacher.
    """
    import torch

    from mynah import upstream
    from mynah.recipes.training.config import blaming
    from mynah.recipes.training.optim import trainable

    kinds = (ValueError, RuntimeError, TypeError, ZeroDivisionError)  # of torch and of our parts
    with torch.random.fork_rng(devices=[]), blaming(recipe, *kinds):
        torch.manual_seed(recipe.train.seed)
        model: Upstream = upstream.get(recipe.family).MODEL(recipe.model)
    if not trainable(model):
        raise ValueError(
            f"{recipe.family} has no weights to train: use it as it is (mynah probe "
            f"{recipe.family} ...) or pretrain another family (mynah list)"
        )
    if teacher is not None:
        model.take_teacher(teacher)
    return model


def fetch_teacher(args: Args, recipe: Recipe, device: Any) -> tuple[Recipe, Upstream | None]:
    """Return the recipe that fits the teacher, and the frozen teacher.

    Raises:
        ValueError: the family needs a teacher and none is given, or takes none.
    """
    from mynah import upstream
    from mynah.upstream.core.spec import load, split, untrained

    family = upstream.get(recipe.family).MODEL
    if args.teacher is None:
        if family.needs_teacher:
            raise ValueError(
                f"{recipe.family} learns from another upstream: give --teacher SPEC, such as a run "
                "folder or hf:DIR"
            )
        return recipe, None
    if not (family.needs_teacher or family.needs_labels or family.takes_teacher):
        raise ValueError(f"{recipe.family} learns from audio alone: leave out --teacher")
    if split(args.teacher)[0] == "family" and untrained(args.teacher):  # load warns of others
        log.warning(
            "the teacher %s is untrained, with random weights of seed 0: give a run folder or "
            "hf:DIR to learn from a trained one",
            args.teacher,
        )
    teacher = load(args.teacher, device=device)
    if family.needs_teacher or family.takes_teacher:
        model = family.adopt_config(recipe.model, teacher)
        if family.takes_teacher:
            model = replace(model, upstream=args.teacher)
        recipe = replace(recipe, model=model)
    return recipe, teacher


def main(args: Args) -> int:
    """Pretrain, and return the exit status.

    Raises:
        ValueError, LookupError, FileNotFoundError: a setting, a corpus or the run folder is not
            usable; the message says how to mend it.
        BadDataError: audio, a manifest or every checkpoint is damaged.
        DivergedError: the loss stayed non-finite.
        OSError: the disk is full.
    """
    from mynah import upstream
    from mynah.recipes.progress import err
    from mynah.recipes.training import config, distributed
    from mynah.recipes.training.stopping import Stop

    if not args.corpus:
        raise ValueError("--corpus is missing: give --corpus DIR, which mynah prepare wrote")
    recipe = config.load(
        args.model,
        file=args.config,
        overrides=args.overrides,
        steps=args.steps,
        precision=args.precision,
        seed=args.seed,
    )
    if args.minutes is not None and not 0 < args.minutes < float("inf"):
        raise ValueError(f"--minutes must be above 0, got {args.minutes}")
    if args.iterations is not None and (recipe.labels is None or args.iterations < 1):
        raise ValueError(
            f"--iterations must be 1 or more, got {args.iterations}"
            if recipe.labels
            else f"{recipe.family} predicts no labels: leave out --iterations"
        )
    with Stop(args.minutes) as stop, distributed.world(args.device) as world:
        if world.first and not args.model.partition("/")[2]:
            others = sorted(upstream.get(recipe.family).CONFIGS.keys() - {recipe.variant})
            err.print(
                f"{args.model} names no variant: {recipe.family}/{recipe.variant} is trained"
                + (f"; there are {', '.join(others)} as well" if others else ""),
                markup=False,
            )
        recipe, teacher = fetch_teacher(args, recipe, world.device)
        if recipe.labels is not None:
            from mynah.recipes.labelling.iterations import run_iterations

            return run_iterations(args, recipe, world, stop, teacher)
        return run(args, recipe, world, stop, teacher=teacher)


def run(
    args: Args,
    recipe: Recipe,
    world: World,
    stop: Any,
    *,
    teacher: Upstream | None = None,
    labels: Labels | None = None,
) -> int:
    """Pretrain as one process of a world; see ``main``.

    Args:
        args: of the command line.
        recipe: resolved.
        world: this process among its peers.
        stop: says when to leave.
        teacher: given to the model.
        labels: given with each batch.
    """
    from contextlib import ExitStack

    import torch

    from mynah.recipes.errors import BadDataError
    from mynah.recipes.progress import err
    from mynah.recipes.training import loop, runfolder
    from mynah.recipes.training.config import blaming
    from mynah.recipes.training.data import AudioStream
    from mynah.recipes.training.distributed import hardware
    from mynah.tasks.corpora.audio import BadAudioError
    from mynah.tasks.corpora.manifest import ManifestError

    def say(text: str) -> None:
        if world.first:
            err.print(text, markup=False)

    with ExitStack() as stack:
        runfolder.own(stack, world, args.out)
        try:
            material = gather(
                args.corpus, args.split, recipe.train.min_seconds, speakers=args.speaker
            )
            recipe, speakers = fetch_speakers(recipe, material)
            model = build_model(recipe, teacher)
            material, useless = usable(model, material, recipe.train)
            key = dict(material.key)
            if teacher is not None:
                key["teacher"] = teacher.fingerprint()
            if labels is not None:
                key["labels"] = labels.identity
            identity = runfolder.identity(
                recipe,
                key,
                hardware=hardware(world.device),
                threads=torch.get_num_threads(),
                world_size=world.size,
            )
            action, resume_from, warnings = world.from_first(
                lambda: runfolder.prepare(args.out, identity, resume=args.resume)
            )
            for warning in warnings:
                say(warning)
            if action == "done":
                say(f"{args.out} is finished already: {args.out / 'final'}")
                return 0
            step = int(resume_from.name.partition("-")[2]) if resume_from else 0
            if world.first:
                runfolder.start(args.out, recipe, identity, material.details, step)
            if not resume_from:
                look_at(model, material)
            if useless:
                say(
                    f"{useless} utterances of fewer than {model.least_frames} frames are left out: "
                    f"{recipe.family} has no use for them"
                )
            for line in summary(recipe, model, material, world, step):
                say(line)
            stack.enter_context(blaming(recipe, ValueError))  # a mask of no frames, say
            outcome = loop.train(
                model.to(world.device),
                recipe.train,
                AudioStream(
                    material.utterances,
                    recipe.train,
                    sample_rate=model.sample_rate,
                    labels=None if labels is None else labels.stretches(model.num_frames),
                    grid=1 if labels is None else labels.stride,
                    speakers=speakers,
                    least=model.least_items,
                ),
                world=world,
                stop=stop,
                folder=args.out,
                identity=identity,
                resume_from=resume_from,
            )
        except (BadAudioError, ManifestError) as error:
            raise BadDataError(str(error)) from error
    if outcome.code:
        say(
            f"stopped by {outcome.reason or 'another process'} after step {outcome.step} of "
            f"{recipe.train.steps}; a checkpoint is written, --resume goes on"
        )
        return outcome.code
    say(f"done: {args.out / 'final'}")
    return 0


def summary(
    recipe: Recipe, model: Upstream, material: Material, world: World, step: int
) -> list[str]:
    """Return what a run is about to do, in lines for people."""
    lines = [
        f"{entry['corpus']} ({entry['split']}): {entry['utterances']} utterances, "
        f"{entry['hours']:.2f} h, {entry['speakers']} speakers; {entry['too_short']} too short, "
        f"{entry['unusable']} unusable left out"
        for entry in material.details["corpora"]
    ]
    train = recipe.train
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    each = train.batch_seconds * train.accumulate * world.size
    lines.append(
        f"{recipe.family}/{recipe.variant}: {size:,} parameters, {train.steps} steps of at most "
        f"{each:g} s, {train.precision}, {world.size} x {world.device}"
        + (f", from step {step}" if step else "")
    )
    return lines
