"""Training of probes on arrays in memory: batches within the budget, heads that diverge, the choice."""

import dataclasses
import sys
import zlib
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from utterances import utterance

from mynah.downstream.core.sweep import Sweep
from mynah.recipes.errors import DivergedError
from mynah.recipes.probing.batches import Source
from mynah.recipes.probing.choose import choose
from mynah.recipes.probing.train import Best, Evaluation, Trained, train
from mynah.tasks.core.contract import DataError
from mynah.tasks.ks import TASK as KS
from mynah.tasks.pr import TASK as PR


class Arrays:
    """A reader over arrays in memory."""

    num_layers, dim, kind = 2, 4, "frames"

    def __init__(self, lengths: dict[str, int], *, poison: bool = False) -> None:
        self.sizes = lengths
        self.poison = poison
        self.largest = 0

    def lengths(self, ids: list[str]) -> torch.Tensor:
        return torch.tensor([self.sizes[i] for i in ids])

    def pooled(self, ids: list[str]) -> torch.Tensor:
        out = torch.stack([torch.full((2, 4), float(zlib.crc32(i.encode()) % 97)) for i in ids])
        return out * float("nan") if self.poison else out

    def padded(self, ids: list[str], *, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        top = max(self.sizes[i] for i in ids)
        self.largest = max(self.largest, len(ids) * top)
        return torch.ones(2, len(ids), top, 4, dtype=dtype)


def test_batches_of_frames_stay_within_the_budget() -> None:
    sizes = {f"u{i}": 10 + 7 * i for i in range(40)}
    source = Source(Arrays(sizes), pooled=False, heads=3, budget=4 * (4 + 36) * 600)  # type: ignore[arg-type]
    assert source.room == 600
    everyone = [utterance(name) for name in sizes]
    for groups in (list(source.cut(everyone)), list(source.sweep(everyone))):
        assert sorted(u.id for g in groups for u in g) == sorted(sizes)
        for group in groups:
            source(group)
    assert source.reader.largest <= 600  # type: ignore[attr-defined]


def test_frames_that_half_precision_cannot_hold_are_read_in_float32() -> None:
    class Loud(Arrays):
        def padded(self, ids: list[str], *, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.full((2, len(ids), 3, 4), 1e6).to(dtype)

    features, _ = Source(Loud({"u": 3}), pooled=False, heads=1)([utterance("u")])  # type: ignore[arg-type]
    assert features.dtype == torch.float32
    assert bool(torch.isfinite(features).all())


def test_all_heads_diverged_is_an_error_and_some_are_left_out() -> None:
    from utterances import keywords

    task = KS()
    data = task.load(keywords())
    protocol = dataclasses.replace(task.protocol, steps=60, eval_every=5, learning_rates=(1e-3,))
    reader = Arrays({u.id: 3 for split in data.folds[""] for u in split.utterances}, poison=True)
    sweep = Sweep(lambda: task.head(4), layers=2, learning_rates=(1e-3,))
    done = train(task, protocol, data.folds[""], Source(reader, pooled=True, heads=1), sweep,  # type: ignore[arg-type]
                 track=lambda items, *_: items)  # fmt: skip
    assert done.steps == 20  # patience of the sweep
    with pytest.raises(
        DivergedError, match=r"every head of seed 0 diverged \(learning rates 0.001\)"
    ):
        choose({"": done}, 0, higher=True)


def evaluation(head: int, dev: float, loss: float = 1.0) -> Best:
    return Best(
        evaluation=Evaluation(head=head, step=1, train_loss=1.0, dev=dev, dev_loss=loss), state={}
    )


def test_one_rate_is_chosen_for_all_folds() -> None:
    sweep = Sweep(lambda: torch.nn.Linear(2, 2), layers=2, learning_rates=(1e-1, 1e-2, 1e-3))
    a = Trained(
        sweep=sweep, best={0: evaluation(0, 0.9), 1: evaluation(1, 0.8), 2: evaluation(2, 0.8)}
    )
    b = Trained(
        sweep=sweep, best={0: evaluation(0, 0.2), 1: evaluation(1, 0.8), 2: evaluation(2, 0.8, 0.5)}
    )
    assert {n: e.evaluation.head for n, e in choose({"a": a, "b": b}, 0, higher=True).items()} == {
        "a": 2,
        "b": 2,
    }
    assert choose({"a": a, "b": b}, 0, higher=False)["a"].evaluation.head == 0
    sweep.alive[2] = False
    assert choose({"a": a, "b": b}, 0, higher=True)["b"].evaluation.head == 1


def test_training_on_too_short_targets_only() -> None:
    from utterances import spoken

    task = PR()
    data = task.load(spoken())
    reader = Arrays({u.id: 1 for split in data.folds[""] for u in split.utterances})
    with pytest.raises(DataError, match=r"no training utterance is long enough: s\d-\d: 1 frames"):
        train(task, task.protocol, data.folds[""], Source(reader, pooled=False, heads=1),  # type: ignore[arg-type]
              Sweep(lambda: task.head(4), layers=2, learning_rates=(1e-3,)), track=lambda items, *_: items)  # fmt: skip
