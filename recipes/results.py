"""The result of one (upstream, task, protocol, corpus, seed): one JSON, enough to audit it by.

Tables, reports and submissions are pure functions of a folder of these. Reading one executes
nothing and refuses what does not fit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from mynah.files import write_text

FORMAT = 1

Count = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    """Frozen; unknown keys refused; NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Metric(Strict):
    """One number with its interval.

    Attributes:
        value: as the task reports it (fractions, not per cent).
        scale: what tables multiply it by: 100 for fractions, 1 for what has a unit of its own.
        low: lower end of the 95 % bootstrap interval.
        high: upper end.
        n: items that the value is over.
        units: how many units of ``unit`` the bootstrap resampled.
        unit: what was resampled (``speaker``, ``session``, ``utterance``).
        signature: how exactly the number is defined, e.g. ``per|unit:phone|v1``.
    """

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    n: Count
    units: Count
    unit: str
    signature: str
    scale: FiniteFloat = 100.0


class Point(Strict):
    """One evaluation on dev of one head of the sweep.

    Attributes:
        fold: fold name, "" without cross-validation.
        learning_rate: of that head; 0 for tasks that train none.
        layer: of tasks that choose a layer instead of a learning rate.
        step: optimiser updates done.
        train_loss: mean loss since the last point, None where it was not finite.
        dev: the ranking metric on dev, None where the head had diverged.
    """

    fold: str = ""
    learning_rate: float
    step: Count
    train_loss: float | None
    dev: float | None
    layer: int | None = None


class Choice(Strict):
    """What was chosen on dev for one fold."""

    fold: str = ""
    learning_rate: float
    step: Count
    dev: float
    layer: int | None = None


class Cost(Strict):
    """Seconds spent on one part of the work.

    Attributes:
        cpu: CPU seconds of the process, all threads.
        wall: seconds on the clock.
    """

    cpu: float
    wall: float


class Result(Strict):
    """Everything about one scored run.

    Attributes:
        format: version of this schema.
        upstream: short id of the upstream, as in tables.
        spec: what was asked for on the command line.
        fingerprint: sha256 of the upstream's family, config, precision and weights.
        upstream_params: number of parameters of the upstream.
        upstream_stride_ms: milliseconds between its frames; None in results of older versions.
        upstream_macs: its multiply-accumulates per second of audio, None where not counted.
        upstream_macs_total: of SUPERB's 32 utterances, likewise.
        upstream_macs_buckets: of each of its buckets of eight; empty where not counted.
        upstream_run: the pretraining run that the upstream is of, where its folder says.
        upstream_step: after how many steps of it; 0 before the first.
        task: name of the task.
        task_version: its version.
        protocol: ``superb`` or ``fixed``.
        corpus: name of the corpus.
        corpus_version: hash of its manifests.
        seed: seed of the head's initial weights; the order of batches is the same for all seeds.
        metric: name of the metric that ranks.
        higher_is_better: its direction.
        metrics: every metric by name.
        classes: label inventory, in the order of the confusion matrix.
        confusion: rows are references, columns predictions; empty for sequence tasks.
        choices: learning rate and step chosen on dev, per fold.
        sweep: every evaluation on dev.
        layer_weights: softmax weights of the chosen head, mean over folds.
        n_train: utterances per split, summed over folds.
        n_dev: likewise.
        n_test: likewise.
        skipped: utterances left out, id -> reason; must be empty to enter a leaderboard.
        head_params: trainable parameters of one head, weighted sum included.
        steps: optimiser updates.
        passes: how often each training utterance was seen on average.
        features: ``pooled``, ``frames`` or ``stream``.
        settings: what else decides the number: steps asked for, grid, layers used, splits.
        forwards: utterances pushed through the upstream for this result (0 when all were kept).
        shared_with: other tasks that were trained on the same forwards.
        costs: ``extract``, ``train``, ``score`` -> seconds.
        environment: versions, device, threads.
        command: the exact command.
        predictions: file name of the per-utterance predictions beside this file.
        heads: file names of the trained heads beside this file, by fold (``mynah predict``).
        embeddings: file name of utterance means for the report, if kept.
    """

    format: int = FORMAT
    upstream: str
    spec: str
    fingerprint: str
    upstream_params: Count
    upstream_stride_ms: float | None = None
    upstream_macs: Count | None = None
    upstream_macs_total: Count | None = None
    upstream_macs_buckets: dict[str, Count] = {}
    upstream_run: str | None = None
    upstream_step: Count | None = None
    task: str
    task_version: int
    protocol: str
    corpus: str
    corpus_version: str
    seed: int
    metric: str
    higher_is_better: bool
    metrics: dict[str, Metric]
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    choices: tuple[Choice, ...]
    sweep: tuple[Point, ...]
    layer_weights: tuple[float, ...]
    n_train: Count
    n_dev: Count
    n_test: Count
    skipped: dict[str, str] = {}
    head_params: Count
    steps: Count
    passes: float
    features: str
    settings: dict[str, str] = {}
    forwards: Count
    shared_with: tuple[str, ...] = ()
    costs: dict[str, Cost]
    environment: dict[str, str]
    command: str
    predictions: str
    heads: dict[str, str] = {}
    embeddings: str | None = None

    @property
    def main(self) -> Metric:
        """The metric that ranks."""
        return self.metrics[self.metric]

    @property
    def layer(self) -> int | None:
        """The one hidden state that the head reads, None for the weighted sum of all."""
        return one_layer(self.settings)

    @property
    def terms(self) -> tuple[object, ...]:
        """What two results must share to be compared: versions of task and corpus, settings."""
        return (self.task_version, self.corpus_version, *sorted(self.settings.items()))

    @property
    def label(self) -> str:
        """The task with what makes it another number: ``asr+lm``, ``asr (small head)``."""
        return labelled(self.task, self.settings)


APART = {
    ("heads", "small"): ("small head", "-small"),
    ("layer_norm", "true"): ("layer norm", "-norm"),
    ("splits", "made"): ("made splits", "-made"),
}
"""Setting and value -> what a task is called with it, and a part of the names of its files."""


def labelled(task: str, settings: Mapping[str, str]) -> str:
    """Return the task with what makes it another number: ``asr+lm (small head, layer norm)``."""
    text = task + ("+lm" if settings.get("lm") else "")
    apart = [name for (key, value), (name, _) in APART.items() if settings.get(key) == value]
    return text + (f" ({', '.join(apart)})" if apart else "")


def one_layer(settings: Mapping[str, str]) -> int | None:
    """Return the one hidden state that settings name, None for the weighted sum."""
    text = settings.get("layer", "")
    return int(text) if text.removeprefix("-").isdecimal() else None


def slug(name: str) -> str:
    """Return a name that is safe as one path component."""
    kept = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    return kept.strip(".") or "_"


def path_of(
    folder: Path,
    *,
    upstream: str,
    task: str,
    protocol: str,
    corpus: str,
    seed: int,
    settings: Mapping[str, str] | None = None,
) -> Path:
    """Return where the result of these is kept; of ``settings`` counts what is told apart."""
    name = task + ("-lm" if settings and settings.get("lm") else "")
    settings = settings or {}
    name += "".join(tag for (key, value), (_, tag) in APART.items() if settings.get(key) == value)
    layer = one_layer(settings)
    name += "" if layer is None else f"-layer{layer}"
    return folder / slug(upstream) / f"{slug(f'{name}-{protocol}-{corpus}-seed{seed}')}.json"


def save(result: Result, folder: Path) -> Path:
    """Write a result where :func:`path_of` says; returns the path."""
    path = path_of(
        folder,
        upstream=result.upstream,
        task=result.task,
        protocol=result.protocol,
        corpus=result.corpus,
        seed=result.seed,
        settings=result.settings,
    )
    text = json.dumps(result.model_dump(mode="json"), indent=1, allow_nan=False)
    write_text(path, text + "\n")
    return path


def load(path: Path) -> Result:
    """Read one result.

    Raises:
        ValueError: not a result of this format; the message names the file and every problem.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and data.get("format", FORMAT) != FORMAT:
            raise ValueError(f"format {data['format']!r}, this version reads {FORMAT}")
        return Result.model_validate(data)
    except ValidationError as error:
        what = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise ValueError(
            f"{path} is not a result ({error.error_count()} problems): {what}"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is not a result: {error}") from None


def walk(folder: Path) -> Iterator[Path]:
    """Yield the result files under a folder, in name order."""
    yield from sorted(p for p in folder.rglob("*.json") if "-seed" in p.stem)


def load_all(folder: Path) -> list[Result]:
    """Read every result under a folder.

    Raises:
        FileNotFoundError: the folder is missing or holds no result.
        ValueError: a file is damaged (delete it and run the probe again).
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no results folder {folder}; 'mynah probe' or 'mynah bench' makes one"
        )
    results = [load(path) for path in walk(folder)]
    if not results:
        raise FileNotFoundError(
            f"{folder} holds no results; 'mynah probe' or 'mynah bench' makes them"
        )
    return results
