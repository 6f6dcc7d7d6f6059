"""SD: scores by hand, and what is chosen on dev and on test."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from diarizing import FACTS, bound, corpus

from mynah.tasks.core.contract import Split
from mynah.tasks.core.turns import Setting
from mynah.tasks.sd import CHUNK


def perfect(task, split: Split) -> list[np.ndarray]:  # type: ignore[no-untyped-def]
    """Return activities that say exactly who talks."""
    from mynah.tasks.core.turns import labels

    return [0.1 + 0.8 * labels(u, 2, task.grid).astype(np.float32) for u in split.utterances]


def test_perfect_answers_have_no_error() -> None:
    for protocol in ("fixed", "superb"):
        task = bound(protocol)
        test = task.loaded.folds[""][2]
        rows = task.rows(test, perfect(task, test))
        assert rows.ids == rows.units == ["test0", "test1", "test2"]
        assert rows.unit == "recording"
        assert rows.references[0] == "0.1 0.4 e;0.4 0.4 f"
        scores = task.score(rows.references, rows.predictions)
        assert list(scores) == ["der", "miss", "false_alarm", "confusion"]
        assert all(value == pytest.approx(0, abs=1e-12) for value in scores.values())


def test_scores_by_hand() -> None:
    task = bound()
    task.setting = Setting(0.5, 1)
    (u,) = task.loaded.folds[""][2].utterances[:1]  # e 0.1-0.5, f 0.4-0.8
    activity = np.zeros((100, 2), np.float32)
    activity[10:30, 0] = 1  # 0.2 s of 0.4 s
    activity[40:90, 1] = 1  # 0.4 s and 0.1 s too much
    rows = task.rows(Split(name="test", utterances=[u]), [activity])
    scores = task.score(rows.references, rows.predictions)
    assert scores["miss"] == pytest.approx(0.2 / 0.8)
    assert scores["false_alarm"] == pytest.approx(0.1 / 0.8)
    assert scores["confusion"] == pytest.approx(0)
    assert scores["der"] == pytest.approx(0.3 / 0.8)


class Says(nn.Module):
    """A probe that answers what it is told: silence is ``low``, speech 0.06 more."""

    def __init__(self, low: float) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.tensor(low))
        self.talks = torch.zeros(0)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return (self.low + 0.06 * self.talks)[None].logit()

    def about(self, task, split: Split) -> list:  # type: ignore[no-untyped-def,type-arg]
        out = []
        for u, talks in zip(split.utterances, perfect(task, split), strict=True):
            self.talks = torch.from_numpy(talks > 0.5)
            out += task.infer(self, torch.zeros(2, 1, 100, 4), torch.tensor([100]), [u])
        return out


def test_fixed_chooses_on_dev_for_each_head_and_keeps_it_on_test() -> None:
    task = bound()
    _, dev, test = task.loaded.folds[""]
    heads = {0.4: Says(0.35), 0.6: Says(0.55)}  # by the threshold that each needs
    for head in heads.values():
        rows = task.rows(dev, head.about(task, dev))
        score = task.dev_metric().score(rows.references, rows.predictions)
        assert score == pytest.approx(0, abs=1e-9)
    for threshold, head in heads.items():
        task.setting = Setting(0.1, 1)
        rows = task.rows(test, head.about(task, test))
        assert task.setting == Setting(threshold, 1)
        assert task.state()["threshold"] == threshold
        assert task.score(rows.references, rows.predictions)["der"] == pytest.approx(0, abs=1e-9)


def test_superb_takes_the_best_of_ten_on_test() -> None:
    task = bound("superb")
    test = task.loaded.folds[""][2]
    said = [0.55 + 0.1 * (a > 0.5) for a in perfect(task, test)]
    said[0][60, 0] = 0.9  # one wrong frame, which a median over 11 removes
    rows = task.rows(test, [s.astype(np.float32) for s in said])
    assert task.setting == Setting(0.6, 11)
    assert task.score(rows.references, rows.predictions)["der"] == pytest.approx(0, abs=1e-9)
    assert task.metrics()[0].signature == (
        "der|collar:0.00|overlap:yes|setting:best-of-10-on-test|v1"
    )
    assert len(task._settings()) == 10


def test_medians_of_fixed_are_times() -> None:
    def medians(stride: int) -> list[int]:
        task = bound()
        task.bind(dataclasses.replace(FACTS, stride=stride))
        return sorted({s.median for s in task._settings()})

    assert medians(160) == [1, 11, 23, 45]
    assert medians(320) == [1, 5, 11, 23]


def test_superb_selects_by_frames_of_chunks() -> None:
    task = bound("superb")
    dev = task.loaded.folds[""][1]
    said = [a.astype(np.float32) for a in perfect(task, dev)]
    said[0] = said[0][:, ::-1].copy()  # the order is free
    said[1][:10] = 0.9  # 20 wrong of 200
    rows = task.rows(dev, said)
    metric = task.dev_metric()
    assert not metric.higher_is_better
    assert metric.score(rows.references, rows.predictions) == pytest.approx(20 / 200 / 3)


def test_superb_puts_the_chunks_of_a_recording_together() -> None:
    long = [dataclasses.replace(u, duration=25.0) if u.split == "test" else u for u in corpus()]
    task = bound("superb", long)
    test = task.loaded.folds[""][2]
    said = [np.zeros((CHUNK, 2), np.float32) for _ in test.utterances]
    said[0][-10:, 0] = said[1][:10, 0] = 1.0
    rows = task.rows(test, said)
    assert rows.ids == ["test0", "test1", "test2"]
    assert "19.9 0.2 speaker1" in rows.predictions[0]
