"""Checkpoints: whole or named as damaged; what a full disk leaves."""

import errno
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
import runs

from mynah import upstream
from mynah.recipes.errors import DISK, exit_code
from mynah.recipes.training import checkpoint, optim
from mynah.recipes.training.checkpoint import DamagedError, Progress
from mynah.recipes.training.values import OptimizerConfig
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Upstream

IDENTITY = {"recipe": {"seed": 1}}


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "__path__", runs.with_toy())


def trained(seed: int = 0, steps: int = 3) -> tuple[Upstream, torch.optim.Optimizer]:
    model = upstream.build("toy/tiny", seed=seed)
    optimizer = optim.build(model, OptimizerConfig(), 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(p.square().sum() for p in model.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()
    return model, optimizer


def save(root: Path, step: int, *, keep: int = 9, seed: int = 0) -> Path:
    model, optimizer = trained(seed, steps=1 + step % 7)
    now = Progress(step=step, epoch=2, epoch_start=7, skipped=1, audio_seconds=1.5)
    return checkpoint.save(root, model, optimizer, now, identity=IDENTITY, keep=keep)


def test_a_checkpoint_brings_back_weights_moments_and_place(tmp_path: Path) -> None:
    model, optimizer = trained()
    now = Progress(step=5, epoch=2, epoch_start=7, bad_run=1, skipped=3, audio_seconds=1.25)
    folder = checkpoint.save(tmp_path, model, optimizer, now, identity=IDENTITY, keep=1)
    other, fresh = trained(seed=1, steps=0)
    assert checkpoint.load(folder, other, fresh) == now
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    before = optim.state_tensors(optimizer, model)
    after = optim.state_tensors(fresh, other)
    assert before.keys() == after.keys()
    assert len(before) == 3 * len(list(model.parameters()))
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert modelfolder.load(folder).fingerprint() == model.fingerprint()  # it can be probed


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "state.safetensors", "state.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_damage_is_named_and_the_one_before_is_taken(
    tmp_path: Path, name: str, damage: str
) -> None:
    good, bad = save(tmp_path, 5), save(tmp_path, 10)
    assert checkpoint.newest(tmp_path) == (bad, [])
    file = bad / name
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes({"flip": data, "cut": data[:-3], "empty": b""}[damage])
    whole, problems = checkpoint.newest(tmp_path)
    assert whole == good
    assert len(problems) == 1
    assert f"step-00000010/{name}" in problems[0]
    with pytest.raises(DamagedError):
        checkpoint.load(bad, *trained())


def test_a_damaged_one_is_replaced_when_its_step_comes_again(tmp_path: Path) -> None:
    folder = save(tmp_path, 5)
    (folder / "state.json").unlink()
    assert checkpoint.newest(tmp_path)[0] is None
    assert save(tmp_path, 5) == folder
    assert checkpoint.newest(tmp_path) == (folder, [])
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 120_000_000):
        save(tmp_path, step, keep=2)
    assert checkpoint.names(tmp_path) == ["step-120000000", "step-00000015"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000015", "step-120000000"]


def test_state_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 5)
    other = upstream.build("toy/base")
    with pytest.raises(ValueError, match="does not fit toy"):
        checkpoint.load(folder, other, optim.build(other, OptimizerConfig(), 0.1))
    tensors = {"elsewhere.weight|exp_avg": torch.zeros(2)}
    model, optimizer = trained()
    with pytest.raises(ValueError, match="does not belong to this model"):
        optim.load_state_tensors(optimizer, model, tensors)


def test_a_format_from_the_future_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 5)
    state = json.loads((folder / "state.json").read_text())
    del state["sha256"]
    state["format"] = 2
    state["sha256"] = checkpoint._digest(state)
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(DamagedError, match="format 2, this version reads 1"):
        checkpoint.read_state(folder)


@pytest.mark.parametrize("moment", range(3))
def test_a_full_disk_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    good = save(tmp_path, 5)
    calls = iter(range(99))

    def full(*args: object) -> None:
        if next(calls) == moment:
            raise OSError(errno.ENOSPC, "No space left on device", str(args[0]))

    with monkeypatch.context() as patch:
        for owner, name in (
            (checkpoint, "_write_tensors"),
            (checkpoint, "write_bytes"),
            (modelfolder, "_write_tensors"),
        ):
            real = getattr(owner, name)
            patch.setattr(owner, name, lambda *a, real=real: (full(a[1]), real(*a)))
        with pytest.raises(
            OSError, match="make room and run the same command with --resume"
        ) as caught:
            save(tmp_path, 10)
    assert exit_code(caught.value) == DISK
    assert checkpoint.newest(tmp_path) == (good, [])
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]


def test_a_really_full_disk(tmp_path: Path) -> None:
    """The same on a small file system, where one can be mounted; /dev/shm will not do."""
    import subprocess

    script = tmp_path / "full.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nimport test_checkpoint as t\n"
        "t.upstream.__path__ = t.runs.with_toy()\nroot = Path(sys.argv[1])\ngood = t.save(root, 5)\n"
        "(root / 'filler').write_bytes(b'0' * t.shutil.disk_usage(root).free)\n"
        "try:\n    t.save(root, 10)\n"
        "except OSError as e:\n    print(t.exit_code(e), e)\n"
        "assert t.checkpoint.newest(root) == (good, [])\nprint('whole')\n"
    )
    mount = tmp_path / "disk"
    mount.mkdir()
    command = f"mount -t tmpfs -o size=64k none {mount} && exec {sys.executable} {script} {mount}"
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare(1) here")
    if subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system")
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", command], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("74 "), done.stderr
    assert "no room for a checkpoint" in done.stdout
    assert done.stdout.endswith("whole\n"), done.stderr
