"""BYOL-A: views, states and settings; the loss of SimSiam."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from byol_small import make, noise

from mynah.upstream.byol import CONFIGS, Byol
from mynah.upstream.core.audiontt import pool
from mynah.upstream.core.clips import projector
from mynah.upstream.core.contract import Batch


def batch(*sizes: int, seed: int = 2) -> Batch:
    wav_BS = torch.zeros(len(sizes), max(sizes))
    for row, n in enumerate(sizes):
        wav_BS[row, :n] = 0.1 * noise(n, seed=row)
    return Batch(
        wav_BS=wav_BS,
        lengths_B=torch.tensor(sizes),
        ids=tuple(f"utt{i}" for i in range(len(sizes))),
        generator=torch.Generator().manual_seed(seed),
    )


# -- SimSiam --------------------------------------------------------------------------------------


def test_simsiam_is_the_mean_cosine_with_the_target_held() -> None:
    model = make(method="simsiam", projector=(20, 20, 10), projector_norm=True)
    names = {name.partition(".")[0] for name, _ in model.named_parameters()}
    assert names == {"encoder", "projector", "predictor"}
    a, b = noise(8, 16, 31), noise(8, 16, 31, seed=1)
    loss = model.compare(a, b)
    both = torch.cat([a, b])
    both = (both - both.mean()) / both.std()
    z = [model.projector(pool(model.encoder(x)[-1])) for x in both.chunk(2)]
    p = [model.predictor(x) for x in z]
    for x in z:  # normalised without an affine map
        assert torch.allclose(x.mean(dim=0), torch.zeros(10), atol=1e-5)
    forth = F.cosine_similarity(p[0], z[1].detach()).mean()
    back = F.cosine_similarity(p[1], z[0].detach()).mean()
    total = 1 - (forth + back) / 2
    assert float(loss.total.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    assert float(loss.parts["cosine"]) == pytest.approx(1 - float(total.detach()), rel=1e-4)
    weight = model.predictor[0].weight
    (mine,) = torch.autograd.grad(loss.total, weight, retain_graph=True)
    (theirs,) = torch.autograd.grad(total, weight, retain_graph=True)
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.after_step(1, 10)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# -- views, states, settings ----------------------------------------------------------------------


def test_training_fills_statistics_and_memory_and_evaluation_does_not() -> None:
    model = make().eval()
    model.loss(batch(16000, 9000, 3000))
    assert int(model.norm.count) == int(model.mixup.memory.filled) == 0
    model.train()
    model.loss(batch(16000, 9000, 3000))
    assert int(model.norm.count) == int(model.mixup.memory.filled) == 6  # two clips of each
    model.loss(batch(*[9000] * 7))
    assert int(model.norm.count) == 13
    assert int(model.mixup.memory.filled) == 12


def test_views_are_of_one_clip_and_come_from_the_batch_generator_only() -> None:
    plain = {"mixup": 0.0, "canvas": 1.0, "freq_scale": (1.0, 1.0), "time_scale": (1.0, 1.0)}
    a, b = make(**plain).views(batch(*[16000] * 6))
    assert torch.allclose(a, b, atol=1e-5)
    a, b = make().views(batch(*[16000] * 6))
    assert a.shape == b.shape == (6, 16, 31)
    assert not torch.allclose(a, b, atol=0.1)
    torch.manual_seed(1)
    again = make().views(batch(*[16000] * 6))
    assert torch.equal(a, again[0])
    assert torch.equal(b, again[1])
    other = make().views(batch(*[16000] * 6, seed=3))
    assert not torch.equal(a, other[0])


def test_one_utterance_is_enough_and_short_ones_are_taken() -> None:
    model = make()
    loss = model.loss(batch(20000))
    assert bool(loss.total.isfinite())
    assert loss.weight == 6
    assert bool(model.loss(batch(1, 50, 700)).total.isfinite())


def test_a_resumed_model_goes_on_exactly() -> None:
    first, second = make().train(), make().train()
    first.loss(batch(*[16000] * 6))
    first.after_step(1, 10)
    second.load_state_dict(first.state_dict())
    losses = [float(m.loss(batch(*[16000] * 6, seed=5)).total.detach()) for m in (first, second)]
    assert losses[0] == losses[1]


def test_collapse_is_below_the_floor() -> None:
    model = make().train()
    nn.init.zeros_(model.projector[1].weight)
    nn.init.ones_(model.projector[1].bias)
    parts = model.loss(batch(*[16000] * 8)).parts
    assert set(model.floors) <= set(parts)
    assert float(parts["embedding_std"]) < model.floors["embedding_std"]
    assert float(parts["accuracy"]) == 0
    healthy = make().loss(batch(*[16000] * 8)).parts
    assert float(healthy["embedding_std"]) > 2 * model.floors["embedding_std"]


def test_tiny_states_share_one_width_and_have_20_ms() -> None:
    config = CONFIGS["tiny"]
    model = Byol(dataclasses.replace(config, objective=False))
    assert model.encoder.widths == [320] * 4
    assert model.encoder.strides == [2] * 4
    assert model.stride == 320
    assert model.num_frames(16000) == 50


def test_features_follow_the_learnt_statistics() -> None:
    model = make()
    wav = 0.1 * noise(8000)
    before = torch.stack(list(model.eval().hidden_states([wav])))
    model.norm.update(noise(4, 16, 31) - 3)
    after = torch.stack(list(model.hidden_states([wav])))
    assert not torch.allclose(before, after)
    assert {"norm.mean", "norm.variance"} <= set(model.state_dict())


def test_an_utterance_may_be_normalised_by_itself() -> None:
    """As the tiny variants do: its level does not matter then, and there are no statistics."""
    model = make(normalize="utterance").train()
    model.loss(batch(*[16000] * 6))
    assert not [name for name in model.state_dict() if name.startswith("norm.")]
    model.eval()
    wav = 0.1 * noise(8000)
    loud, quiet = (torch.stack(list(model.hidden_states([w]))) for w in (wav, 0.3 * wav))
    assert float((loud - quiet).norm() / loud.norm()) < 0.01
    assert all(c.normalize == "utterance" for n, c in CONFIGS.items() if n.startswith("tiny"))
    with pytest.raises(ValueError, match=r"'running' or 'utterance', got 'batch'"):
        make(normalize="batch")


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method must be 'byol' or 'simsiam', got 'moco'"):
        make(method="moco")
    with pytest.raises(ValueError, match=r"clip_seconds must be at least 0.08"):
        make(clip_seconds=0.05)
    with pytest.raises(ValueError, match=r"at least one layer"):
        projector(4, (), bias=True, norm=False)
    model = make(objective=False)
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {"encoder"}
    with pytest.raises(ValueError, match=r"this byol has no heads \(objective=False"):
        model.loss(batch(16000))
    model.after_step(1, 10)
