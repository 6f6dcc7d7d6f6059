"""Scoring the chosen heads on test, once, and writing it all down."""

from __future__ import annotations

import io
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mynah.recipes import results
from mynah.recipes.probing.batches import Source
from mynah.recipes.probing.train import Best, Trained
from mynah.tasks.core.contract import Split, Task
from mynah.tasks.metrics.accuracy import confusion
from mynah.tasks.metrics.bootstrap import bootstrap

if TYPE_CHECKING:
    from mynah.downstream.core.featurizer import Probe
    from mynah.tasks.corpora.utterance import Utterance

EMBEDDINGS = 2000  # utterance means kept for the report, at most


@dataclass(kw_only=True)
class Scored:
    """Predictions of one seed on test, over all folds, and what their scoring cost."""

    utterances: list[Utterance] = field(default_factory=list)
    folds: list[str] = field(default_factory=list)
    predictions: list[str] = field(default_factory=list)
    layer_weights: list[list[float]] = field(default_factory=list)
    cpu: float = 0.0
    wall: float = 0.0


@torch.no_grad()
def predict(task: Task, probe: Probe, split: Split, source: Source) -> list[str]:
    """Return one head's predictions in the order of the split."""
    at = {u.id: i for i, u in enumerate(split.utterances)}
    out = [""] * len(at)
    for group in source.sweep(split.utterances):
        features, lengths_B = source(group)
        texts = task.decode(probe(features, lengths_B), lengths_B)
        for u, text in zip(group, texts, strict=True):
            out[at[u.id]] = text
    return out


def score_test(
    task: Task,
    folds: Mapping[str, Trained],
    chosen: Mapping[str, Best],
    source: Source,
) -> Scored:
    """Run the chosen heads of one seed over the test utterances of every fold."""
    cpu, wall = time.process_time(), time.monotonic()
    scored = Scored()
    for name, best in chosen.items():
        test = task.loaded.folds[name][2]
        probe = folds[name].sweep.probe(best.state)
        scored.utterances += test.utterances
        scored.folds += [name] * len(test.utterances)
        scored.predictions += predict(task, probe, test, source)
        scored.layer_weights.append(probe.featurizer.layer_weights())
    scored.cpu = time.process_time() - cpu
    scored.wall = time.monotonic() - wall
    return scored


def units_of(utterances: Sequence[Utterance], label: str) -> tuple[list[str], str]:
    """Return the resampling unit of each utterance; the utterance where the label is not known."""
    found = [u.label(label) for u in utterances]
    if all(found):
        return [str(name) for name in found], label
    return [u.id for u in utterances], "utterance"


def metrics_of(task: Task, scored: Scored) -> dict[str, results.Metric]:
    """Return every metric of the task with its interval."""
    references = [task.reference(u) for u in scored.utterances]
    units, unit = units_of(scored.utterances, task.SPEC.resample_by)
    out = {}
    for metric in task.metrics():
        found = bootstrap(
            metric, references, scored.predictions, units, unit=unit, folds=scored.folds
        )
        out[metric.name] = results.Metric(
            value=found.value,
            low=found.low,
            high=found.high,
            n=found.n,
            units=found.units,
            unit=found.unit,
            signature=found.signature,
        )
    return out


def confusion_of(task: Task, scored: Scored) -> tuple[tuple[int, ...], ...]:
    """Return the confusion matrix of a classification task, () for sequences."""
    if task.SPEC.resolution != "utterance":
        return ()
    references = [task.reference(u) for u in scored.utterances]
    table = confusion(references, scored.predictions, task.loaded.classes)
    return tuple(tuple(int(n) for n in row) for row in table)


def points_of(folds: Mapping[str, Trained], seed: int) -> tuple[results.Point, ...]:
    """Return every dev evaluation of one seed's heads."""
    return tuple(
        results.Point(
            fold=name,
            learning_rate=fold.sweep.grid[e.head][1],
            step=e.step,
            train_loss=e.train_loss,
            dev=e.dev,
        )
        for name, fold in folds.items()
        for e in fold.evaluations
        if fold.sweep.grid[e.head][0] == seed
    )


def write_predictions(path: Path, task: Task, scored: Scored) -> None:
    """Write id, fold, unit, reference and prediction of each test utterance, tab-separated."""
    units, _ = units_of(scored.utterances, task.SPEC.resample_by)
    out = io.StringIO()
    out.write("id\tfold\tunit\treference\tprediction\n")
    rows = zip(scored.utterances, scored.folds, units, scored.predictions, strict=True)
    for u, fold, unit, text in rows:
        cells = (u.id, fold, unit, task.reference(u), text)
        out.write("\t".join(" ".join(cell.split()) for cell in cells) + "\n")
    results.write_text(path, out.getvalue())


def write_embeddings(path: Path, task: Task, scored: Scored, source: Source) -> None:
    """Write ``ids`` and ``means`` of test utterances: time means, layers summed as the heads do.

    At most 2000 utterances, evenly spaced; readable with ``numpy.load(allow_pickle=False)``.
    """
    import numpy as np

    step = -(-len(scored.utterances) // EMBEDDINGS)
    some = scored.utterances[::step]
    weights_L = torch.tensor(mean_weights(scored), dtype=torch.float32)
    means = []
    for at in range(0, len(some), 64):
        pooled_BLD = source.reader.pooled([u.id for u in some[at : at + 64]])
        means.append(torch.einsum("l,bld->bd", weights_L, pooled_BLD))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part.npz")
    np.savez(temporary, ids=np.array([u.id for u in some]), means=torch.cat(means).numpy())
    temporary.replace(path)


def mean_weights(scored: Scored) -> list[float]:
    """Return the layer weights, averaged over folds."""
    columns = zip(*scored.layer_weights, strict=True)
    return [sum(column) / len(scored.layer_weights) for column in columns]


def environment(device: str) -> dict[str, str]:
    """Return the versions and the machine that a result depends on."""
    from importlib.metadata import version

    from mynah import __version__

    return {
        "mynah": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "device": device,
        "threads": str(torch.get_num_threads()),
    }
