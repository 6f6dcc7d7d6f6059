"""A killed run goes on to the same weights, whenever and however it was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
import runs

from mynah.recipes.training import checkpoint
from mynah.upstream.core import modelfolder

DOUBLES = Path(__file__).parent / "doubles"


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_sigkill_at_every_moment_of_saving_and_at_random(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(DOUBLES / "killer.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["moments"] > 30
    assert report["died"] == report["moments"]  # every one of them was a kill
    assert report["wrong"] == []  # and every resumption ended in the same weights and losses
    assert set(report["resumed_from"]) == {"none", "step-00000005", "step-00000010"}
    assert report["random_kills"] > 0
    assert report["random_equal"]


@pytest.mark.parametrize("family", ["apc", "mockingjay", "wav2vec2"])
def test_every_family_stopped_and_resumed_ends_in_the_same_weights(
    family: str, tmp_path: Path
) -> None:
    from mynah.recipes import pretrain

    corpus = runs.noise_corpus(tmp_path / "noise").folder
    small = {"apc": ["model.width=8"]}.get(family, ["model.dim=48", "model.ffn=32"])
    overrides = (*small, "train.batch_seconds=3", "train.crop_seconds=1", "train.min_seconds=0.3")

    def run(out: Path, **options: object) -> int:
        args = {"model": f"{family}/tiny", "steps": 4, "device": "cpu", **options}
        return pretrain.main(
            pretrain.Args(corpus=(corpus,), out=out, overrides=overrides, **args)  # type: ignore[arg-type]
        )

    assert run(tmp_path / "whole") == 0
    out = tmp_path / "run"
    codes = [run(out, resume=True, minutes=1e-6) for _ in range(4)]
    assert codes == [75, 75, 75, 0]
    ends = [modelfolder.verify(folder / "final")["sha256"] for folder in (tmp_path / "whole", out)]
    assert ends[0] == ends[1]
    trained = modelfolder.load(out / "final").state_dict()
    untrained = pretrain.build_model(pretrain_recipe(family, overrides)).state_dict()
    assert any(not trained[key].equal(untrained[key]) for key in trained)


def pretrain_recipe(family: str, overrides: tuple[str, ...]):  # type: ignore[no-untyped-def]
    from mynah.recipes.training import config

    return config.load(f"{family}/tiny", overrides=overrides, steps=4)


def test_sigterm_ends_a_command_with_a_checkpoint(tmp_path: Path) -> None:
    corpus = runs.noise_corpus(tmp_path / "noise").folder
    out = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "mynah", "pretrain", "apc/tiny", "model.width=8"),
        *("train.batch_seconds=4", "train.crop_seconds=1", "train.log_every=1"),
        *("--corpus", str(corpus), "--out", str(out), "--steps", "100000", "--device", "cpu"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        for _ in range(1200):
            if (out / "metrics.jsonl").is_file() and (out / "metrics.jsonl").stat().st_size:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, told
    assert "stopped by SIGTERM after step" in told
    (name,) = checkpoint.names(out / "checkpoints")
    whole, problems = checkpoint.newest(out / "checkpoints")
    assert problems == []
    assert whole is not None
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"step-{last['step']:08}" == name


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR2, 75), (signal.SIGINT, 130)])
def test_other_signals_do_the_same_and_the_end_is_the_same(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mynah import upstream
    from mynah.recipes import pretrain

    monkeypatch.setattr(upstream, "__path__", runs.with_toy())
    corpus = runs.noise_corpus(tmp_path / "noise").folder
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)}
    assert pretrain.main(runs.arguments(corpus, tmp_path / "whole")) == 0
    model = upstream.get("toy").MODEL
    after_step = model.after_step

    def killed(self: object, step: int, total: int) -> None:
        after_step(self, step, total)
        if step == 3:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(model, "after_step", killed)
        assert pretrain.main(runs.arguments(corpus, tmp_path / "run")) == code
    assert f"stopped by {number.name} after step 4 of 12" in capsys.readouterr().err
    assert checkpoint.names(tmp_path / "run" / "checkpoints") == ["step-00000004"]
    assert pretrain.main(runs.arguments(corpus, tmp_path / "run", resume=True)) == 0
    ends = [modelfolder.verify(tmp_path / n / "final")["sha256"] for n in ("whole", "run")]
    assert ends[0] == ends[1]
    assert before == {n: signal.getsignal(n) for n in before}
