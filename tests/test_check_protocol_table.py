"""``mynah check protocol``: what both sides are given, and the table of what they answered."""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mynah.recipes.parity import protocol_s3prl
from mynah.recipes.parity.protocol import horizon
from mynah.recipes.parity.protocol_data import Kept, made_corpus
from mynah.recipes.parity.protocol_table import Row, Score, Side, lines, settings
from mynah.tasks import ks
from mynah.upstream.core import spec
from mynah.upstream.store import Item

# -- what both are given ---------------------------------------------------------------------------


def test_features_in_memory() -> None:
    model = spec.load("apc/tiny")
    rng = np.random.default_rng(0)
    wavs = {f"u{n}": 0.1 * rng.standard_normal(n).astype(np.float32) for n in (4000, 9000, 6000)}
    items = [
        Item(id=name, key=name.encode().ljust(16), num_samples=len(wav), load=partial(np.copy, wav))
        for name, wav in wavs.items()
    ]
    kept = Kept(model, items, ["u9000", "u4000"], dtype=torch.float64)
    assert kept.lengths(list(wavs)).tolist() == [model.num_frames(len(w)) for w in wavs.values()]
    padded = kept.padded(["u4000", "u9000"], dtype=torch.float16)
    assert padded.dtype == torch.float64
    whole = torch.stack(list(model.hidden_states([torch.from_numpy(wavs["u9000"])])))
    assert torch.allclose(padded[:, 1], whole.double(), atol=1e-3)  # what float16 leaves
    assert torch.equal(padded[:, 1], padded[:, 1].half().double())
    short, _ = kept.lengths(["u4000", "u9000"]).tolist()
    assert not padded[:, 0, short:].any()
    frames = kept.frames(["u4000"])[0]
    assert torch.equal(frames, padded[:, 0, :short])
    assert torch.equal(kept.pooled(["u4000"])[0], frames.mean(dim=1))
    single = Kept(model, items, ["u4000"])
    assert single.padded(["u4000"], dtype=torch.float16).dtype == torch.float16
    assert single.pooled(["u4000"]).dtype == torch.float32
    with pytest.raises(ValueError, match="GiB of memory, at most 4 are allowed"):
        Kept(model, items, ["u9000"] * 200_000)


def test_features_that_float16_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    model = spec.load("apc/tiny")
    item = Item(
        id="u", key=b"u" * 16, num_samples=1600, load=lambda: np.ones(1600, dtype=np.float32)
    )
    states: Callable[..., Iterator[Tensor]] = model.hidden_states
    monkeypatch.setattr(model, "hidden_states", lambda wavs: (1e6 + s for s in states(wavs)))
    kept = Kept(model, [item], ["u"])
    assert float(kept.pooled(["u"]).min()) > 9e5
    monkeypatch.setattr(model, "hidden_states", lambda wavs: (math.nan * s for s in states(wavs)))
    with pytest.raises(ValueError, match="the features of u are not finite"):
        Kept(model, [item], ["u"])


def test_made_up_words(tmp_path: Path) -> None:
    first, again, other = (
        made_corpus(tmp_path / name, least=0.3, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    bytes_of = [(f.folder / "s03-dart-2.wav").read_bytes() for f in (first, again, other)]
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]
    utterances = first.utterances()
    assert len(utterances) == 96
    assert all(0.3 < u.duration <= 0.42 for u in utterances)
    assert {u.label("keyword") for u in utterances} == {"dart", "ceiling", "moon", "tea"}


def test_stand_ins_are_there_while_s3prl_is_imported_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol_s3prl, "STAND_INS", {"not_there.at_all": {"x": 1}, "json": {"dumps": 2}})  # fmt: skip
    with protocol_s3prl._stand_ins():
        assert sys.modules["not_there.at_all"].x == 1
        assert sys.modules["json"] is json  # what is installed stays
    assert "not_there.at_all" not in sys.modules

    def raising() -> None:
        with protocol_s3prl.replaced(ks, UNKNOWN="other"):
            assert ks.UNKNOWN == "other"
            raise KeyError

    with pytest.raises(KeyError):
        raising()
    assert ks.UNKNOWN == "_unknown_"


# -- the table -------------------------------------------------------------------------------------


def side(value: float, *losses: float) -> Side:
    return Side(losses=losses, score=Score(value=value, low=0.1, high=0.9), train=1.0, answer=0.5)


def test_the_table() -> None:
    good = Row(
        task="ks", what="a | b", metric="accuracy", allowed=1e-6, ours=side(0.5, 2.0, 1.5, 1.0),
        theirs=side(0.5, 2.0, 1.5, 1.0), judged=2, difference=1e-12, later=3.0, echo=4.0, same=1.0,
        given={"corpus": "made", "train": 5, "test": 4, "outputs": 3, "batch": "2 x 1", "rate": 0.01,
               "precision": "float64", "heads": "small"},
    )  # fmt: skip
    change = partial(dataclasses.replace, good)
    rows = [
        good,
        change(difference=2e-6),
        change(allowed=None, difference=1.0, same=0.5),
        change(metric_difference=1e-3),
        change(same=0.95),
        change(same=0.95, needed=0.9),
        change(judged=1),
        change(judged=1, least=1),
        change(later=math.inf, difference=1.0),
        Row(task="pr", metric="per", error="KeyError: x | y"),
        Row(task="pr", metric="per"),
    ]
    table = [line.split(" | ") for line in lines(rows)]
    assert table[2][1:] == [
        "a / b", "3", "2", "2.0000, 1.0000", "1.0e-12", "1e-06", "3.0e+00", "4.0e+00", "accuracy",
        "50.00 [10.00, 90.00]", "50.00 [10.00, 90.00]", "100.0 %", "1.50", "1.50", "yes |",
    ]  # fmt: skip
    verdicts = [cells[-1].removesuffix(" |") for cells in table[2:]]
    assert verdicts == [
        "yes", "NO the losses differ", "known", "NO the metrics differ by 1.0e-03",
        "NO the answers differ", "yes", "NO rounding drowns the first updates", "yes",
        "NO a loss is not finite, the losses differ", "NO KeyError: x / y",
        "NO nothing was compared",
    ]  # fmt: skip
    assert [row.ok for row in rows] == [not verdict.startswith("NO") for verdict in verdicts]
    assert table[4][6] == "-"
    assert table[11][1:-1] == [*["-"] * 8, "per", *["-"] * 5]
    assert len({len(cells) for cells in [table[0], *table[2:]]}) == 1
    assert settings(rows) == [
        "ks: made, 5 training and 4 test utterances, 3 outputs; updates of 2 x 1 utterances, "
        "learning rate 0.01, float64, small head"
    ]


def test_the_horizon() -> None:
    assert horizon([0.0, 9e-9, 2e-8, 1e-9], 1e-6) == 2
    assert horizon([0.0, 9e-9], 1e-6) == 2
    assert horizon([math.inf], 1e-6) == 0
    assert horizon([], 1e-6) == 0
