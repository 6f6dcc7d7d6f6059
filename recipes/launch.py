"""``mynah bench --launcher slurm``: the matrix as a Slurm array, a job per upstream and corpus (submitit).

A job is a ``mynah bench`` of its part of the matrix into the same folders, so that nothing has to be
gathered: what one has finished another finds, and the same command again runs only what is missing.
Tasks on one corpus stay in one job, because they share one pass over the audio. Extra ``[cluster]``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mynah.recipes.bench import Args

CLUSTER = "slurm"
FOLDER = "jobs"
HINT = "Slurm jobs need submitit: pip install -c constraints.txt -e '.[cluster]'"


def bench(args: Args, specs: Sequence[str], wanted: Sequence[tuple[str, Path]]) -> int:
    """Run a matrix as jobs, wait, print the table; exit status 1 where a cell is missing or a result bad.

    Args:
        args: of the whole matrix.
        specs: its upstreams.
        wanted: (task, corpus) of it.

    Raises:
        ValueError: as :func:`parse` and :func:`run`.
    """
    from mynah.recipes import table
    from mynah.recipes.progress import console

    options = parse(args.slurm)
    jobs = parts(args, specs, wanted)
    outcomes = run(jobs, args.out / FOLDER, options)
    damaged = table.show_whole(args.out) if args.table else 0
    for job, outcome in zip(jobs, outcomes, strict=True):
        if outcome:
            why = "cells are missing, see its log" if outcome == 1 else outcome
            console.print(f"{job.specs[0]} on {job.corpus[0].name}: {why}", markup=False)
    return 1 if any(outcomes) or damaged else 0


def parts(args: Args, specs: Sequence[str], wanted: Sequence[tuple[str, Path]]) -> list[Args]:
    """Return the arguments of each job, paths absolute, as :func:`bench`."""
    tasks_of: dict[Path, list[str]] = {}
    for task, corpus in wanted:
        tasks_of.setdefault(corpus.absolute(), []).append(task)
    return [
        dataclasses.replace(
            args,
            specs=(spec,),
            checkpoints=(),
            corpus=(corpus,),
            suite=None,
            tasks=tuple(tasks),
            out=args.out.absolute(),
            store=args.store.absolute() if args.store else None,
            lexicon=args.lexicon.absolute() if args.lexicon else None,
            lm=args.lm.absolute() if args.lm else None,
            launcher="here",
            slurm=(),
            table=False,
        )
        for spec in map(absolute, specs)
        for corpus, tasks in tasks_of.items()
    ]


def absolute(spec: str) -> str:
    """Return a spec whose path, if it names one, does not depend on where the job runs."""
    kind, colon, rest = spec.rpartition(":")
    path = Path(rest)
    return f"{kind}{colon}{path.absolute()}" if path.exists() else spec


def parse(options: Sequence[str]) -> dict[str, Any]:
    """Return submitit's parameters of ``KEY=VALUE``; numbers are numbers.

    Names are submitit's (``timeout_min``, ``mem_gb``, ``cpus_per_task``, ``gpus_per_node``) or, with
    ``slurm_`` before them, sbatch's own (``slurm_partition``, ``slurm_array_parallelism``).

    Raises:
        ValueError: not of that form.
    """
    found: dict[str, Any] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise ValueError(f"--slurm wants KEY=VALUE, such as slurm_partition=gpu, got {text!r}")
        found[key] = int(value) if value.lstrip("-").isdigit() else value
    return found


def run(
    jobs: Sequence[Args], folder: Path, options: Mapping[str, Any], *, cluster: str = CLUSTER
) -> list[int | str]:
    """Submit the jobs, wait for all, and return of each its exit status, or why it has none.

    Args:
        jobs: arguments of ``mynah bench``.
        folder: for the jobs' scripts and logs.
        options: submitit's parameters.
        cluster: submitit's name of the executor; ``local`` are processes on this machine.

    Raises:
        ValueError: no submitit, no Slurm here, or a parameter that it does not know.
    """
    try:
        import submitit
    except ImportError as error:
        raise ValueError(HINT) from error
    from mynah.recipes.progress import console, track

    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**options)
        submitted = executor.map_array(work, list(jobs))
    except (RuntimeError, NameError, FileNotFoundError) as error:
        raise ValueError(f"jobs cannot be submitted: {error}") from error
    console.print(f"{len(submitted)} jobs; their logs are in {folder}", markup=False)
    out: list[int | str] = []
    for job in track(submitted, "waiting for jobs", total=len(submitted)):
        try:
            out.append(int(job.result()))
        except Exception as error:  # noqa: BLE001  whatever became of a job costs that job only
            lines = str(error).strip().splitlines() or [type(error).__name__]
            out.append(f"{lines[-1]} (job {job.job_id})")
    return out


def work(args: Args) -> int:
    """Do one job; returns its exit status."""
    from mynah.recipes import bench

    return bench.main(args)
