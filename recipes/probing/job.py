"""One probe from spec to result files. Light to import: what is heavy is imported where it is used."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mynah.recipes.probing.settings import Rerun, Settings, kind_of, numbers, settings_of

if TYPE_CHECKING:
    from mynah.recipes.results import Result
    from mynah.tasks.core.contract import Protocol, Task
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.upstream.core.contract import Upstream

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A probe whose task is loaded.

    Attributes:
        task: bound to the corpus.
        protocol: its numbers, as asked for.
        upstream: frozen.
        settings: what was asked for.
        spec: of the upstream, as it was given.
        name: short id of the upstream.
        trained: the run that it is of and after how many steps, where known.
        corpus: name of the corpus.
        skipped: what its preparation had to leave out, id -> reason.
        store: folder of the feature store.
        out: folder of results.
    """

    task: Task
    protocol: Protocol
    upstream: Upstream
    settings: Settings
    spec: str
    name: str
    trained: tuple[str, int] | None
    corpus: str
    skipped: Mapping[str, str]
    store: Path
    out: Path

    def path(self, seed: int) -> Path:
        """Return where the result of a seed is kept."""
        from mynah.recipes import results

        return results.path_of(
            self.out,
            upstream=self.name,
            task=self.task.SPEC.name,
            protocol=self.settings.protocol,
            corpus=self.corpus,
            seed=seed,
            settings=settings_of(self.task, self.protocol, self.settings),
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A probe, what is there of it already, and what is to be done.

    Attributes:
        job: the probe.
        same: what a result must share with this request to be kept.
        found: results by seed that are there.
        missing: seeds to do.
    """

    job: Job
    same: dict[str, Any]
    found: dict[int, Result]
    missing: list[int]


def plan(
    spec: str,
    task: str,
    corpus_folder: Path,
    out: Path,
    *,
    settings: Settings | None = None,
    store: Path | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str = "cpu",
    upstream_seed: int = 0,
    rerun: Rerun = "missing",
    upstream: Upstream | None = None,
) -> Plan:
    """Load what a probe needs and see what of it is there; the arguments are those of :func:`run`.

    Raises:
        LookupError, ValueError, FileNotFoundError, BadDataError: as :func:`run`.
    """
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.upstream.core import spec as specs

    settings = settings or Settings()
    if not settings.seeds or len(set(settings.seeds)) != len(settings.seeds):
        raise ValueError(f"seeds must be distinct, at least one; got {settings.seeds}")
    corpus = Corpus.open(corpus_folder)
    bound = load_task(task, settings, corpus)
    protocol = numbers(bound, settings)
    kind_of(bound, settings)
    model = upstream or specs.load(spec, precision=precision, device=device, seed=upstream_seed)
    # Asked now and of the model that was loaded: a run in training has another one after the probe.
    source = model.source or spec
    name = specs.describe(source, seed=upstream_seed)
    job = Job(
        task=bound,
        protocol=protocol,
        upstream=model,
        settings=settings,
        spec=spec,
        name=name if precision == "fp32" else f"{name}-{precision}",
        trained=specs.training(source),
        corpus=corpus.name,
        skipped=corpus.skipped,
        store=store or out / "features",
        out=out,
    )
    same: dict[str, Any] = {
        "fingerprint": model.fingerprint(),
        "corpus_version": corpus.version,
        "task_version": bound.SPEC.version,
        "settings": settings_of(bound, protocol, settings),
    }
    found: dict[int, Result] = {}
    if rerun != "always":
        kept = {seed: kept_result(job.path(seed), same) for seed in settings.seeds}
        found = {seed: result for seed, result in kept.items() if result is not None}
    missing = [seed for seed in settings.seeds if seed not in found and rerun != "never"]
    return Plan(job=job, same=same, found=found, missing=missing)


def keep(plan: Plan, fields: Mapping[int, Mapping[str, Any]]) -> list[Result]:
    """Write the results of what was missing; returns one result per seed that there is.

    Raises:
        RuntimeError: the upstream's weights changed meanwhile.
    """
    from mynah.recipes import results
    from mynah.recipes.costs.superb import counted

    job, found = plan.job, dict(plan.found)
    spec = job.task.SPEC
    macs = counted(job.upstream, plan.same["fingerprint"]) if fields else None
    run, step = job.trained or (None, None)
    for seed, given in fields.items():
        found[seed] = results.Result(
            upstream=job.name,
            spec=job.spec,
            upstream_params=sum(p.numel() for p in job.upstream.parameters()),
            upstream_stride_ms=1000 * job.upstream.stride / job.upstream.sample_rate,
            upstream_macs=macs.per_second if macs else None,
            upstream_macs_total=macs.total if macs else None,
            upstream_macs_buckets=macs.buckets if macs else {},
            upstream_run=run,
            upstream_step=step,
            task=spec.name,
            protocol=job.settings.protocol,
            corpus=job.corpus,
            seed=seed,
            metric=spec.metric,
            higher_is_better=spec.higher_is_better,
            command=shlex.join(["mynah", *sys.argv[1:]]),
            **plan.same,
            **given,
        )
    if job.upstream.fingerprint() != plan.same["fingerprint"]:
        raise RuntimeError(f"the weights of {job.spec} changed during its probe: it is not frozen")
    for seed in fields:
        results.save(found[seed], job.out)
    return [found[seed] for seed in job.settings.seeds if seed in found]


def run(
    spec: str,
    task: str,
    corpus_folder: Path,
    out: Path,
    *,
    settings: Settings | None = None,
    store: Path | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str = "cpu",
    upstream_seed: int = 0,
    rerun: Rerun = "missing",
    upstream: Upstream | None = None,
) -> list[Result]:
    """Probe one upstream on one task; returns one result per seed, each also written to ``out``.

    Args:
        spec: of the upstream.
        task: name of the task.
        corpus_folder: a prepared corpus.
        out: folder of results.
        settings: what decides the number.
        store: folder of the feature store, ``out/features`` by default.
        precision: of the upstream's forward.
        device: where the upstream runs.
        upstream_seed: of random weights.
        rerun: ``missing`` keeps results that came of the same upstream, corpus, task version and
            settings; ``always`` makes them again; ``never`` makes none and returns what is there.
        upstream: the loaded upstream, where the caller has it.

    Raises:
        LookupError, ValueError, FileNotFoundError: no such task, upstream or corpus, or settings
            that do not go together.
        BadDataError: the corpus cannot serve the task.
        DivergedError: every learning rate of a seed diverged.
        RuntimeError: the upstream's weights changed.
    """
    from mynah.recipes.probing.stages import probe

    planned = plan(
        spec,
        task,
        corpus_folder,
        out,
        settings=settings,
        store=store,
        precision=precision,
        device=device,
        upstream_seed=upstream_seed,
        rerun=rerun,
        upstream=upstream,
    )
    return keep(planned, probe(planned.job, planned.missing) if planned.missing else {})


def load_task(name: str, settings: Settings, corpus: Corpus) -> Task:
    """Return the task with the corpus loaded.

    Raises:
        BadDataError: the corpus cannot serve the task.
    """
    from mynah import tasks
    from mynah.recipes.errors import BadDataError
    from mynah.tasks.core.contract import DataError

    try:
        task: Task = tasks.get(name).TASK(
            settings.protocol,
            splits=settings.splits,
            lexicon=settings.lexicon,
            lm=settings.lm,
            heads=settings.heads,
        )
        if task.USES_TRIALS:
            task.take_trials(corpus.trials())
        data = task.load(corpus.utterances())
    except DataError as error:
        raise BadDataError(f"corpus {corpus.name}: {error}") from error
    for note in data.notes:
        log.info("%s: %s", name, note)
    return task


def kept_result(path: Path, same: dict[str, Any]) -> Result | None:
    """Return the result at a path if it came of what is asked for now, None otherwise."""
    from mynah.recipes import results

    if not path.is_file():
        return None
    try:
        result = results.load(path)
    except ValueError as error:
        log.warning("%s; it is not used", error)
        return None
    differs = [name for name, value in same.items() if getattr(result, name) != value]
    if differs:
        log.warning("%s came of another %s; it is not used", path, ", ".join(differs))
        return None
    return result
