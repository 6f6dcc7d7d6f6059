"""Training numerics: golden losses of five steps, and every objective learns."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from golden import load_make

import mynah.upstream
from mynah.upstream.core.contract import Batch, Upstream

RELATIVE = 1e-4  # instruction sets and thread counts move the fifth loss by about 1e-6


make = load_make()
NAMES: list[str] = make.names()


def read(path: Path) -> list[float]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4", "5"]
    return [float(line.split()[1]) for line in lines]


def test_every_trainable_family_has_golden_losses() -> None:
    assert {name.partition("/")[0] for name in NAMES} >= {"apc", "mockingjay", "wav2vec2"}
    expected = {make.path(name).name for name in NAMES}
    missing = [name for name in NAMES if not make.path(name).is_file()]
    assert not missing, f"run: python tests/golden/make.py {' '.join(missing)}"
    assert {p.name for p in make.HERE.glob("*.txt")} == expected


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_the_golden_ones(name: str) -> None:
    path = make.path(name)
    header = path.read_text().splitlines()[:2]
    assert header[0].startswith(f"# {name}:")
    assert header[1].endswith(f"command: python tests/golden/make.py {name}")
    assert make.losses(name) == pytest.approx(read(path), rel=RELATIVE)


def test_a_real_change_is_noticed() -> None:
    """One per cent more in each step is a difference."""
    golden = read(make.path("apc/tiny"))
    changed = make.losses("apc/tiny", step_length=1.01 * make.STEP_LENGTH)
    assert changed[0] == pytest.approx(golden[0], rel=RELATIVE)
    assert changed != pytest.approx(golden, rel=RELATIVE)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_reached_by_the_loss(name: str) -> None:
    model = make.model(name)
    data = make.labelled(model, make.batch(torch.Generator().manual_seed(make.SEED)))
    model.loss(data).total.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    idle = [n for n, p in trained.items() if p.grad is None or not p.grad.any()]
    wild = [n for n, p in trained.items() if n not in idle and not p.grad.isfinite().all()]
    assert (idle, wild) == ([], [])


def held_out(model: Upstream, data: Batch) -> dict[str, float]:
    """Loss and its parts on four fixed draws of masks and noise, without dropout."""
    model.eval()
    sums: dict[str, float] = {}
    with torch.no_grad():
        for seed in range(4):
            generator = torch.Generator().manual_seed(1000 + seed)
            loss = model.loss(dataclasses.replace(data, generator=generator))
            for key, value in {"total": loss.total, **loss.parts}.items():
                sums[key] = sums.get(key, 0.0) + value.item() / 4
    model.train()
    return sums


# moco's loss rises while its queue fills, the more so as these four utterances meet their own old
# keys there: tests/test_moco.py shows that it learns. Of a family's variants all but the first are slow.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name.endswith("/tiny") else pytest.mark.slow)
        for name in NAMES
        if not name.startswith("moco/")
    ],
)
def test_loss_falls(name: str) -> None:
    """Within 30 steps (60 for a contrastive task), with dropout, AdamW and random choices drawn anew at each step, as in real training."""
    torch.manual_seed(0)
    model = make.teach(mynah.upstream.build(name, seed=make.SEED)).train()
    data = make.labelled(model, make.batch(torch.Generator().manual_seed(make.SEED)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = held_out(model, data)
    contrastive = "code_perplexity" in before and "contrastive" in before
    steps = 60 if contrastive else 30
    for step in range(1, steps + 1):
        loss = model.loss(data).total
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        model.after_step(step, steps)
    after = held_out(model, data)
    assert after["total"] < 0.95 * before["total"]
    if contrastive:  # not by the other terms, and not because all frames share a code
        assert after["contrastive"] < 0.7 * before["contrastive"]
        assert after["accuracy"] > before["accuracy"] + 0.2
        assert after["code_perplexity"] > 20
