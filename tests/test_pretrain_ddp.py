"""Two processes under torchrun do what one does that sees the same batches."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
import runs

from mynah import upstream
from mynah.recipes import pretrain
from mynah.recipes.training.distributed import World
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Batch

SCRIPT = Path(__file__).parent / "doubles" / "ranks.py"


def metrics(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_no_rank_is_told_not_to_search_for_unused_parameters(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = upstream.build("apc/tiny").train()
    wav_BS = 0.1 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    batch = Batch(
        wav_BS=wav_BS,
        lengths_B=torch.tensor([8000]),
        ids=("a",),
        generator=torch.Generator().manual_seed(0),
    )
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        wrapped = World(size=2).wrap(model)
        total, _, _ = wrapped(batch)
        total.backward()
    finally:
        torch.distributed.destroy_process_group()
    assert all(p.grad is not None for p in model.parameters())
    assert "find_unused_parameters" not in capfd.readouterr().err


def test_two_ranks_equal_one_process_on_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "__path__", runs.with_toy())
    # 13 utterances, three of them bad: epochs that two do not divide, and skipped steps.
    corpus = runs.noise_corpus(tmp_path / "noise", bad=(3,)).folder
    two, one = tmp_path / "two", tmp_path / "one"
    done = runs.launch(*runs.TORCHRUN, str(SCRIPT), str(corpus), str(two), "16")
    assert done.returncode == 0, done.stderr
    own = ("model.unused=true", "train.accumulate=2")
    assert pretrain.main(runs.arguments(corpus, one, *own, steps=16)) == 0
    ranks = [torch.load(f"{two}-rank{r}-of-2.pt", weights_only=True) for r in range(2)]
    again = torch.load(f"{two}-again-rank1-of-2.pt", weights_only=True)
    single = modelfolder.load(one / "final").state_dict()
    for key, value in single.items():
        assert torch.equal(ranks[0][key], ranks[1][key]), key
        assert torch.equal(ranks[0][key], again[key]), key  # stopped after a step and resumed
        assert torch.allclose(ranks[0][key], value, rtol=1e-4, atol=1e-6), key
    a, b = metrics(two), metrics(one)
    assert [x["step"] for x in a] == [x["step"] for x in b]
    for key in ("loss", "grad_norm", "audio_hours", "epoch", "skipped"):
        assert [x.get(key, 0.0) for x in a] == pytest.approx(
            [x.get(key, 0.0) for x in b], rel=1e-4
        ), key
    assert sum(x["skipped"] for x in a) > 0
    losses = [x["loss"] for x in a if "loss" in x]  # none where all steps of a record were bad
    assert losses[-1] < 0.8 * losses[0]
    dumps = [json.loads(p.read_text()) for p in sorted((two / "nonfinite").iterdir())]
    assert [batch["rank"] for batch in dumps[0]["batches"]] == [0, 1]
    assert done.stderr.count("done: ") == 2  # only rank 0 speaks and writes
    assert len(list((two / "tensorboard").iterdir())) == 1
    page = json.loads((two / "run.json").read_text())
    assert page["identity"]["machine"]["world_size"] == 2
    with pytest.raises(ValueError, match=r"machine\.world_size: was 2, is 1"):
        (two / "final" / "config.json").unlink()
        pretrain.main(runs.arguments(corpus, two, "model.unused=true", steps=16, resume=True))
