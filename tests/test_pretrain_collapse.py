"""A run that collapses says so once, and its record and its model say so too."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
import runs
import toy
from golden import load_make

from mynah import upstream
from mynah.recipes import pretrain
from mynah.recipes.training.collapse import Watch
from mynah.recipes.training.values import ScheduleConfig, TrainConfig
from mynah.upstream.core import modelfolder

make = load_make()
# what tells a collapse: spread of what is learnt, codes in use, frames or utterances told apart
SIGNS = ("embedding_std", "target_std", "prediction_std", "code_perplexity", "prediction_perplexity",
         "accuracy")  # fmt: skip
FLOORS = {"code_perplexity": 2.0, "embedding_std": 0.01}


def test_a_low_part_is_told_once_and_may_recover() -> None:
    watch = Watch(FLOORS, TrainConfig(steps=100, schedule=ScheduleConfig(warmup=30)))
    assert watch.start == 30
    low = {"code_perplexity": 1.02, "embedding_std": 0.5, "loss": 3.0}
    assert watch.look(29, low) == []
    assert watch.collapsed == []
    (line,) = watch.look(30, low)
    assert line.startswith("collapsed: code_perplexity 1.02 is below 2 at step 30: the model gives")
    assert "lower train.lr" in line
    assert watch.look(40, low) == []
    assert watch.look(50, {}) == []  # every step was skipped: nothing is known
    assert watch.collapsed == ["code_perplexity"]
    assert watch.look(60, {**low, "code_perplexity": 9.0}) == []
    assert watch.collapsed == []
    (line,) = watch.look(70, {**low, "embedding_std": 0.0})
    assert "embedding_std 0 is below 0.01" in line
    assert watch.collapsed == ["code_perplexity", "embedding_std"]


def test_a_tenth_of_the_steps_is_grace() -> None:
    config = TrainConfig(steps=101, schedule=ScheduleConfig(warmup=0))
    assert Watch(FLOORS, config).start == 11


def test_a_run_says_that_it_collapsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(upstream, "__path__", runs.with_toy())
    family = upstream.get("toy")
    assert family.__file__ == toy.__file__
    monkeypatch.setattr(family.MODEL, "floors", {"peak": 1e6, "absent": 1.0}, raising=False)
    corpus = runs.noise_corpus(tmp_path / "noise").folder
    out = tmp_path / "run"
    assert pretrain.main(runs.arguments(corpus, out, steps=40)) == 0
    told = capsys.readouterr().err
    assert told.count("collapsed: peak") == 1
    assert re.search(r"40 steps in \d+\.\d min", told)
    assert "% of the time waiting for data" in told
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line.get("collapsed") == (["peak"] if line["step"] >= 4 else None)
    assert modelfolder.verify(out / "final")["trained"]["collapsed"] == ["peak"]


@pytest.mark.parametrize("name", make.names())
def test_every_method_is_watched(name: str) -> None:
    model = make.model(name)
    assert model.floors
    assert set(model.floors) <= set(SIGNS)
    parts = model.loss(make.labelled(model, make.batch(torch.Generator().manual_seed(0)))).parts
    for part, floor in model.floors.items():
        assert floor > 0
        assert torch.isfinite(torch.as_tensor(parts[part])), part
        assert not torch.as_tensor(parts[part]).requires_grad


def test_a_constant_mockingjay_is_below_its_floor() -> None:
    model = make.model("mockingjay/tiny")
    data = make.batch(torch.Generator().manual_seed(0))
    assert float(model.loss(data).parts["embedding_std"]) > 0.1
    torch.nn.init.zeros_(model.encoder.layers[-1].norm2.weight)
    assert float(model.loss(data).parts["embedding_std"]) < model.floors["embedding_std"]
