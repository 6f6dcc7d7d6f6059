"""The stages of a probe: features, heads, choice, scores. Light to import."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mynah.recipes.probing.settings import kind_of

if TYPE_CHECKING:
    from mynah.recipes.probing.batches import Source
    from mynah.recipes.probing.job import Job
    from mynah.recipes.probing.train import Trained
    from mynah.recipes.results import Cost
    from mynah.tasks.core.contract import Facts
    from mynah.tasks.corpora.utterance import Utterance
    from mynah.upstream.core.contract import Upstream
    from mynah.upstream.store import Reader

log = logging.getLogger(__name__)


def utterances_of(job: Job) -> dict[str, Utterance]:
    """Return by id what the task needs features of.

    Training utterances that are seen in crops are there as crops only.
    """
    wanted: dict[str, Utterance] = {}
    for train, dev, test in job.task.loaded.folds.values():
        wanted |= {view.id: view for u in train.utterances for view in job.task.views(u)}
        wanted |= {u.id: u for part in (dev, test) for u in part.utterances}
    return wanted


def open_reader(job: Job) -> Reader:
    """Extract what the store lacks of the task's utterances and return a reader over them."""
    from mynah.recipes.extract import items_of
    from mynah.recipes.progress import track
    from mynah.upstream.store import open_or_extract

    return open_or_extract(
        job.store,
        job.upstream,
        items_of(list(utterances_of(job).values()), job.upstream.sample_rate),
        kind=kind_of(job.task, job.settings),
        progress=track,
    )


def start_folds(
    job: Job, source: Source, seeds: Sequence[int], *, quiet: bool = False
) -> dict[str, tuple[Trained, Iterator[float]]]:
    """Return, for each fold, its heads (all learning rates and seeds) and their training to come.

    Args:
        job: whose task is bound.
        source: of features.
        seeds: of heads.
        quiet: show no progress of each.
    """
    from mynah.downstream.core.sweep import Sweep
    from mynah.recipes.probing.train import Trained, training
    from mynah.recipes.progress import track

    def bar(items: Iterable[int], description: str, total: int) -> Iterable[int]:
        return items if quiet else track(items, description, total=total)

    found = {}
    for fold, parts in job.task.loaded.folds.items():
        done = Trained(
            sweep=Sweep(
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
        )
        label = f"{job.name} {job.task.SPEC.name}{f' fold {fold}' if fold else ''}"
        steps = training(job.task, job.protocol, parts, source, done, track=bar, description=label)
        found[fold] = (done, steps)
    return found


def make_source(job: Job, reader: Reader, seeds: Sequence[int]) -> Source:
    """Return what gives the task's heads their features."""
    from mynah.recipes.probing.batches import Source

    frames = job.task.SPEC.resolution == "frame" or job.settings.layer_norm
    heads = len(seeds) * len(job.protocol.learning_rates)
    return Source(reader, pooled=not frames, heads=heads)


def facts_of(upstream: Upstream) -> Facts:
    """Return what a task may know of an upstream."""
    from mynah.tasks.core.contract import Facts

    return Facts(
        dim=upstream.dim,
        layers=upstream.num_layers,
        stride=upstream.stride,
        sample_rate=upstream.sample_rate,
    )


def probe(job: Job, seeds: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Extract, train, choose and score; returns what each seed's result says of that.

    Raises:
        BadDataError: the task cannot be done on this corpus with this upstream.
    """
    from mynah.recipes import results
    from mynah.recipes.errors import BadDataError
    from mynah.recipes.probing import untrained
    from mynah.tasks.core.contract import DataError

    task = job.task
    cpu, wall = time.process_time(), time.monotonic()
    try:
        task.bind(facts_of(job.upstream))
        with open_reader(job) as reader:
            extract = results.Cost(cpu=time.process_time() - cpu, wall=time.monotonic() - wall)
            if reader.choice:
                log.info("%s: %s", task.SPEC.name, reader.choice)
            source = make_source(job, reader, seeds)
            if task.TRAINED:
                folds = {}
                for fold, (done, steps) in start_folds(job, source, seeds).items():
                    for _ in steps:
                        pass
                    folds[fold] = done
                found = finish_trained(job, source, folds, seeds)
            else:
                fields = untrained.solve(job, source)
                found = {seed: dict(fields) for seed in seeds}
            return complete(job, reader, extract, found)
    except DataError as error:
        raise BadDataError(f"corpus {job.corpus}: {error}") from error


def complete(
    job: Job,
    reader: Reader,
    extract: Cost,
    found: Mapping[int, dict[str, Any]],
    *,
    shared_with: Sequence[str] = (),
) -> dict[int, dict[str, Any]]:
    """Return the fields of each seed's result, and write its predictions.

    Args:
        job: what was asked for.
        reader: where its features came from.
        extract: what extraction cost.
        found: seed -> what :func:`finish_trained` or ``untrained.solve`` gave.
        shared_with: tasks that shared the reader's forwards.
    """
    from mynah.recipes.probing.score import (
        confusion_of,
        environment,
        metrics_of,
        write_predictions,
    )

    task = job.task
    splits = list(zip(*task.loaded.folds.values(), strict=True))
    out = {}
    for seed, given in found.items():
        fields = dict(given)
        scored = fields.pop("scored")
        predictions = job.path(seed).with_suffix(".tsv")
        write_predictions(predictions, scored)
        out[seed] = fields | {
            "metrics": metrics_of(task, scored),
            "classes": task.loaded.classes,
            "confusion": confusion_of(task, scored),
            "n_train": sum(len(s.utterances) for s in splits[0]),
            "n_dev": sum(len(s.utterances) for s in splits[1]),
            "n_test": sum(len(s.utterances) for s in splits[2]),
            "skipped": {**job.skipped, **task.loaded.skipped, **fields.get("skipped", {})},
            "features": reader.kind,
            "forwards": reader.stats.computed,
            "shared_with": tuple(shared_with),
            "costs": {"extract": extract, **fields["costs"]},
            "environment": environment(str(job.upstream.device)),
            "predictions": predictions.name,
        }
    return out


def finish_trained(
    job: Job, source: Source, folds: Mapping[str, Trained], seeds: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """Choose and score one head per seed, and keep what it needs to be used again."""
    from mynah.recipes import results
    from mynah.recipes.probing import score, trained
    from mynah.recipes.probing.choose import choose

    task = job.task
    train = results.Cost(
        cpu=sum(f.cpu for f in folds.values()), wall=sum(f.wall for f in folds.values())
    )
    out: dict[int, dict[str, Any]] = {}
    for seed in seeds:
        chosen = choose(folds, seed, higher=task.SPEC.higher_is_better)
        scored = score.score_test(task, folds, chosen, source)
        embeddings = job.path(seed).with_suffix(".npz")
        kept = score.write_embeddings(embeddings, scored, source)
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
            "embeddings": embeddings.name if kept else None,
            "heads": {
                name: trained.save(job, folds[name].sweep.probe(best.state), seed, name).name
                for name, best in chosen.items()
            },
        }
    return out
