"""``mynah bench SPEC...``: upstreams x tasks x corpora, resumable.

Each cell is a probe (``mynah probe``). What is there already is kept (``--rerun``), a cell that
fails does not stop the others, and the exit status says whether any cell is missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction

from mynah.recipes.probing.layers import Layers
from mynah.recipes.probing.settings import Features, Rerun, Settings

if TYPE_CHECKING:
    from mynah.recipes.probing.job import Plan
    from mynah.recipes.results import Result
    from mynah.upstream.core.contract import Upstream

TASKS = ("ks", "sid", "er", "pr")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Probe several upstreams on several tasks; what is done already is kept."""

    specs: Annotated[tuple[str, ...], Positional] = ()
    """Upstreams: apc/tiny, run or model folders, hf:DIR, fairseq:FILE, s3prl:NAME ..."""
    checkpoints: tuple[Path, ...] = ()
    """Runs of mynah pretrain: every whole checkpoint, the final model and the untrained one are
    upstreams, so that the table shows scores by step. Pretraining keeps its newest 2 only: give it
    train.keep=100 and, for the distance, train.save_every=50."""
    corpus: tuple[Path, ...] = ()
    """Prepared corpora; every task is done on each. ``mini``: the embedded corpus, made in OUT."""
    suite: Path | None = None
    """Instead of --corpus: a YAML file that says which corpora serve which task (mynah suite)."""
    out: Path
    """Folder of results."""
    tasks: tuple[str, ...] = ()
    """Tasks, separated by spaces or commas; all: every one. Default: ks sid er pr, or the suite's."""
    store: Path | None = None
    """Folder of the feature store; default: OUT/features."""
    protocol: Literal["fixed", "superb"] = "fixed"
    """superb repeats the published benchmark, fixed mends its mistakes."""
    quick: bool = False
    """A first impression: narrow heads, few updates, one or two learning rates (mynah info TASK)."""
    heads: Literal["protocol", "small"] = "protocol"
    """small: narrower heads of the same kind, for small data."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the heads' initial weights, trained at once; one result each."""
    steps: int | None = None
    """Optimiser updates at most per task; default: the protocol's."""
    lrs: tuple[float, ...] | None = None
    """Learning rates, trained at once; default: the protocol's five."""
    features: Features = "auto"
    """What is kept of the upstream; stream: nothing, and tasks on one corpus share its forwards."""
    layers: Layers = "sum"
    """each: a probe for every hidden state by itself, from the same features; a result each."""
    layer_norm: bool = False
    """Layer-norm every frame of every hidden state before the sum (keeps frames; qbe has no sum)."""
    splits: Literal["corpus", "made"] = "corpus"
    """made: ignore the corpora's splits and make disjoint ones."""
    lexicon: Path | None = None
    """pr: pronunciations, for corpora without phones."""
    lm: Path | None = None
    """asr: n-gram language model (ARPA or KenLM) to decode test with."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the upstreams' forward."""
    device: str = "cpu"
    """Where the upstreams run."""
    upstream_seed: int = 0
    """Of random weights, where a spec has no others."""
    rerun: Rerun = "missing"
    """missing: only what is not there or came of something else; always; never."""
    launcher: Literal["here", "slurm"] = "here"
    """slurm: an array of jobs, one per upstream and corpus (extra cluster); the same command again
    runs what is missing."""
    slurm: Annotated[tuple[str, ...], UseAppendAction] = ()
    """KEY=VALUE for the jobs, repeatable: submitit's names, such as timeout_min=120 or
    gpus_per_node=1, and sbatch's after slurm_, such as slurm_partition=gpu."""
    table: bool = True
    """Print the table of all results at the end."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One probe of the matrix, of one hidden state where there is a layer; why it failed if it did."""

    spec: str
    task: str
    corpus: Path
    layer: int | None = None
    error: Exception | None = None

    def __str__(self) -> str:
        layer = "" if self.layer is None else f" layer {self.layer}"
        return f"{self.spec} {self.task} {self.corpus.name}{layer}"


def split_names(given: Sequence[str]) -> list[str]:
    """Return task names given with spaces or commas, each once; ``all`` is every one.

    Raises:
        LookupError: an unknown task.
        ValueError: no task at all.
    """
    from mynah import tasks

    names = [n for text in given for n in text.split(",") if n]
    names = [m for n in names for m in (all_tasks() if n == "all" else [n])]
    names = list(dict.fromkeys(names))
    if not names:
        raise ValueError(f"no tasks; there are {', '.join(tasks.available())}, or all")
    for name in names:
        tasks.get(name)
    return names


def all_tasks() -> list[str]:
    """Return every task that a probe can do."""
    from mynah import tasks

    return [n for n in tasks.available() if tasks.get(n).TASK.PROBED]


def pairs(args: Args) -> list[tuple[str, Path]]:
    """Return (task, corpus) of the matrix.

    Raises:
        ValueError: neither or both of --corpus and --suite, or a task that the suite lacks.
        LookupError: an unknown task.
    """
    if (args.suite is None) == (not args.corpus):
        raise ValueError("give either --corpus DIR ... or --suite FILE")
    if args.suite is None:
        names = split_names(args.tasks or TASKS)
        return [(t, c) for c in dict.fromkeys(args.corpus) for t in names]
    from mynah.recipes.suite import read_suite

    suite = read_suite(args.suite)
    names = split_names(args.tasks or tuple(suite))
    wanted_all = "all" in {n for text in args.tasks for n in text.split(",")}
    lacking = [n for n in names if n not in suite]
    if lacking and not wanted_all:
        raise ValueError(
            f"{args.suite} names no corpus for {', '.join(lacking)}; it has {', '.join(suite)}"
        )
    return [(t, c) for t in names if t in suite for c in suite[t]]


def with_embedded(args: Args) -> Args:
    """Return the arguments with ``--corpus mini`` as a suite, which is made if it is not there."""
    if args.corpus != (Path("mini"),) or args.corpus[0].is_dir():
        return args
    from mynah.recipes import suite

    suite.main(suite.Args(out=args.out / "mini"))
    return dataclasses.replace(args, corpus=(), suite=args.out / "mini" / suite.FILE)


def matrix(specs: Sequence[str], wanted: Sequence[tuple[str, Path]]) -> dict[str, list[Cell]]:
    """Return the cells of each upstream, so that it is loaded once.

    Tasks that need frames come first: their extraction keeps the time means of the others too.
    """
    from mynah import tasks

    def pooled(pair: tuple[str, Path]) -> bool:
        return bool(tasks.get(pair[0]).TASK.SPEC.resolution == "utterance")

    ordered = sorted(wanted, key=pooled)
    return {spec: [Cell(spec=spec, task=t, corpus=c) for t, c in ordered] for spec in specs}


def upstreams(args: Args) -> list[str]:
    """Return the specs of the matrix, those of runs by step.

    Raises:
        ValueError: none, or a folder that is no run.
        LookupError: a name that is no upstream's.
        FileNotFoundError: no such run.
    """
    from mynah.recipes.probing.checkpoints import specs_of
    from mynah.upstream.core.spec import split

    runs = [spec for run in args.checkpoints for spec in specs_of(run, args.out)]
    if not args.specs and not runs:
        raise ValueError("give upstreams (such as fbank or a run folder), or --checkpoints RUN")
    for spec in args.specs:
        split(spec)  # a misspelt name is refused before anything is computed
    return list(dict.fromkeys([*args.specs, *runs]))


def by_layer(args: Args, cells: Sequence[Cell], upstream: Upstream) -> list[Cell]:
    """Return the cells, or each of them once for every hidden state of the upstream."""
    if args.layers == "sum":
        return list(cells)
    return [dataclasses.replace(c, layer=k) for c in cells for k in range(upstream.num_layers)]


def settings_for(args: Args, task: str, layer: int | None = None) -> Settings:
    """Return the settings of one task's probes."""
    from mynah.recipes.probing.profiles import quick

    settings = Settings(
        protocol=args.protocol,
        seeds=args.seeds,
        steps=args.steps,
        learning_rates=args.lrs,
        features=args.features,
        layer=layer,
        layer_norm=args.layer_norm,
        splits=args.splits,
        heads=args.heads,
        lexicon=args.lexicon if task == "pr" else None,
        lm=args.lm if task == "asr" else None,
    )
    return quick(settings, task) if args.quick else settings


def main(args: Args) -> int:
    """Run the matrix and print the table; exit status 1 where a cell is missing or a result damaged.

    Raises:
        ValueError, LookupError, FileNotFoundError: arguments that no cell could be made of.
        OSError: the disk is full.
    """
    from mynah.recipes import table
    from mynah.recipes.errors import of_one_cell
    from mynah.recipes.probe import lines
    from mynah.recipes.probing.spent import cost_of
    from mynah.recipes.progress import console
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.upstream.core import spec as specs
    from mynah.upstream.core.devices import device_for

    args = with_embedded(args)
    wanted = pairs(args)
    for _, folder in wanted:
        Corpus.open(folder)
    if missing := [f for f in (args.lexicon, args.lm) if f is not None and not f.is_file()]:
        raise FileNotFoundError(f"no such file: {missing[0]}")
    if args.launcher == "slurm":
        from mynah.recipes import launch

        return launch.bench(args, upstreams(args), wanted)
    if args.slurm:
        raise ValueError("--slurm is for --launcher slurm")
    device_for(args.device)  # else every cell would fail for it
    cells_of = matrix(upstreams(args), wanted)
    failed: list[Cell] = []
    made: list[Result] = []
    total = sum(map(len, cells_of.values()))
    done = 0
    for spec, cells in cells_of.items():
        try:
            upstream = specs.load(
                spec, precision=args.precision, device=args.device, seed=args.upstream_seed
            )
        except Exception as error:  # noqa: BLE001  raised again where no cell is to blame
            failed += [dataclasses.replace(c, error=of_one_cell(error)) for c in cells]
            done += len(cells)
            console.print(f"{spec} failed: {error}", markup=False)
            continue
        parts = by_layer(args, cells, upstream)
        total += len(parts) - len(cells)
        for group in together(args, parts):
            done += len(group)
            console.print(f"[{done}/{total}] {', '.join(map(str, group))}", markup=False)
            try:
                outcomes = cell_results(args, group, upstream)
            except Exception as error:  # noqa: BLE001  raised again where no cell is to blame
                outcomes = [of_one_cell(error)] * len(group)
            for cell, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    failed.append(dataclasses.replace(cell, error=outcome))
                    console.print(f"{cell} failed: {outcome}", markup=False)
                    continue
                made += outcome
                for line in lines(outcome):
                    console.print(line, markup=False)
                if len(outcome) < len(args.seeds):
                    failed.append(cell)
    damaged = table.show_whole(args.out) if args.table else 0
    if made:
        console.print(cost_of(made), markup=False)
    for cell in failed:
        why = cell.error or "not there, and --rerun never"
        console.print(f"missing: {cell}: {why}", markup=False)
    return 1 if failed or damaged else 0


def together(args: Args, cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells in groups that share forwards: with ``stream`` those of one corpus."""
    if args.features != "stream":
        return [[cell] for cell in cells]
    groups: dict[Path, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.corpus, []).append(cell)
    return list(groups.values())


def cell_results(
    args: Args, cells: Sequence[Cell], upstream: Upstream
) -> list[list[Result] | Exception]:
    """Return the results of some cells of one upstream, or why one failed."""
    from mynah.recipes.errors import of_one_cell
    from mynah.recipes.probing.job import plan, run
    from mynah.recipes.probing.joint import run_together

    def options(cell: Cell) -> dict[str, Any]:
        return {
            "settings": settings_for(args, cell.task, cell.layer),
            "store": args.store,
            "precision": args.precision,
            "device": args.device,
            "upstream_seed": args.upstream_seed,
            "rerun": args.rerun,
            "upstream": upstream,
        }

    if len(cells) == 1:
        cell = cells[0]
        return [run(cell.spec, cell.task, cell.corpus, args.out, **options(cell))]
    plans: list[tuple[int, Plan]] = []
    out: dict[int, list[Result] | Exception] = {}
    for i, cell in enumerate(cells):
        try:
            plans.append((i, plan(cell.spec, cell.task, cell.corpus, args.out, **options(cell))))
        except Exception as error:  # noqa: BLE001
            out[i] = of_one_cell(error)
    for (i, _), outcome in zip(plans, run_together([p for _, p in plans]), strict=True):
        out[i] = outcome
    return [out[i] for i in range(len(cells))]
