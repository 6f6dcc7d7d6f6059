"""K heads at once are K separate Adam runs, and what happens to one does not touch the others."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mynah.downstream.core.featurizer import Featurizer, Probe
from mynah.downstream.core.sweep import Sweep
from mynah.downstream.linear_ctc import LinearCTC
from mynah.downstream.linear_mean import LinearMean

L, B, T, D, C = 3, 8, 20, 6, 4
RATES = (1e-1, 1e-2, 1e-3)


class Recurrent(nn.Module):
    """A head whose forward looks at values, which vmap cannot do."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(D, 5, batch_first=True)
        self.out = nn.Linear(5, C)

    def forward(self, x_BTD: torch.Tensor, lengths_B: torch.Tensor | None = None) -> torch.Tensor:
        if float(x_BTD.detach().abs().max()) > 1e9:
            raise ValueError("out of range")
        hidden, _ = self.rnn(x_BTD)
        return self.out(hidden[:, -1])


HEADS: dict[str, Callable[[], nn.Module]] = {
    "mean": lambda: LinearMean(D, C, projection=7),
    "frames": lambda: LinearCTC(D, C, projection=7),
    "recurrent": Recurrent,
}


def data(step: int, pooled: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    shape = (B, L, D) if pooled else (L, B, T, D)
    x = torch.randn(shape, generator=generator)
    lengths_B = torch.randint(5, T + 1, (B,), generator=generator)
    return x, lengths_B, torch.randint(0, C, (B,), generator=generator)


def losses(out: torch.Tensor, target_B: torch.Tensor) -> torch.Tensor:
    """(K, B, C) or (K, B, T, C) -> (K, B)."""
    if out.ndim == 4:
        out = out.mean(2)
    heads = out.shape[0]
    flat = F.cross_entropy(out.flatten(0, 1), target_B.repeat(heads), reduction="none")
    return flat.view(heads, -1)


def separate(
    build: Callable[[], nn.Module], seed: int, rate: float, pooled: bool, steps: int
) -> Probe:
    """One probe trained alone by torch's own clipping and Adam."""
    torch.manual_seed(seed)
    model = Probe(Featurizer(L), build())
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for step in range(steps):
        for half in range(2):
            x, lengths_B, y = data(2 * step + half, pooled)
            (losses(model(x, None if pooled else lengths_B)[None], y).mean() / 2).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize(
    ("name", "mode", "pooled"),
    [
        ("mean", "stacked", True),
        ("mean", "vmap", True),
        ("mean", "loop", True),
        ("mean", "auto", False),
        ("frames", "auto", False),
        ("recurrent", "auto", False),
    ],
)
def test_it_is_k_separate_runs(name: str, mode: str, pooled: bool) -> None:
    build = HEADS[name]
    sweep = Sweep(build, layers=L, learning_rates=RATES, seeds=(0, 5), clip=0.5, mode=mode)  # type: ignore[arg-type]
    for step in range(12):
        for half in range(2):
            x, lengths_B, y = data(2 * step + half, pooled)
            out = sweep(x, None if pooled else lengths_B)
            sweep.backward(losses(out, y).sum(1) / (2 * B))
        sweep.update()
    assert (
        sweep.mode == {"recurrent": "loop", "mean": "stacked", "frames": "stacked"}[name]
        or mode != "auto"
    )
    for k, (seed, rate) in enumerate(sweep.grid):
        alone = separate(build, seed, rate, pooled, 12)
        for key, value in sweep.state(k).items():
            expected = alone.state_dict()[key]
            assert torch.allclose(value, expected, rtol=1e-5, atol=1e-6), (seed, rate, key)


def test_a_head_that_diverges_is_alone() -> None:
    def run(poison: bool) -> Sweep:
        sweep = Sweep(HEADS["mean"], layers=L, learning_rates=RATES, patience=4)
        for step in range(10):
            x, _, y = data(step, True)
            each = losses(sweep(x), y).mean(1)
            if poison and step >= 3:
                each = each * torch.tensor([float("nan"), 1.0, 1.0])
            sweep.backward(each)
            sweep.update()
        return sweep

    clean, poisoned = run(False), run(True)
    assert poisoned.alive == [False, True, True]
    assert list(poisoned.living()) == [1, 2]
    for k in (1, 2):
        for key, value in poisoned.state(k).items():
            assert torch.equal(value, clean.state(k)[key])
    assert all(torch.isfinite(v).all() for v in poisoned.state(0).values())  # never updated by NaN


def test_a_single_bad_step_is_skipped_not_fatal() -> None:
    sweep = Sweep(HEADS["mean"], layers=L, learning_rates=RATES, patience=2)
    for step in range(4):
        x, _, y = data(step, True)
        scale = torch.tensor([float("inf") if step % 2 else 1.0, 1.0, 1.0])
        before = sweep.state(0)
        sweep.backward(losses(sweep(x), y).mean(1) * scale)
        norms_K = sweep.update()
        changed = any(not torch.equal(before[n], v) for n, v in sweep.state(0).items())
        assert changed == (step % 2 == 0)
        assert bool(torch.isfinite(norms_K[0])) == changed
    assert sweep.alive == [True] * 3


def test_heads_start_alike_within_a_seed_and_apart_between_seeds() -> None:
    sweep = Sweep(HEADS["mean"], layers=L, learning_rates=RATES, seeds=(0, 1))
    weights = [sweep.state(k)["head.projector.weight"] for k in range(6)]
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Sweep(HEADS["mean"], layers=L, learning_rates=RATES)
    assert torch.equal(torch.rand(3), expected)


def test_a_probe_of_its_own() -> None:
    sweep = Sweep(HEADS["mean"], layers=L, learning_rates=RATES)
    x, _, y = data(0, True)
    sweep.backward(losses(sweep(x), y).mean(1))
    sweep.update()
    for k in range(3):
        torch.testing.assert_close(sweep.probe(sweep.state(k))(x), sweep(x)[k])
    assert sweep.num_params == L + D * 7 + 7 + 7 * C + C


def test_dropout_and_batch_statistics_fall_back_or_map() -> None:
    """Batch-norm keeps statistics in place: each head must have its own."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(D)
            self.out = nn.Linear(D, C)

        def forward(
            self, x_BD: torch.Tensor, lengths_B: torch.Tensor | None = None
        ) -> torch.Tensor:
            return self.out(self.norm(x_BD))

    sweep = Sweep(Normed, layers=L, learning_rates=RATES, mode="loop")
    x, _, y = data(0, True)
    sweep.backward(losses(sweep(x), y).mean(1))
    sweep.update()
    assert sweep.state(1)["head.norm.running_mean"].abs().sum() > 0
    assert sweep.probe(sweep.state(1))(x).shape == (B, C)


def test_a_layer_option_reaches_the_heads() -> None:
    sweep = Sweep(HEADS["mean"], layers=L, learning_rates=RATES, layer=1)
    x, _, y = data(0, True)
    changed = x.clone()
    changed[:, [0, 2]] = 0
    assert torch.equal(sweep(x), sweep(changed))
    sweep.backward(losses(sweep(x), y).mean(1))
    sweep.update()
    assert "featurizer.weights" not in sweep.state(0)


@pytest.mark.parametrize("rates", [(), (0.0,), (-1.0,), (float("nan"),)])
def test_a_bad_grid_is_refused(rates: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="learning rate"):
        Sweep(HEADS["mean"], layers=L, learning_rates=rates)
