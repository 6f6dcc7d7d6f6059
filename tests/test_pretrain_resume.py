"""A run that was stopped or finished, or that is damaged or in use: what going on with it does."""

import errno
import fcntl
import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
import runs
from runs import run, sha

from mynah import upstream
from mynah.recipes.errors import BadDataError
from mynah.recipes.training import checkpoint, runfolder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.noise_corpus(tmp_path_factory.mktemp("corpora") / "noise").folder


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "__path__", runs.with_toy())


def test_a_finished_run_is_left_alone(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    run(corpus, out)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != "lock"}
    torch.set_num_threads(torch.get_num_threads() + 1)  # which machine asks does not matter
    try:
        assert run(corpus, out) == 0
    finally:
        torch.set_num_threads(torch.get_num_threads() - 1)
    assert "finished already" in capsys.readouterr().err
    after = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != "lock"}
    assert before == after
    with pytest.raises(
        ValueError, match=r"finished run that differs(?s:.*)train\.steps: was 12, is 13"
    ):
        run(corpus, out, steps=13)


def stopped(corpus: Path, out: Path) -> None:
    """Leave a run after its first steps, by its time limit."""
    assert run(corpus, out, minutes=1e-6) == 75


def test_a_time_limit_leaves_a_checkpoint_and_the_same_end(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "whole")
    out = tmp_path / "run"
    stopped(corpus, out)
    assert checkpoint.names(out / "checkpoints") == ["step-00000001"]
    assert not (out / "final").exists()
    with pytest.raises(ValueError, match="unfinished run: add --resume"):
        run(corpus, out)
    assert run(corpus, out, resume=True) == 0
    assert sha(out) == sha(tmp_path / "whole")
    assert len(json.loads((out / "run.json").read_text())["sessions"]) == 2
    with pytest.raises(ValueError, match="--minutes must be above 0"):
        run(corpus, out, minutes=-1.0)


def test_resuming_nothing_is_starting(corpus: Path, tmp_path: Path) -> None:
    assert run(corpus, tmp_path / "run", resume=True) == 0


def test_resuming_something_else_is_refused(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped(corpus, out)
    with pytest.raises(ValueError, match="differs") as caught:
        run(corpus, out, "train.optimizer.eps=1e-3", resume=True, seed=3)
    told = str(caught.value)
    assert "recipe.train.optimizer.eps: was 1e-08, is 0.001" in told
    assert "recipe.train.seed: was 0, is 3" in told
    assert "width" not in told
    other = runs.noise_corpus(tmp_path / "noise", seed=1)
    with pytest.raises(ValueError, match=r"data\.0\.version: was"):
        run(other.folder, out, resume=True)
    torch.set_num_threads(torch.get_num_threads() + 1)
    try:
        with pytest.raises(ValueError, match=r"machine\.threads"):
            run(corpus, out, resume=True)
    finally:
        torch.set_num_threads(torch.get_num_threads() - 1)
    overrides = ("train.keep=1", "train.patience=3", "train.workers=0", "train.cache_mb=0")
    assert run(corpus, out, *overrides, resume=True) == 0  # what cannot change a weight may change


def test_a_run_that_left_no_checkpoint_does_not_block_its_folder(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="layers"):
        run(corpus, out, "train.checkpoint_activations=true")
    (out / "nonfinite").mkdir()
    (out / "nonfinite" / "step-1.json").touch()
    assert run(corpus, out, steps=2) == 0
    assert "holds no checkpoint of an earlier run" in capsys.readouterr().err
    record = json.loads((out / "run.json").read_text())
    assert record["identity"]["recipe"]["train"]["steps"] == 2
    assert len(record["sessions"]) == 2
    assert not (out / "nonfinite").exists()


def test_a_failure_before_anything_is_written_leaves_no_folder(
    corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(LookupError, match="split"):
        run(corpus, tmp_path / "run", split="nosuch")
    assert not (tmp_path / "run").exists()


def test_damaged_checkpoints_are_skipped_or_end_the_run(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(corpus, tmp_path / "whole")
    out = tmp_path / "run"
    run(corpus, out)
    (out / "final" / "config.json").unlink()
    five, ten = (out / "checkpoints" / f"step-{n:08}" for n in (5, 10))
    (ten / "state.safetensors").write_bytes(b"")
    assert run(corpus, out, resume=True) == 0
    told = capsys.readouterr().err
    assert "skipped" in told
    assert "step-00000010/state.safetensors is damaged" in told
    assert sha(out) == sha(tmp_path / "whole")
    (out / "final" / "config.json").unlink()
    for folder in (five, ten):
        (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadDataError, match="no checkpoint of this run is whole"):
        run(corpus, out, resume=True)
    assert five.is_dir()
    assert ten.is_dir()


def test_a_folder_in_use_is_refused_and_a_dead_owner_is_not_waited_for(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with (
        runfolder.locked(out),
        pytest.raises(ValueError, match=r"in use by another run \(process \d+ on "),
    ):
        run(corpus, out)
    (out / "lock").write_text('{"pid": 4194999, "host": "elsewhere"}')
    assert run(corpus, out) == 0
    assert "process 4194999 on elsewhere" in capsys.readouterr().err
    assert (out / "lock").read_bytes() == b""


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match="is a file: give a new folder"), runfolder.locked(file):
        pass
    taken = "is no run and holds file: give a new folder"
    with pytest.raises(ValueError, match=taken), runfolder.locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "killed").mkdir()  # between its first two files
    (tmp_path / "killed" / "recipe.yaml").touch()
    (tmp_path / "killed" / "train.log").touch()  # whoever started it keeps it here
    with runfolder.locked(tmp_path / "killed"):
        pass
    (tmp_path / "run.json").touch()
    for out in (tmp_path, tmp_path / "iteration-1", tmp_path / "new"):
        with runfolder.locked(out):
            pass
    (tmp_path / "outer" / "iteration-1" / "labels").mkdir(parents=True)
    for out in (tmp_path / "outer", tmp_path / "outer" / "iteration-1"):
        with runfolder.locked(out):
            pass


def test_a_file_system_without_locks_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with runfolder.locked(tmp_path / "run") as hold:
        assert hold.recovered is None
    assert "has no locks" in caplog.text
