"""Is ``superb`` SUPERB? KS, SID, PR and ASV beside s3prl's own downstream code.

The same frozen features, initial weights, batches in the same order, learning rate and number of
updates for both; what is compared is what a protocol is made of: weighted sum, head, loss,
accumulation, clipping, optimiser, decoding and metric. What is not: samplers (the batches are
ours), the number of frames (ours), selection on dev, and upstreams, which ``check parity`` compares.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from mynah.recipes.parity import protocol_ours, protocol_s3prl
from mynah.recipes.parity.protocol_data import Given, give, made_corpus
from mynah.recipes.parity.protocol_experts import (
    keyword_spotting,
    phoneme_recognition,
    speaker_identification,
)
from mynah.recipes.parity.protocol_ours import Run
from mynah.recipes.parity.protocol_s3prl import Recipe, Reference, downstream
from mynah.recipes.parity.protocol_table import Row, Score, Side
from mynah.recipes.parity.protocol_xvector import speaker_verification
from mynah.tasks.metrics.bootstrap import bootstrap

if TYPE_CHECKING:
    from mynah.tasks.core.contract import Rows, Task

Precision = Literal["float64", "float32"]
ALLOWED: dict[torch.dtype, float] = {torch.float64: 1e-6, torch.float32: 1e-2}
"""Largest absolute difference of a loss, while rounding alone makes little of it."""
MARGIN = 100  # how much less: two disturbances of one size may grow differently
SAME: dict[torch.dtype, float] = {torch.float64: 1.0, torch.float32: 0.9}
"""Least share of equal answers, where all updates are judged."""
LEAST: dict[torch.dtype, int] = {torch.float64: 2, torch.float32: 1}
"""Updates that are judged at least; the second shows what the first did."""
DIGITS = 1e-7  # cosines nearer than that are equal: ours are written with 7 digits
Build = Callable[["Task", int, Path], AbstractContextManager[Reference]]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A task that s3prl can be run beside.

    Attributes:
        recipe: s3prl's numbers.
        builds: ways to run s3prl.
        rate: learning rate, unless another is asked for.
        steps: updates, likewise.
        seconds: of the shortest utterance of the made-up corpus.
    """

    recipe: Recipe
    builds: tuple[Build, ...]
    rate: float = 1e-2
    steps: int = 60
    seconds: float = 0.4


TASKS: dict[str, Compared] = {
    "ks": Compared(
        recipe=Recipe(batch=32, accumulate=1, test_batch=32),
        builds=(keyword_spotting,),
    ),
    "sid": Compared(
        recipe=Recipe(batch=8, accumulate=4, test_batch=1),
        builds=(speaker_identification,),
    ),
    "pr": Compared(
        recipe=Recipe(batch=16, accumulate=2, test_batch=1),
        builds=(phoneme_recognition,),
    ),
    "asv": Compared(
        recipe=Recipe(batch=10, accumulate=5, test_batch=1, optimizer="AdamW", clip=1e3),
        builds=(
            partial(speaker_verification, alone=True),
            partial(speaker_verification, alone=False),
        ),
        rate=1e-3,
        steps=3,  # the head is large, and s3prl is run twice
        seconds=2.0,  # training utterances must be longer
    ),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is compared on.

    Attributes:
        corpus: prepared; made up where None.
        upstream: spec.
        steps: updates; the task's where None.
        rate: learning rate; the task's where None.
        heads: ``protocol``, or ``small`` ones on both sides where a task has them.
        precision: in which both sides compute; features are rounded to float16 in any case.
        seed: of random weights and made-up data.
    """

    corpus: Path | None = None
    upstream: str = "apc/tiny"
    steps: int | None = None
    rate: float | None = None
    heads: Literal["protocol", "small"] = "protocol"
    precision: Precision = "float64"
    seed: int = 0


def prepared(name: str, setting: Setting) -> Given:
    """Return the data of a task: loaded, batches drawn, features extracted.

    Raises:
        LookupError, ValueError, FileNotFoundError: no such upstream or corpus, no updates,
            no positive learning rate.
        BadDataError: the corpus cannot serve the task.
    """
    from mynah.recipes.errors import BadDataError
    from mynah.recipes.probing.job import load_task
    from mynah.recipes.probing.settings import Settings
    from mynah.tasks.core.contract import DataError
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.upstream.core import spec

    entry = TASKS[name]
    steps = entry.steps if setting.steps is None else setting.steps
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    rate = entry.rate if setting.rate is None else setting.rate
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"the learning rate must be positive and finite, got {rate}")
    dtype = torch.float64 if setting.precision == "float64" else torch.float32
    upstream = spec.load(setting.upstream, seed=setting.seed)
    with tempfile.TemporaryDirectory(prefix="mynah-check-") as folder:
        if setting.corpus is None:
            corpus = made_corpus(Path(folder), least=entry.seconds, seed=setting.seed)
        else:
            corpus = Corpus.open(setting.corpus)
        task = load_task(name, Settings(protocol="superb", heads=setting.heads), corpus)
        try:
            return give(task, corpus.name, upstream, steps=steps, rate=rate, dtype=dtype)
        except DataError as error:
            raise BadDataError(f"corpus {corpus.name}: {error}") from error


def compare(name: str, given: Given, *, seed: int = 0) -> list[Row]:
    """Train and score both sides; returns a row for each way of running s3prl.

    Args:
        name: of the task.
        given: its data.
        seed: of the initial weights.

    Raises:
        Whatever a broken head or an s3prl of another version raises.
    """
    entry, done = TASKS[name], []
    with _computing(given.dtype):
        sweep = protocol_ours.build(given, seed=seed)
        weights = sweep.state(0)
        ours, rows = protocol_ours.race(given, sweep)
        echo = _gaps(ours.losses, protocol_ours.echo(given, seed=seed))
        for build in entry.builds:
            with (
                tempfile.TemporaryDirectory(prefix="mynah-check-") as folder,
                build(given.task, given.reader.dim, Path(folder)) as reference,
            ):
                theirs = protocol_s3prl.race(given, entry.recipe, reference, weights)
            done.append(_row(name, given, reference, rows, ours, theirs, echo))
    return done


def horizon(echo: Sequence[float], allowed: float) -> int:
    """Return how many updates come before rounding makes a hundredth of what is allowed."""
    return next((i for i, gap in enumerate(echo) if gap > allowed / MARGIN), len(echo))


def _gaps(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Return absolute differences, infinite where one is not finite."""
    gaps = [abs(x - y) for x, y in zip(a, b, strict=True)]
    return [gap if math.isfinite(gap) else math.inf for gap in gaps]


def _row(
    name: str,
    given: Given,
    reference: Reference,
    rows: Rows,
    ours: Run,
    theirs: Run,
    echo: Sequence[float],
) -> Row:
    metric = given.task.metrics()[0]
    gaps = _gaps(ours.losses, theirs.losses)
    allowed = ALLOWED[given.dtype]
    judged = horizon(echo, allowed)
    again = metric.score(rows.references, theirs.predictions)
    return Row(
        task=name,
        metric=metric.name,
        what=reference.what,
        allowed=allowed if reference.comparable or not given.is_padded else None,
        ours=_side(given, rows, ours),
        theirs=_side(given, rows, theirs),
        judged=judged,
        least=LEAST[given.dtype],
        difference=max(gaps[:judged], default=0.0),
        later=max(gaps),
        echo=max(echo),
        metric_difference=abs(again - theirs.value),
        same=_same(rows, ours.predictions, theirs.predictions, eer=metric.name == "eer"),
        needed=SAME[given.dtype] if judged == len(gaps) else 0.0,
        given=described(given),
    )


@contextmanager
def _computing(dtype: torch.dtype) -> Iterator[None]:
    """Build and train in this type inside, with one thread: CPU seconds are those of the work."""
    threads, before = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(before)


def _side(given: Given, rows: Rows, run: Run) -> Side:
    interval = bootstrap(
        given.task.metrics()[0], rows.references, run.predictions, rows.units, unit=rows.unit
    )
    return Side(
        losses=run.losses,
        score=Score(value=run.value, low=interval.low, high=interval.high),
        train=run.train,
        answer=run.score,
    )


def _same(rows: Rows, ours: Sequence[str], theirs: Sequence[str], *, eer: bool) -> float:
    """Return the share of equal predictions, or of trials on the same side of s3prl's threshold."""
    if not eer:
        return float(np.mean([a == b for a, b in zip(ours, theirs, strict=True)]))
    from mynah.tasks.metrics.detection import TARGET

    truth = np.array([int(reference == TARGET) for reference in rows.references])
    a, b = (np.array([float(score) for score in side]) for side in (ours, theirs))
    _, threshold = downstream("sv_voxceleb1.utils").EER(truth, b)
    decided = (a >= threshold) == (b >= threshold)
    return float(np.mean(decided | (np.abs(a - b) <= DIGITS)))


def described(given: Given) -> dict[str, object]:
    """Return what a task is compared on, for the table and the record."""
    splits = next(iter(given.task.loaded.folds.values()))
    return {
        "corpus": given.corpus,
        "train": len(splits[0].utterances),
        "test": len(splits[2].utterances),
        "outputs": given.task.outputs,
        "batch": f"{given.protocol.batch_size} x {given.protocol.accumulate}",
        "rate": given.protocol.learning_rates[0],
        "precision": str(given.dtype).removeprefix("torch."),
        "heads": "small" if given.task.small else "protocol",
    }
