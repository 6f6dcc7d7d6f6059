"""The DTW race: the same features for everyone, equal scores, and an honest table."""

import builtins
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mynah.recipes import cli, errors
from mynah.recipes.speed_dtw import Args, features, lines, main, run, s3prl_match

SMALL = Args(
    queries=4, docs=5, query_frames=9, doc_frames=20, widths=(6,), layers=2, pairs=7, rounds=2
)


def test_everyone_runs_and_agrees() -> None:
    pytest.importorskip("dtw")
    before = torch.get_num_threads()
    rows = run(SMALL, 6)
    assert torch.get_num_threads() == before
    assert [row.name for row in rows] == [
        "s3prl match",
        "s3prl match, in its pool",
        "ours",
        "ours, 2 layers at once",
    ]
    for row in rows:
        assert row.milliseconds is not None
        assert row.milliseconds > 0
        assert len(row.all_milliseconds) == 2
        assert row.difference is not None
        assert row.difference < 1e-6
    assert rows[2].ratio == 1
    assert rows[2].difference == 0
    table = lines(rows)
    assert len(table) == 6
    assert "4 queries of 9 frames x 5 documents of 20, width 6" in table[0]
    assert all(line.count("|") == 5 for line in table)


def test_without_dtw_python(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name == "s3prl.downstream.quesst14_dtw.expert":
            raise ModuleNotFoundError("No module named 'dtw'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    rows = run(SMALL, 6)
    assert [row.note for row in rows] == [
        "cannot run here: No module named 'dtw'; pip install dtw-python lxml", "", ""
    ]  # fmt: skip
    assert any("pip install dtw-python" in line for line in lines(rows))


def test_the_stand_in_does_not_stay() -> None:
    pytest.importorskip("dtw")
    match, distance = s3prl_match()
    assert "s3prl.downstream.quesst14_dtw.dataset" not in sys.modules
    query, doc = (x[0].numpy() for x in features(2, 10, 4, layers=1, seed=0))
    settings = {"step_pattern": "asymmetric", "open_begin": True, "open_end": True}
    assert -1 <= match(query, doc, "a", "b", distance, True, settings)[2] <= 0


def test_features_are_seeded_and_ragged() -> None:
    found = features(30, 20, 3, layers=2, seed=1)
    assert {x.shape[0] for x in found} == {2}
    lengths = [x.shape[1] for x in found]
    assert min(lengths) >= 16
    assert max(lengths) <= 24
    assert len(set(lengths)) > 4
    assert torch.equal(found[3], features(30, 20, 3, layers=2, seed=1)[3])


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.json"
    given = "--queries 3 --docs 4 --query-frames 8 --doc-frames 12 --widths 5 7 --layers 2"
    more = f"--pairs 2 --rounds 1 --json {out}"
    assert cli.main(["speed", "dtw", *given.split(), *more.split()]) == 0
    assert "ours, 2 layers at once" in capsys.readouterr().out
    problems = {row["problem"] for row in json.loads(out.read_text())}
    assert problems == {
        f"3 queries of 8 frames x 4 documents of 12, width {width}" for width in (5, 7)
    }


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        main(Args(docs=0))
    with pytest.raises(ValueError, match="give a width"):
        main(Args(widths=()))
    with pytest.raises(ValueError, match="queries under 5 frames"):
        main(Args(query_frames=6))
    assert cli.main(["speed", "dtw", "--rounds", "0"]) == errors.USAGE
