"""Weights spread over two processes train as whole ones do, and what is written is whole."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
import runs

from mynah.recipes import pretrain
from mynah.recipes.training import checkpoint
from mynah.upstream.core import modelfolder

SCRIPT = Path(__file__).parent / "doubles" / "ranks_fsdp.py"


def metrics(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def state(folder: Path) -> dict[str, torch.Tensor]:
    return modelfolder.load(folder).state_dict()


def test_sharded_runs_equal_others_and_resume(tmp_path: Path) -> None:
    corpus = runs.noise_corpus(tmp_path / "noise").folder
    out = tmp_path / "run"
    done = runs.launch(*runs.TORCHRUN, str(SCRIPT), str(corpus), str(out))
    assert done.returncode == 0, done.stderr[-4000:]
    for model in runs.SMALL:
        name = model.partition("/")[0]
        sharded, again, ddp = (Path(f"{out}-{name}{end}") for end in ("", "-again", "-ddp"))
        other = state(ddp / "final")
        resumed = state(again / "final")
        for key, value in state(sharded / "final").items():
            assert torch.equal(value, resumed[key]), key
            if key.endswith("attn.k.bias"):
                continue  # softmax does not see it: its gradient is rounding, which Adam amplifies
            assert torch.allclose(value, other[key], rtol=1e-4, atol=1e-5), key
        for key in ("loss", "grad_norm"):
            a, b = ([line[key] for line in metrics(folder)] for folder in (sharded, ddp))
            assert a == pytest.approx(b, rel=1e-3)
        a, b = (checkpoint.read_state(x / "checkpoints" / "step-00000010") for x in (sharded, ddp))
        assert a["progress"] == b["progress"]
        assert a["files"].keys() == b["files"].keys()
    both, sharded = state(Path(f"{out}-both") / "final"), state(Path(f"{out}-mockingjay") / "final")
    assert all(torch.equal(value, sharded[key]) for key, value in both.items())


def test_all_processes_skip_the_same_layers(tmp_path: Path) -> None:
    corpus = runs.noise_corpus(tmp_path / "noise").folder
    out = tmp_path / "run"
    done = runs.launch(*runs.TORCHRUN, str(SCRIPT), str(corpus), str(out), "0.5")
    assert done.returncode == 0, done.stderr[-4000:]
    sharded, again, ddp, whole = (
        state(Path(f"{out}-{name}") / "final") for name in ("sharded", "again", "ddp", "whole")
    )
    for key, value in sharded.items():
        assert torch.equal(value, again[key]), key
        if not key.endswith("attn.k.bias"):  # see above
            assert torch.allclose(value, whole[key], rtol=1e-4, atol=1e-5), key
    other = "encoder.layers.1.ff1.weight"  # where every process draws for itself
    assert not torch.allclose(sharded[other], ddp[other], rtol=1e-4, atol=1e-5)


def test_one_process_is_refused(tmp_path: Path) -> None:
    corpus = runs.noise_corpus(tmp_path / "noise").folder
    with pytest.raises(ValueError, match=r"there is one: start the run with torchrun"):
        pretrain.main(runs.arguments(corpus, tmp_path / "run", "train.fsdp=true", model="apc/tiny"))
