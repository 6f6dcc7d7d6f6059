"""``mynah check protocol``: superb equals s3prl's own code, broken heads and losses are caught, the command."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.downstream import linear_mean, xvector
from mynah.downstream.core import batched
from mynah.downstream.core.amsoftmax import am_softmax
from mynah.recipes import check, cli, errors
from mynah.recipes.parity import protocol
from mynah.recipes.parity.protocol import TASKS, Setting, _row, compare, prepared
from mynah.recipes.parity.protocol_data import Given, made_corpus
from mynah.recipes.parity.protocol_ours import Run
from mynah.recipes.parity.protocol_table import Row, Side
from mynah.recipes.parity.protocol_xvector import speaker_verification
from mynah.tasks import asv
from mynah.tasks.core import characters, classification
from mynah.tasks.core.ctc import ctc_losses

STEPS = {"ks": 4, "sid": 4, "pr": 3, "asv": 1}


@pytest.fixture(scope="module")
def data() -> Callable[[str], Given]:
    """Prepare each task once."""
    made: dict[str, Given] = {}

    def get(name: str) -> Given:
        if name not in made:
            made[name] = prepared(name, Setting(steps=STEPS[name], heads="small"))
        return made[name]

    return get


@pytest.fixture
def one_asv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run s3prl's ASV in the judged way only."""
    entry = dataclasses.replace(TASKS["asv"], builds=TASKS["asv"].builds[:1])
    monkeypatch.setitem(TASKS, "asv", entry)


def sides(row: Row) -> tuple[Side, Side]:
    assert row.ours is not None
    assert row.theirs is not None
    return row.ours, row.theirs


@pytest.mark.parametrize("name", ["ks", "sid", "pr"])
def test_superb_is_s3prls(name: str, data: Callable[[str], Given]) -> None:
    given = data(name)
    assert given.is_padded  # or lengths would not matter
    (row,) = compare(name, given)
    assert row.ok, row
    assert (row.allowed, row.needed, row.judged) == (1e-6, 1.0, STEPS[name])
    assert row.verdict == "yes"
    assert row.difference is not None
    assert row.difference < 1e-12
    ours, theirs = sides(row)
    assert len(ours.losses) == len(theirs.losses) == STEPS[name]
    assert theirs.losses[-1] < theirs.losses[0]  # it learns: equality says something
    assert ours.score.value == pytest.approx(theirs.score.value, abs=1e-6)
    assert ours.score.low == theirs.score.low <= theirs.score.value <= theirs.score.high
    assert min(ours.cpu, theirs.cpu) > 0
    assert torch.get_default_dtype() == torch.float32


def test_asv_is_s3prls_but_for_its_frame_of_padding(data: Callable[[str], Given]) -> None:
    given = data("asv")
    assert given.is_padded
    alone, padded = compare("asv", given)
    assert alone.ok
    assert alone.difference is not None
    assert alone.difference < 1e-12
    assert padded.verdict == "known"
    assert padded.difference is not None
    assert 1e-7 < padded.difference < 1e-2
    ours, theirs = sides(alone)
    assert ours.score.value == pytest.approx(theirs.score.value, abs=0.02)  # ours: 7 digits, ties
    assert 0 < ours.score.low < ours.score.high < 1


def test_the_frame_of_padding_is_all_that_differs(
    data: Callable[[str], Given], monkeypatch: pytest.MonkeyPatch
) -> None:
    true_statistics = xvector.statistics

    def one_more(x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        return true_statistics(x_BTD, (lengths_B + 1).clamp(max=x_BTD.shape[1]))

    monkeypatch.setattr(xvector, "statistics", one_more)
    alone, padded = compare("asv", data("asv"))
    assert alone.verdict.startswith("NO the losses differ")
    assert padded.difference is not None
    assert padded.difference < 1e-12


def test_without_padding_both_ways_are_judged(data: Callable[[str], Given]) -> None:
    given = data("asv")
    equal = dataclasses.replace(given, batches=[[[given.batches[0][0][0]] * 10] * 5])
    assert not equal.is_padded
    rng, split = np.random.default_rng(0), given.task.loaded.folds[""][2]
    rows = given.task.rows(split, list(rng.standard_normal((len(split.utterances), 8))))
    value = given.task.metrics()[0].score(rows.references, rows.predictions)
    run = Run(losses=[1.0], predictions=rows.predictions, value=value, train=1.0, score=1.0)
    found = []
    for alone in (True, False):
        with speaker_verification(given.task, 256, Path(), alone=alone) as reference:
            both = [_row("asv", g, reference, rows, run, run, [0.0]) for g in (given, equal)]
            found += [row.allowed for row in both]
    assert found == [1e-6, 1e-6, None, 1e-6]


# -- what is broken ------------------------------------------------------------------------------


class Activated(nn.Module):
    """KS with an activation between its layers."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.projector = nn.Linear(dim, 256)
        self.classifier = nn.Linear(256, classes)

    def forward(self, x_BD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        out: Tensor = self.classifier(F.gelu(self.projector(x_BD)))
        return out


def without_bias(params: Any, x_KNI: Tensor) -> Tensor:
    zero = torch.zeros_like(params["classifier.bias"])
    return true_pair({**params, "classifier.bias": zero}, x_KNI)


def smoothed(self: Any, outputs: Tensor, lengths_B: Tensor, batch: Any) -> Tensor:
    uniform = -outputs.log_softmax(dim=-1).mean(dim=-1)
    return 0.9 * true_losses(self, outputs, lengths_B, batch) + 0.1 * uniform


def not_by_length(logits: Tensor, lengths_B: Tensor, targets: Any) -> Tensor:
    sizes_B = torch.tensor([len(target) for target in targets])
    return ctc_losses(logits, lengths_B, targets) * sizes_B / sizes_B.double().mean()


def unmerged(logits_BTV: Tensor, lengths_B: Tensor) -> list[list[int]]:
    paths = zip(logits_BTV.argmax(dim=-1), lengths_B.tolist(), strict=True)
    return [[s for s in path_T[:length].tolist() if s] for path_T, length in paths]


true_pair, true_losses = batched.linear_pair, classification.Classification.losses
BROKEN: list[tuple[str, object, str, object, str]] = [
    ("ks", classification, "LinearMean", Activated, "losses"),
    ("ks", linear_mean, "linear_pair", without_bias, "losses"),
    ("sid", classification.Classification, "losses", smoothed, "losses"),
    ("pr", characters, "ctc_losses", not_by_length, "losses"),
    ("pr", characters, "greedy", unmerged, "answers"),
    ("asv", asv, "am_softmax", partial(am_softmax, margin=0.3), "losses"),
]


@pytest.mark.usefixtures("one_asv")
@pytest.mark.parametrize(("name", "module", "attribute", "value", "what"), BROKEN)
def test_a_broken_head_or_loss_is_caught(
    name: str, module: object, attribute: str, value: object, what: str,
    data: Callable[[str], Given], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    given = data(name)
    monkeypatch.setattr(module, attribute, value)
    (row,) = compare(name, given)
    assert f"the {what} differ" in row.verdict
    assert row.verdict.startswith("NO ")


@pytest.mark.parametrize("change", [{"clip": 1.5}, {"eps": 1e-7}, {"optimizer": "adamw", "weight_decay": 1e-2}])  # fmt: skip
def test_another_number_of_the_protocol_is_caught(
    change: dict[str, Any], data: Callable[[str], Given]
) -> None:
    given = data("pr")
    (row,) = compare(
        "pr", dataclasses.replace(given, protocol=dataclasses.replace(given.protocol, **change))
    )
    assert not row.ok
    ours, theirs = sides(row)
    assert ours.losses[0] == pytest.approx(theirs.losses[0], abs=1e-9)  # before the first update


def test_what_raises_has_a_row(
    data: Callable[[str], Given], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = data("ks")
    monkeypatch.setattr(protocol, "prepared", lambda *_: given)
    with monkeypatch.context() as patch:
        patch.setitem(TASKS, "ks", dataclasses.replace(TASKS["ks"], recipe=TASKS["sid"].recipe))
        (row,) = check.protocol_rows(["ks"], Setting())
    assert row.verdict == ("NO ValueError: our updates are of 32 x 1 utterances, s3prl's of 8 x 4")

    class Scaled(linear_mean.LinearMean):
        def __init__(self, dim: int, classes: int) -> None:
            super().__init__(dim, classes)
            self.scale = nn.Parameter(torch.ones(1))

    monkeypatch.setattr(classification, "LinearMean", Scaled)
    (row,) = check.protocol_rows(["ks"], Setting())
    assert "RuntimeError: only one of the heads has the weights scale" in row.verdict
    assert torch.get_default_dtype() == torch.float32


# -- the command, the exit status ------------------------------------------------------------------


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    words = ["check", "protocol", "ks", "ks", "--steps", "2", "--precision", "float32"]
    assert cli.main([*words, "--json", str(path)]) == errors.DONE
    out = capsys.readouterr().out
    assert "apc/tiny, ks: made up, 56 training and 24 test utterances, 4 outputs" in out
    assert "1 equal, 0 not, 0 with a known difference" in out
    record = json.loads(path.read_text())
    (row,) = record["rows"]
    assert row["ok"] is True
    assert row["allowed"] == 1e-2
    assert row["ours"]["losses"] == pytest.approx(row["theirs"]["losses"], abs=1e-5)
    assert row["given"]["precision"] == "float32"


def test_exit_status_and_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["check", "protocol", "kss"]) == errors.USAGE
    assert "Closest: ks" in capsys.readouterr().err
    assert cli.main(["check", "protocol", "ks", "--steps", "0"]) == errors.USAGE
    assert "steps must be at least 1, got 0" in capsys.readouterr().err
    assert cli.main(["check", "protocol", "ks", "--lr", "-1"]) == errors.USAGE
    assert "positive and finite, got -1" in capsys.readouterr().err
    corpus = made_corpus(tmp_path / "short", least=0.3, seed=0)
    words = ["check", "protocol", "asv", "--corpus", str(corpus.folder)]
    assert cli.main(words) == errors.BAD_DATA
    assert "no utterance of train is longer than 2 s" in capsys.readouterr().err
    monkeypatch.setattr(classification, "LinearMean", Activated)
    assert cli.main(["check", "protocol", "sid", "--steps", "1"]) == 1
    assert "0 equal, 1 not, 0 with a known difference" in capsys.readouterr().out
