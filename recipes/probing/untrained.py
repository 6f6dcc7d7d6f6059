"""Tasks without a head: each layer of the upstream is tried, dev chooses one, test is scored once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mynah.recipes import results
from mynah.recipes.probing.score import Scored
from mynah.tasks.core.contract import Decoded, Split

if TYPE_CHECKING:
    from torch import Tensor

    from mynah.recipes.probing.batches import Source
    from mynah.recipes.probing.job import Job
    from mynah.tasks.corpora.utterance import Utterance


@torch.no_grad()
def solve(job: Job, source: Source) -> dict[str, Any]:
    """Return what the result says of the layers, of the choice and of test."""
    task, metric = job.task, job.task.dev_metric()
    sign = 1.0 if task.SPEC.higher_is_better else -1.0

    only = job.settings.layer

    def read(utterances: Sequence[Utterance]) -> list[Tensor]:
        frames = source.reader.frames([u.id for u in utterances])
        return frames if only is None else [x_LTD[[only]] for x_LTD in frames]

    def layers(split: Split) -> list[Sequence[Decoded]]:
        return task.decode_layers(split, read)

    scored, points, choices = Scored(), [], []
    weights = [0.0] * source.reader.num_layers
    clocks = []
    for fold, (_, dev, test) in task.loaded.folds.items():
        cpu, wall = time.process_time(), time.monotonic()
        scores = []
        for layer, said in enumerate(layers(dev)):
            number = layer if only is None else only
            rows = task.rows(dev, said)
            scores.append((metric.score(rows.references, rows.predictions), number, layer))
            points.append(
                results.Point(
                    fold=fold, learning_rate=0.0, step=0, train_loss=None,
                    dev=scores[-1][0], layer=number,
                )
            )  # fmt: skip
        best, number, place = max(scores, key=lambda one: (sign * one[0], -one[1]))
        clocks.append((time.process_time() - cpu, time.monotonic() - wall))
        cpu, wall = time.process_time(), time.monotonic()
        scored.add(task.rows(test, layers(test)[place]), fold, test.utterances)
        scored.cpu += time.process_time() - cpu
        scored.wall += time.monotonic() - wall
        weights[number] += 1 / len(task.loaded.folds)
        choices.append(results.Choice(fold=fold, learning_rate=0.0, step=0, dev=best, layer=number))
    return {
        "scored": scored,
        "choices": tuple(choices),
        "sweep": tuple(points),
        "layer_weights": tuple(weights),
        "head_params": 0,
        "steps": 0,
        "passes": 0.0,
        "costs": {
            "train": results.Cost(cpu=sum(c for c, _ in clocks), wall=sum(w for _, w in clocks)),
            "score": results.Cost(cpu=scored.cpu, wall=scored.wall),
        },
    }
