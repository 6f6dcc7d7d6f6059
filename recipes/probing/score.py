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

from mynah.files import replacing, write_text
from mynah.recipes import results
from mynah.recipes.probing.batches import Source
from mynah.recipes.probing.train import Best, Trained
from mynah.tasks.core.contract import Decoded, Rows, Split, Task
from mynah.tasks.metrics.accuracy import confusion
from mynah.tasks.metrics.bootstrap import bootstrap

if TYPE_CHECKING:
    from mynah.downstream.core.featurizer import Probe
    from mynah.tasks.corpora.utterance import Utterance

EMBEDDINGS = 2000  # utterance means kept for the report, at most


@dataclass(kw_only=True)
class Scored:
    """What one seed's heads said of test, over all folds, as rows to score, and its cost."""

    utterances: list[Utterance] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    unit: str = "utterance"
    folds: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    predictions: list[str] = field(default_factory=list)
    layer_weights: list[list[float]] = field(default_factory=list)
    cpu: float = 0.0
    wall: float = 0.0

    def add(self, rows: Rows, fold: str, utterances: Sequence[Utterance]) -> None:
        """Add the rows of a fold; where folds have different units, the rows are their own."""
        if self.ids and rows.unit != self.unit:
            self.unit, self.units = "utterance", list(self.ids)
        elif not self.ids:
            self.unit = rows.unit
        self.utterances += utterances
        self.ids += rows.ids
        self.units += rows.units if rows.unit == self.unit else rows.ids
        self.folds += [fold] * len(rows.ids)
        self.references += rows.references
        self.predictions += rows.predictions


@torch.no_grad()
def decoded(task: Task, probe: Probe, split: Split, source: Source) -> list[Decoded]:
    """Return what one head says of each utterance, in the order of the split."""
    at = {u.id: i for i, u in enumerate(split.utterances)}
    out: list[Decoded] = [""] * len(at)
    for group in source.sweep(split.utterances):
        features, lengths_B = source(group)
        for u, said in zip(group, task.infer(probe, features, lengths_B, group), strict=True):
            out[at[u.id]] = said
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
        scored.add(task.rows(test, decoded(task, probe, test, source)), name, test.utterances)
        scored.layer_weights.append(probe.featurizer.layer_weights())
    scored.cpu = time.process_time() - cpu
    scored.wall = time.monotonic() - wall
    return scored


def metrics_of(task: Task, scored: Scored) -> dict[str, results.Metric]:
    """Return every metric of the task with its interval."""
    out = {}
    for metric in task.metrics():
        found = bootstrap(
            metric,
            scored.references,
            scored.predictions,
            scored.units,
            unit=scored.unit,
            folds=scored.folds,
        )
        out[metric.name] = results.Metric(
            value=found.value,
            low=found.low,
            high=found.high,
            n=found.n,
            units=found.units,
            unit=found.unit,
            signature=found.signature,
            scale=found.scale,
        )
    return out


def confusion_of(task: Task, scored: Scored) -> tuple[tuple[int, ...], ...]:
    """Return the confusion matrix of a classification task, () for others."""
    classes = set(task.loaded.classes)
    if task.SPEC.resolution != "utterance" or not classes.issuperset(scored.references):
        return ()
    table = confusion(scored.references, scored.predictions, task.loaded.classes)
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


def write_predictions(path: Path, scored: Scored) -> None:
    """Write id, fold, unit, reference and prediction of each row, tab-separated."""
    out = io.StringIO()
    out.write("id\tfold\tunit\treference\tprediction\n")
    columns = (scored.ids, scored.folds, scored.units, scored.references, scored.predictions)
    for cells in zip(*columns, strict=True):
        out.write("\t".join(" ".join(cell.split()) for cell in cells) + "\n")
    write_text(path, out.getvalue())


def write_embeddings(path: Path, scored: Scored, source: Source) -> bool:
    """Write ``ids`` and ``means`` of test utterances: time means, layers summed as the heads do.

    At most 2000 utterances, evenly spaced; readable with ``numpy.load(allow_pickle=False)``. With
    them go ``norms``: of each layer, the mean length of these utterances' time means.

    Returns:
        whether it was written: only where each row that is scored is an utterance.
    """
    import numpy as np

    if [u.id for u in scored.utterances] != scored.ids:
        return False
    step = -(-len(scored.utterances) // EMBEDDINGS)
    some = scored.utterances[::step]
    weights_L = torch.tensor(mean_weights(scored), dtype=torch.float32)
    means, norms = [], []
    for at in range(0, len(some), 64):
        pooled_BLD = source.reader.pooled([u.id for u in some[at : at + 64]])
        means.append(torch.einsum("l,bld->bd", weights_L, pooled_BLD))
        norms.append(torch.linalg.vector_norm(pooled_BLD, dim=-1))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            ids=np.array([u.id for u in some]),
            means=torch.cat(means).numpy(),
            norms=torch.cat(norms).mean(0).numpy(),
        )
    return True


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
