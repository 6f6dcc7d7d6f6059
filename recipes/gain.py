"""``mynah gain``: what pretraining buys, family by family.

For each model and seed: pretrain it, then probe the pretrained model and the same model with its
initial weights, the same heads on the same data. Baselines without weights are probed beside them.
What is there already is kept, so the command can be stopped and given again. The table says for
each task both scores and by how much the pretrained one is better, with 95 % intervals over
speakers and seeds.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction

from mynah.files import write_text

APART = 1000  # seeds of the heads of one model: no two models' heads have one seed


@dataclass(frozen=True, kw_only=True)
class Args:
    """Pretrain models with several seeds and compare them with their untrained selves."""

    models: Annotated[tuple[str, ...], Positional]
    """Families and variants, such as apc/tiny; hubert/tiny:2 for two iterations."""
    corpus: Annotated[tuple[Path, ...], UseAppendAction]
    """Prepared corpus to pretrain on; repeatable."""
    probe: Annotated[tuple[str, ...], UseAppendAction]
    """TASK:CORPUS[:STEPS[:RATE]], as pr:data/l2:1500:0.01; without RATE the protocol's grid; repeatable."""
    out: Path
    """Folder: runs/ and results/."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of pretraining, of the untrained weights and of the heads."""
    heads: int = 1
    """Heads on each model, task and seed, which differ in their first weights alone; their mean counts."""
    baselines: tuple[str, ...] = ("fbank", "fbank/cmvn")
    """Specs without weights, probed once per seed."""
    teacher: Annotated[tuple[str, ...], UseAppendAction] = ()
    """MODEL=TEACHER: a model of this list that another learns from, as distilhubert/tiny=hubert/tiny."""
    override: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Recipe value for every model, as train.steps=400; repeatable."""
    layer_norm: bool = False
    """Layer-norm every frame of every layer before the weighted sum: states of whatever scale."""
    jobs: int = 1
    """Processes at a time, one thread each."""
    device: str = "cpu"
    """Where to pretrain: cpu, cuda or cuda:N, shared by the processes; probes run on the CPU."""
    part: Literal["all", "pretrained", "untrained"] = "all"
    """What to do here, where machines share the work: models with weights of ``runs``, or without."""
    table_only: bool = False
    """Compute nothing; print the Markdown table of what is there."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One task on one corpus."""

    task: str
    corpus: Path
    steps: int | None = None
    rate: float | None = None

    @classmethod
    def parse(cls, text: str) -> Probe:
        """Read TASK:CORPUS[:STEPS[:RATE]].

        Raises:
            ValueError: another form.
        """
        task, *rest = text.split(":")
        try:
            if not 1 <= len(rest) <= 3 or not rest[0]:
                raise ValueError("no corpus, or too much")
            return cls(
                task=task,
                corpus=Path(rest[0]),
                steps=int(rest[1]) if rest[1:] else None,
                rate=float(rest[2]) if rest[2:] else None,
            )
        except ValueError as error:
            raise ValueError(f"--probe must be TASK:CORPUS[:STEPS[:RATE]], got {text!r}") from error


def run_folder(args: Args, model: str, seed: int) -> Path:
    """Return the folder of a model's run with one seed."""
    return args.out / "runs" / f"{model.replace('/', '-').replace(':', '-it')}-seed{seed}"


def head_seeds(args: Args, seed: int) -> tuple[int, ...]:
    """Return the seeds of the heads on a model of one seed, its own the first."""
    return tuple(seed + APART * head for head in range(args.heads))


def main(args: Args) -> int:
    """Pretrain, probe, print; exit status 1 if anything is missing.

    Raises:
        ValueError, LookupError: a model, probe, teacher or device that does not exist.
    """
    from mynah.recipes.gain_table import render
    from mynah.recipes.progress import console, err
    from mynah.upstream.core.devices import device_for

    probes = [Probe.parse(text) for text in args.probe]
    teachers = dict(_teachers(args))
    _check(args)
    failed: list[str] = []
    if not args.table_only:
        device_for(args.device)  # else every model would fail for it
        failed = _work(args, probes, teachers)
    for problem in failed:
        err.print(problem, markup=False)
    text, missing = render(args, probes)
    console.print(text, markup=False, soft_wrap=True)
    return 1 if failed or missing else 0


def _work(args: Args, probes: Sequence[Probe], teachers: dict[str, str]) -> list[str]:
    """Do what is missing in processes of their own, each with one thread; return what failed."""
    from mynah.recipes.progress import track

    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        max(1, args.jobs), context, initializer=_settle, initargs=(args.out / "logs" / "worker",)
    )
    failed: list[str] = []
    with pool:
        for taught in (False, True):  # those that learn from others come after them
            models = [m for m in args.models if (m in teachers) == taught]
            work = [
                pool.submit(_one, args, probes, model, teachers.get(model), seed)
                for seed in args.seeds
                for model in models
            ]
            if not taught and args.part != "pretrained":
                work += [
                    pool.submit(_probes, args, probes, spec, seed)
                    for seed in args.seeds
                    for spec in args.baselines
                ]
            for done in track(as_completed(work), "gain", total=len(work)):
                failed += done.result()
    return failed


def _teachers(args: Args) -> Iterator[tuple[str, str]]:
    for text in args.teacher:
        model, equals, teacher = text.partition("=")
        if not equals or model not in args.models or teacher not in args.models:
            raise ValueError(f"--teacher must be MODEL=TEACHER of the models given, got {text!r}")
        yield model, teacher


def _check(args: Args) -> None:
    from mynah import registry, upstream

    if args.models and not (args.corpus or args.table_only or args.part == "untrained"):
        raise ValueError("--corpus is missing: give --corpus DIR, which mynah prepare wrote")
    for model in (*args.models, *args.baselines):
        family, _, variant = model.partition(":")[0].partition("/")
        configs = upstream.get(family).CONFIGS
        if (variant or "base") not in configs:
            raise LookupError(registry.unknown(f"variant of {family!r}:", variant, configs))
    if args.heads < 1:
        raise ValueError(f"heads must be at least 1, got {args.heads}")
    if max(args.seeds, default=0) - min(args.seeds, default=0) >= APART:
        raise ValueError(f"seeds must lie within {APART} of each other, got {list(args.seeds)}")
    if not args.seeds or len(set(args.seeds)) != len(args.seeds):
        raise ValueError(f"seeds must be distinct, at least one; got {list(args.seeds)}")


def _one(
    args: Args, probes: Sequence[Probe], model: str, teacher: str | None, seed: int
) -> list[str]:
    """Pretrain and probe one model with one seed; return what failed."""
    name, _, iterations = model.partition(":")
    run = run_folder(args, model, seed)
    if args.part == "untrained":
        return _probes(args, probes, name, seed)

    def pretrained() -> int:
        from mynah.recipes import pretrain

        began, wall = time.process_time(), time.monotonic()
        code = pretrain.main(
            pretrain.Args(
                model=name,
                overrides=args.override,
                corpus=args.corpus,
                out=run,
                seed=seed,
                resume=True,
                device=args.device,
                iterations=int(iterations) if iterations else None,
                teacher=None if teacher is None else str(run_folder(args, teacher, seed)),
            )
        )
        clock = run / "cpu_seconds.json"
        if not code and not clock.exists():
            spent = {"cpu": time.process_time() - began, "wall": time.monotonic() - wall}
            write_text(clock, json.dumps(spent))
        return code

    if problem := _attempt(f"pretrain {name} seed {seed}", pretrained):
        return [problem]
    failed = _probes(args, probes, str(run), seed)
    return failed if args.part == "pretrained" else failed + _probes(args, probes, name, seed)


def _probes(args: Args, probes: Sequence[Probe], spec: str, seed: int) -> list[str]:
    """Probe an upstream on every task with one seed of weights and heads; return what failed."""

    def probed(probe: Probe) -> int:
        from mynah.recipes.probing import job
        from mynah.recipes.probing.settings import Settings

        job.run(
            spec,
            probe.task,
            probe.corpus,
            args.out / "results",
            settings=Settings(
                seeds=head_seeds(args, seed),
                steps=probe.steps,
                learning_rates=None if probe.rate is None else (probe.rate,),
                layer_norm=args.layer_norm,
            ),
            upstream_seed=seed,
        )
        return 0

    found = [
        _attempt(f"probe {spec} {probe.task} {probe.corpus} seed {seed}", partial(probed, probe))
        for probe in probes
    ]
    return [problem for problem in found if problem]


def _attempt(what: str, work: Callable[[], int]) -> str:
    """Do a piece of work; return what went wrong, if anything."""
    from mynah.recipes.errors import BadDataError, DivergedError

    try:
        code = work()
    except (ValueError, LookupError, OSError, RuntimeError, BadDataError, DivergedError) as error:
        return f"{what}: {error}"
    return f"{what}: exit status {code}" if code else ""


def _settle(log: Path) -> None:
    """Make a worker process use one thread and say what it says in a file."""
    import torch

    torch.set_num_threads(1)
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(
        log.with_name(f"{log.stem}-{os.getpid()}.log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY
    )
    os.dup2(file, 1)
    os.dup2(file, 2)
