"""The k-means race: the same points for everyone, and an honest table."""

import builtins
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mynah.recipes import cli, speed_kmeans, speed_memory
from mynah.recipes.speed_kmeans import Args, inertia, lines, main, mfccs, mixture, run
from mynah.recipes.speed_memory import make_corpus


def test_everyone_runs_and_finds_about_the_same() -> None:
    pytest.importorskip("faiss")
    before = torch.get_num_threads()
    rows = run(mixture(4000, 6, seed=0), clusters=8, seeds=(0, 1), iterations=10)
    assert torch.get_num_threads() == before
    assert len(rows) == 8
    assert [row.name.startswith("ours") for row in rows] == [False] * 5 + [True] * 3
    ours = next(row for row in rows if row.name == "ours")
    assert ours.ratio == 1
    assert ours.excess == 0
    for row in rows:
        assert row.cpu_seconds is not None
        assert len(row.all_seconds) == 2
        assert row.excess is not None
        assert -0.05 < row.excess < 0.1
        assert row.equal == (row.excess >= -0.001)
    table = lines(rows)
    assert len(table) == 10
    assert "4 000 x 6, 8 clusters" in table[0]
    assert all(line.count("|") == 7 for line in table)


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name == "faiss":
            raise ModuleNotFoundError("No module named 'faiss'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    rows = run(mixture(2000, 3, seed=0), clusters=3, seeds=(0,), iterations=3)
    assert [row.note for row in rows if row.name == "faiss"] == [
        "cannot run here: No module named 'faiss'; pip install faiss-cpu"
    ]
    assert any("pip install faiss-cpu" in line for line in lines(rows))


def test_inertia_is_exact() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [10.0, 0.0]])
    assert inertia(points, torch.tensor([[0.0, 0.0], [10.0, 1.0]])) == pytest.approx(26 / 3)


def test_mixture_is_seeded_and_correlated() -> None:
    points = mixture(3000, 5, seed=1)
    assert points.dtype == torch.float32
    assert torch.equal(points, mixture(3000, 5, seed=1))
    assert not torch.equal(points, mixture(3000, 5, seed=2))
    spread = torch.linalg.eigvalsh(points.T.cov())
    assert spread[-1] > 3 * spread[0]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.json"
    given = ["--points", "1500", "--widths", "4", "--clusters", "3", "--seeds", "0"]
    assert cli.main(["speed", "kmeans", *given, "--json", str(out)]) == 0
    assert "HuBERT's recipe" in capsys.readouterr().out
    assert {row["problem"] for row in json.loads(out.read_text())} == {"1 500 x 4, 3 clusters"}


def test_corpus(tmp_path: Path) -> None:
    make_corpus(tmp_path, utterances=3, seconds=0.5)
    assert mfccs(tmp_path, 50).shape == (50, 39)
    with pytest.raises(ValueError, match="ask for fewer points"):
        mfccs(tmp_path, 10**9)


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="as many widths as points, got 2 and 1"):
        main(Args(points=(100,)))
    with pytest.raises(ValueError, match="at least 1"):
        main(Args(clusters=0))
    with pytest.raises(ValueError, match="at least 1"):
        main(Args(points=(100,), widths=(0,)))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        speed_memory.main(speed_memory.Args(steps=0))
    assert speed_kmeans.SUBSET == 256
