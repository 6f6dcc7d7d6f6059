"""``mynah bench SPEC...``: upstreams x tasks x corpora, resumable.

Each cell is a probe (``mynah probe``). What is there already is kept (``--rerun``), a cell that
fails does not stop the others, and the exit status says whether any cell is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from mynah.recipes.probing.settings import Features, Rerun, Settings

log = logging.getLogger(__name__)

TASKS = ("ks", "sid", "er", "pr")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Probe several upstreams on several tasks; what is done already is kept."""

    specs: Annotated[tuple[str, ...], Positional]
    """Upstreams: apc/tiny, run or model folders, hf:DIR, fairseq:FILE, s3prl:NAME ..."""
    corpus: tuple[Path, ...]
    """Prepared corpora; every task is done on each."""
    out: Path
    """Folder of results."""
    tasks: tuple[str, ...] = TASKS
    """Tasks, separated by spaces or commas."""
    store: Path | None = None
    """Folder of the feature store; default: OUT/features."""
    protocol: Literal["fixed", "superb"] = "fixed"
    """superb repeats the published benchmark, fixed mends its mistakes."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the heads' initial weights, trained at once; one result each."""
    steps: int | None = None
    """Optimiser updates at most per task; default: the protocol's."""
    lrs: tuple[float, ...] | None = None
    """Learning rates, trained at once; default: the protocol's five."""
    features: Features = "auto"
    """What is kept of the upstream."""
    splits: Literal["corpus", "made"] = "corpus"
    """made: ignore the corpora's splits and make disjoint ones."""
    lexicon: Path | None = None
    """pr: pronunciations, for corpora without phones."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the upstreams' forward."""
    device: str = "cpu"
    """Where the upstreams run."""
    rerun: Rerun = "missing"
    """missing: only what is not there or came of something else; always; never."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One probe of the matrix, and why it failed if it did."""

    spec: str
    task: str
    corpus: Path
    error: Exception | None = None

    def __str__(self) -> str:
        return f"{self.spec} {self.task} {self.corpus.name}"


def split_names(given: Sequence[str]) -> list[str]:
    """Return task names given with spaces or commas, each once.

    Raises:
        LookupError: an unknown task.
        ValueError: no task at all.
    """
    from mynah import tasks

    names = list(dict.fromkeys(n for text in given for n in text.split(",") if n))
    if not names:
        raise ValueError(f"no tasks; there are {', '.join(tasks.available())}")
    for name in names:
        tasks.get(name)
    return names


def matrix(args: Args) -> Iterator[tuple[str, list[Cell]]]:
    """Yield each upstream with its cells, so that it is loaded once."""
    names = split_names(args.tasks)
    for spec in dict.fromkeys(args.specs):
        yield spec, [Cell(spec=spec, task=t, corpus=c) for c in args.corpus for t in names]


def main(args: Args) -> int:
    """Run the matrix and print the table; exit status 1 where a cell is missing.

    Raises:
        ValueError, LookupError, FileNotFoundError: arguments that no cell could be made of.
        OSError: the disk is full.
    """
    from mynah.recipes.errors import DISK, exit_code
    from mynah.recipes.probe import lines
    from mynah.recipes.probing.job import run
    from mynah.recipes.progress import console
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.upstream.core import spec as specs

    settings = Settings(
        protocol=args.protocol,
        seeds=args.seeds,
        steps=args.steps,
        learning_rates=args.lrs,
        features=args.features,
        splits=args.splits,
    )
    for folder in args.corpus:
        Corpus.open(folder)
    failed: list[Cell] = []
    for spec, cells in matrix(args):
        upstream = None
        for cell in cells:
            own = Settings(
                **{**vars(settings), "lexicon": args.lexicon if cell.task == "pr" else None}
            )
            try:
                if upstream is None:
                    upstream = specs.load(spec, precision=args.precision, device=args.device)
                found = run(
                    spec,
                    cell.task,
                    cell.corpus,
                    args.out,
                    settings=own,
                    store=args.store,
                    precision=args.precision,
                    device=args.device,
                    rerun=args.rerun,
                    upstream=upstream,
                )
            except Exception as error:
                code = exit_code(error)
                if code is None or code == DISK:
                    raise
                failed.append(Cell(spec=spec, task=cell.task, corpus=cell.corpus, error=error))
                console.print(f"{cell} failed: {error}", markup=False)
                continue
            for line in lines(found):
                console.print(line, markup=False)
            if len(found) < len(args.seeds):
                failed.append(cell)
    show(args.out)
    for cell in failed:
        why = cell.error or "not there, and --rerun never"
        console.print(f"missing: {cell}: {why}", markup=False)
    return 1 if failed else 0


def show(folder: Path) -> None:
    """Print the table over a folder of results, if it has any."""
    from mynah.recipes import table

    try:
        table.main(table.Args(results=folder))
    except FileNotFoundError as error:
        log.info("%s", error)
