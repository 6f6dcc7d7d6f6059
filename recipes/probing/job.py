"""One probe from spec to result files. Light to import: what is heavy is imported where it is used."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mynah.recipes.probing.settings import Rerun, Settings, kind_of, numbers, settings_of

if TYPE_CHECKING:
    from mynah.recipes.probing.batches import Source
    from mynah.recipes.probing.train import Trained
    from mynah.recipes.results import Result
    from mynah.tasks.core.contract import Protocol, Task
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.tasks.corpora.utterance import Utterance
    from mynah.upstream.core.contract import Upstream
    from mynah.upstream.store import Reader

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
        )


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
    from mynah.recipes import results
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.upstream.core import spec as specs

    settings = settings or Settings()
    if not settings.seeds or len(set(settings.seeds)) != len(settings.seeds):
        raise ValueError(f"seeds must be distinct, at least one; got {settings.seeds}")
    corpus = Corpus.open(corpus_folder)
    bound = load_task(task, settings, corpus)
    protocol = numbers(bound, settings)
    kind_of(bound, settings)
    name = specs.describe(spec, seed=upstream_seed)
    model = upstream or specs.load(spec, precision=precision, device=device, seed=upstream_seed)
    fingerprint = model.fingerprint()
    job = Job(
        task=bound,
        protocol=protocol,
        upstream=model,
        settings=settings,
        spec=spec,
        name=name if precision == "fp32" else f"{name}-{precision}",
        corpus=corpus.name,
        skipped=corpus.skipped,
        store=store or out / "features",
        out=out,
    )
    same: dict[str, Any] = {
        "fingerprint": fingerprint,
        "corpus_version": corpus.version,
        "task_version": bound.SPEC.version,
        "settings": settings_of(bound, protocol, settings),
    }
    found: dict[int, Result] = {}
    if rerun != "always":
        kept = {seed: kept_result(job.path(seed), same) for seed in settings.seeds}
        found = {seed: result for seed, result in kept.items() if result is not None}
    missing = [seed for seed in settings.seeds if seed not in found]
    if missing and rerun != "never":
        for seed, fields in probe(job, missing).items():
            found[seed] = results.Result(
                upstream=job.name,
                spec=spec,
                upstream_params=sum(p.numel() for p in model.parameters()),
                task=task,
                protocol=settings.protocol,
                corpus=corpus.name,
                seed=seed,
                metric=bound.SPEC.metric,
                higher_is_better=bound.SPEC.higher_is_better,
                command=shlex.join(["mynah", *sys.argv[1:]]),
                **same,
                **fields,
            )
        if model.fingerprint() != fingerprint:
            raise RuntimeError(f"the weights of {spec} changed during its probe: it is not frozen")
        for seed in missing:
            results.save(found[seed], out)
    return [found[seed] for seed in settings.seeds if seed in found]


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


def open_reader(job: Job) -> Reader:
    """Extract what the store lacks of the task's utterances and return a reader over them.

    Training utterances that are seen in crops are extracted as crops only.
    """
    from mynah.recipes.extract import items_of
    from mynah.recipes.progress import track
    from mynah.upstream.store import open_or_extract

    wanted: dict[str, Utterance] = {}
    for train, dev, test in job.task.loaded.folds.values():
        wanted |= {view.id: view for u in train.utterances for view in job.task.views(u)}
        wanted |= {u.id: u for part in (dev, test) for u in part.utterances}
    return open_or_extract(
        job.store,
        job.upstream,
        items_of(list(wanted.values()), job.upstream.sample_rate),
        kind=kind_of(job.task, job.settings),
        progress=track,
    )


def train_folds(job: Job, source: Source, seeds: Sequence[int]) -> dict[str, Trained]:
    """Train every fold with all learning rates and seeds.

    Raises:
        BadDataError: no training utterance of a fold can be used.
    """
    from mynah.downstream.core.sweep import Sweep
    from mynah.recipes.errors import BadDataError
    from mynah.recipes.probing.train import train
    from mynah.recipes.progress import track
    from mynah.tasks.core.contract import DataError

    def bar(items: Iterable[int], description: str, total: int) -> Iterable[int]:
        return track(items, description, total=total)

    folds = {}
    for fold, parts in job.task.loaded.folds.items():
        sweep = Sweep(
            lambda: job.task.head(source.reader.dim),
            layers=source.reader.num_layers,
            learning_rates=job.protocol.learning_rates,
            seeds=seeds,
            layer=job.settings.layer,
            normalize=job.settings.layer_norm,
            clip=job.protocol.clip,
            optimizer=job.protocol.optimizer,
            eps=job.protocol.eps,
            weight_decay=job.protocol.weight_decay,
        )
        label = f"{job.name} {job.task.SPEC.name}{f' fold {fold}' if fold else ''}"
        try:
            folds[fold] = train(
                job.task, job.protocol, parts, source, sweep, track=bar, description=label
            )
        except DataError as error:
            raise BadDataError(f"corpus {job.corpus}: {error}") from error
    return folds


def probe(job: Job, seeds: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Extract, train, choose and score; returns what each seed's result says of that.

    Raises:
        BadDataError: the task cannot be done on this corpus with this upstream.
    """
    from mynah.recipes import results
    from mynah.recipes.errors import BadDataError
    from mynah.recipes.probing import untrained
    from mynah.recipes.probing.batches import Source
    from mynah.recipes.probing.score import (
        confusion_of,
        environment,
        metrics_of,
        write_predictions,
    )
    from mynah.tasks.core.contract import DataError, Facts

    task = job.task
    cpu, wall = time.process_time(), time.monotonic()
    upstream = job.upstream
    facts = Facts(
        dim=upstream.dim,
        layers=upstream.num_layers,
        stride=upstream.stride,
        sample_rate=upstream.sample_rate,
    )
    try:
        task.bind(facts)
        with open_reader(job) as reader:
            extract = results.Cost(cpu=time.process_time() - cpu, wall=time.monotonic() - wall)
            if reader.choice:
                log.info("%s: %s", task.SPEC.name, reader.choice)
            frames = task.SPEC.resolution == "frame" or job.settings.layer_norm
            heads = len(seeds) * len(job.protocol.learning_rates)
            source = Source(reader, pooled=not frames, heads=heads)
            if task.TRAINED:
                found = _trained(job, source, seeds)
            else:
                fields = untrained.solve(job, source)
                found = {seed: dict(fields) for seed in seeds}
            forwards = source.read if reader.kind == "stream" else reader.stats.computed
    except DataError as error:
        raise BadDataError(f"corpus {job.corpus}: {error}") from error
    splits = list(zip(*task.loaded.folds.values(), strict=True))
    for seed, fields in found.items():
        scored = fields.pop("scored")
        predictions = job.path(seed).with_suffix(".tsv")
        write_predictions(predictions, scored)
        fields |= {
            "metrics": metrics_of(task, scored),
            "classes": task.loaded.classes,
            "confusion": confusion_of(task, scored),
            "n_train": sum(len(s.utterances) for s in splits[0]),
            "n_dev": sum(len(s.utterances) for s in splits[1]),
            "n_test": sum(len(s.utterances) for s in splits[2]),
            "skipped": {**job.skipped, **task.loaded.skipped, **fields.pop("skipped", {})},
            "features": reader.kind,
            "forwards": forwards,
            "costs": {"extract": extract, **fields["costs"]},
            "environment": environment(str(job.upstream.device)),
            "predictions": predictions.name,
        }
    return found


def _trained(job: Job, source: Source, seeds: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Train heads, choose and score one per seed, and keep what they need to be used again."""
    from mynah.recipes import results
    from mynah.recipes.probing import score, trained
    from mynah.recipes.probing.choose import choose

    task = job.task
    folds = train_folds(job, source, seeds)
    train = results.Cost(
        cpu=sum(f.cpu for f in folds.values()), wall=sum(f.wall for f in folds.values())
    )
    out: dict[int, dict[str, Any]] = {}
    for seed in seeds:
        chosen = choose(folds, seed, higher=task.SPEC.higher_is_better)
        scored = score.score_test(task, folds, chosen, source)
        embeddings = job.path(seed).with_suffix(".npz")
        score.write_embeddings(embeddings, scored, source)
        sweep = next(iter(folds.values())).sweep
        out[seed] = {
            "scored": scored,
            "choices": tuple(
                results.Choice(
                    fold=name,
                    learning_rate=sweep.grid[best.evaluation.head][1],
                    step=best.evaluation.step,
                    dev=best.evaluation.dev or 0.0,
                )
                for name, best in chosen.items()
            ),
            "sweep": score.points_of(folds, seed),
            "layer_weights": tuple(score.mean_weights(scored)),
            "skipped": {k: why for fold in folds.values() for k, why in fold.skipped.items()},
            "head_params": sweep.num_params,
            "steps": sum(f.steps for f in folds.values()),
            "passes": sum(f.passes for f in folds.values()) / len(folds),
            "costs": {
                "train": train,
                "score": results.Cost(cpu=scored.cpu, wall=scored.wall),
            },
            "embeddings": embeddings.name,
            "heads": {
                name: trained.save(job, folds[name].sweep.probe(best.state), seed, name).name
                for name, best in chosen.items()
            },
        }
    return out
