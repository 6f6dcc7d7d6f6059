"""Several tasks on one corpus from the same forwards, where no features are kept.

Each task's heads are trained as they would be alone: the same batches, the same updates, so the
same scores. They take turns, the task that has heard least goes on, and the features of the latest
utterances stay in memory. Tasks that train on the same utterances ask for them at about the same
time, and so an epoch costs one forward of each utterance and not one per task.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mynah.recipes.errors import of_one_cell
from mynah.recipes.probing.job import Plan, keep
from mynah.recipes.probing.stages import facts_of

if TYPE_CHECKING:
    from mynah.recipes.probing.train import Trained
    from mynah.recipes.results import Result
    from mynah.upstream.store import Reader

log = logging.getLogger(__name__)

MEMORY = 1 << 30  # bytes of features in memory


def run_together(plans: Sequence[Plan], *, memory: int = MEMORY) -> list[list[Result] | Exception]:
    """Train and score what is missing of several probes of one upstream on one corpus.

    Args:
        plans: of the same upstream and corpus.
        memory: bytes of features that are kept in memory.

    Returns:
        for each plan its results, or why it failed; what failed does not stop the others.

    Raises:
        ValueError: plans of different upstreams or corpora.
        OSError: the disk is full.
    """
    if len({(p.same["fingerprint"], p.same["corpus_version"]) for p in plans}) > 1:
        raise ValueError("only probes of one upstream on one corpus can share its forwards")
    todo = [i for i, p in enumerate(plans) if p.missing]
    out: dict[int, list[Result] | Exception] = {
        i: keep(p, {}) for i, p in enumerate(plans) if not p.missing
    }
    for i in todo:  # first: a task may cut its utterances to what the upstream makes of them
        try:
            plans[i].job.task.bind(facts_of(plans[i].job.upstream))
        except Exception as error:  # noqa: BLE001  raised again where no task is to blame
            out[i] = _failure(plans[i], error)
    todo = [i for i in todo if i not in out]
    if todo:
        with _reader([plans[i] for i in todo], memory) as reader:
            _work(plans, todo, reader, out)
    return [out[i] for i in range(len(plans))]


def _failure(plan: Plan, error: Exception) -> Exception:
    """Note and return an error that is a task's own; raise any other."""
    of_one_cell(error)
    log.warning("%s: %s", plan.job.task.SPEC.name, error)
    return error


def _reader(plans: Sequence[Plan], memory: int) -> Reader:
    from mynah.recipes.extract import items_of
    from mynah.recipes.probing.stages import utterances_of
    from mynah.upstream.store import open_or_extract

    job = plans[0].job
    wanted = {name: u for p in plans for name, u in utterances_of(p.job).items()}
    return open_or_extract(
        job.store,
        job.upstream,
        items_of(list(wanted.values()), job.upstream.sample_rate),
        kind="stream",
        memory=memory,
    )


def _work(
    plans: Sequence[Plan],
    todo: Sequence[int],
    reader: Reader,
    out: dict[int, list[Result] | Exception],
) -> None:
    """Train all, then score one after another."""
    from mynah.recipes.probing import stages, untrained
    from mynah.recipes.results import Cost

    names = {i: plans[i].job.task.SPEC.name for i in todo}
    folds: dict[int, dict[str, tuple[Trained, Iterator[float]]]] = {}

    for i in todo:
        job = plans[i].job
        try:
            source = stages.make_source(job, reader, plans[i].missing)
            if job.task.TRAINED:
                folds[i] = stages.start_folds(job, source, plans[i].missing, quiet=True)
        except Exception as error:  # noqa: BLE001  raised again where no task is to blame
            out[i] = _failure(plans[i], error)
    for i, broken in _take_turns(folds):
        out[i] = _failure(plans[i], broken)
    for i in todo:
        if i in out:
            continue
        job, seeds = plans[i].job, plans[i].missing
        source = stages.make_source(job, reader, seeds)
        try:
            if job.task.TRAINED:
                trained = {fold: done for fold, (done, _) in folds[i].items()}
                found = stages.finish_trained(job, source, trained, seeds)
            else:
                fields = untrained.solve(job, source)
                found = {seed: dict(fields) for seed in seeds}
            others = [names[k] for k in todo if k != i and not isinstance(out.get(k), Exception)]
            done = stages.complete(job, reader, Cost(cpu=0.0, wall=0.0), found, shared_with=others)
            out[i] = keep(plans[i], done)
        except Exception as error:  # noqa: BLE001
            out[i] = _failure(plans[i], error)


def _take_turns(
    folds: dict[int, dict[str, tuple[Trained, Iterator[float]]]],
) -> Iterator[tuple[int, Exception]]:
    """Let the training that has heard least go on until all have ended; yield what failed."""
    from mynah.recipes.progress import track

    heard = {(i, fold): 0.0 for i, own in folds.items() for fold in own}
    began = time.monotonic()
    for _ in track(iter(lambda: bool(heard), False), "training together"):
        i, fold = min(heard, key=lambda key: heard[key])
        try:
            heard[i, fold] = next(folds[i][fold][1])
        except StopIteration:
            del heard[i, fold]
        except Exception as error:  # noqa: BLE001  the caller raises again what it must
            for key in [key for key in heard if key[0] == i]:
                del heard[key]
            yield i, error
    log.info("trained together in %.0f s", time.monotonic() - began)
