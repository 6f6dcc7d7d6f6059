"""Optimisers: SGD is torch's, LARS is held against the formula in NumPy, options fit their kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from mynah.recipes.training import optim
from mynah.recipes.training.lars import LARS
from mynah.recipes.training.values import OptimizerConfig


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))


def gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_sgd_is_torchs() -> None:
    ours, theirs = net(), net()
    config = OptimizerConfig(kind="sgd", momentum=0.8, weight_decay=0.1, decay_vectors=True)
    mine = optim.build(ours, config, lr=0.05)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.8, weight_decay=0.1)
    for step in range(4):
        for model, optimizer in ((ours, mine), (theirs, reference)):
            gradients(model, step)
            optimizer.step()
    for name, p in weights(theirs).items():
        torch.testing.assert_close(weights(ours)[name], p)


def test_lars_is_its_formula() -> None:
    model = net()
    config = OptimizerConfig(
        kind="lars", momentum=0.9, weight_decay=0.05, trust=0.02, vector_share=0.1
    )
    optimizer = optim.build(model, config, lr=0.6)
    expected = {name: p.double().numpy().copy() for name, p in weights(model).items()}
    speed = {name: np.zeros_like(w) for name, w in expected.items()}
    for step in range(5):
        rate = 0.6 / (step + 1)
        if step:  # the first is the one it was built with
            optim.set_lr(optimizer, rate)
        gradients(model, step)
        for name, p in model.named_parameters():
            assert p.grad is not None
            w, d = expected[name], p.grad.double().numpy().copy()
            if w.ndim > 1:  # vectors neither decay nor are adapted
                d = d + 0.05 * w
                d = d * 0.02 * np.linalg.norm(w) / np.linalg.norm(d)
            speed[name] = 0.9 * speed[name] + d
            expected[name] = w - rate * (1 if w.ndim > 1 else 0.1) * speed[name]
        optimizer.step()
    for name, p in weights(model).items():
        np.testing.assert_allclose(p.numpy(), expected[name], rtol=2e-5, atol=1e-6)


def test_lars_where_a_norm_is_nought() -> None:
    still, moved = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.zeros(2, 2))
    optimizer = LARS([still, moved], lr=0.5)
    still.grad, moved.grad = torch.zeros(2, 2), torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(still.detach(), torch.ones(2, 2))
    assert torch.equal(moved.detach(), torch.full((2, 2), -0.5))


def test_the_step_of_lars_does_not_depend_on_the_scale_of_gradients() -> None:
    after = []
    for scale in (1.0, 1000.0):
        model = net()
        optimizer = optim.build(model, OptimizerConfig(kind="lars", weight_decay=0.0), lr=1.0)
        gradients(model, 0)
        for p in model.parameters():
            assert p.grad is not None
            p.grad *= scale
        optimizer.step()
        after.append(weights(model))
    torch.testing.assert_close(after[0]["0.weight"], after[1]["0.weight"])
    moved = (after[0]["0.weight"] - weights(net())["0.weight"]).norm()
    assert float(moved / weights(net())["0.weight"].norm()) == pytest.approx(0.001, rel=1e-4)


@pytest.mark.parametrize("kind", ["sgd", "lars"])
def test_a_resumed_optimiser_goes_on_as_if_nothing_had_been(kind: str) -> None:
    config = OptimizerConfig.model_validate({"kind": kind})
    straight, broken = net(), net()
    first, second = (optim.build(m, config, lr=0.1) for m in (straight, broken))
    for model, optimizer in ((straight, first), (broken, second)):
        gradients(model, 0)
        optimizer.step()
    kept = {name: t.clone() for name, t in optim.state_tensors(second, broken).items()}
    assert set(kept) == {f"{name}|momentum_buffer" for name, _ in broken.named_parameters()}
    second = optim.build(broken, config, lr=0.1)
    optim.load_state_tensors(second, broken, kept)
    for model, optimizer in ((straight, first), (broken, second)):
        gradients(model, 1)
        optimizer.step()
    for name, p in weights(straight).items():
        assert torch.equal(p, weights(broken)[name])


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"kind": "sgd", "betas": (0.5, 0.9)}, "betas"),
        ({"kind": "lars", "eps": 1e-6}, "eps"),
        ({"kind": "adamw", "momentum": 0.5}, "momentum"),
        ({"kind": "sgd", "trust": 0.1}, "trust"),
        ({"kind": "adam", "vector_share": 0.1}, "vector_share"),
        ({"kind": "lars", "vector_share": 0.1, "decay_vectors": True}, "vector_share"),
    ],
)
def test_options_of_another_kind_are_refused(values: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=f"has no use for {named}"):
        OptimizerConfig.model_validate(values)


def test_recipes_take_the_optimisers_of_their_papers() -> None:
    from mynah.recipes.training.config import load

    small = load("delores/s").train
    assert small.optimizer == load("delores/base").train.optimizer
    assert (small.optimizer.kind, small.optimizer.trust, small.lr) == ("lars", 0.001, 0.4)
    assert small.lr * small.optimizer.vector_share == pytest.approx(0.0048 * 512 / 256)
    for name, lr in (("delores/m", 3e-4), ("byol/simsiam", 0.05)):
        train = load(name).train
        assert (train.optimizer.kind, train.optimizer.momentum, train.lr) == ("sgd", 0.9, lr)
