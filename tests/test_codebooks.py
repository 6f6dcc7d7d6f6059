"""Discrete bottlenecks: what all promise, Gumbel codes and bits against float64 oracles."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from bottlenecks import CODES, FRAMES, WIDTH, frames, generator, run, vq

from mynah.upstream.core.codebooks import (
    MAX_BITS,
    BinaryCode,
    Bottleneck,
    GumbelOneHot,
    VectorQuantizer,
)


def gumbel(**settings: float) -> GumbelOneHot:
    torch.manual_seed(3)
    return GumbelOneHot(WIDTH, codes=CODES, **settings)  # type: ignore[arg-type]


def binary(**settings: float) -> BinaryCode:
    torch.manual_seed(3)
    return BinaryCode(WIDTH, bits=4, **settings)  # type: ignore[arg-type]


KINDS: list[Callable[[], Bottleneck]] = [vq, gumbel, binary]


def entropy_of(codes_M: Tensor) -> float:
    counts = [c / len(codes_M) for c in codes_M.bincount().double().tolist() if c]
    return -sum(p * math.log(p) for p in counts)


# -- one interface -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_keeps_the_promises(kind: Callable[[], Bottleneck]) -> None:
    model = kind()
    for training in (True, False):
        model.train(training)
        out = run(model, frames())
        assert out.vectors_MD.shape == (FRAMES, WIDTH)
        assert (out.codes_M.shape, out.codes_M.dtype) == ((FRAMES,), torch.int64)
        assert 0 <= int(out.codes_M.min()) <= int(out.codes_M.max()) < model.codes
        assert out.code_perplexity.item() == pytest.approx(
            math.exp(entropy_of(out.codes_M)), rel=1e-5
        )
        assert not out.code_perplexity.requires_grad
        # equal codes have equal vectors, other codes others
        same = out.codes_M[:, None] == out.codes_M
        close = (out.vectors_MD[:, None] - out.vectors_MD).abs().amax(dim=2) < 1e-5
        assert torch.equal(same, close)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_frames_and_every_parameter(kind: Callable[[], Bottleneck]) -> None:
    model, x_MD = kind().train(), frames().requires_grad_()
    out = run(model, x_MD)
    (out.vectors_MD.square().sum() + sum(out.losses.values())).backward()
    assert x_MD.grad is not None
    assert x_MD.grad.any()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_randomness_comes_from_the_generator_and_eval_has_none(
    kind: Callable[[], Bottleneck],
) -> None:
    first, second = kind().train(), kind().train()
    torch.manual_seed(77)
    a = run(first, frames(), seed=5)
    torch.manual_seed(78)
    b = run(second, frames(), seed=5)
    assert torch.equal(a.codes_M, b.codes_M)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    model = kind().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    one, two = model(frames()), model(frames())
    assert torch.equal(one.vectors_MD, two.vectors_MD)
    model.after_step(1, 10)
    assert isinstance(model, GumbelOneHot) or all(
        torch.equal(value, before[key]) for key, value in model.state_dict().items()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_refused(kind: Callable[[], Bottleneck]) -> None:
    model = kind()
    for shape in ((0, WIDTH), (3, WIDTH + 1), (2, 3, WIDTH)):
        with pytest.raises(ValueError, match="at least one frame of width 6"):
            model(torch.zeros(shape), generator=generator())
    with pytest.raises(ValueError, match="needs a generator"):
        model.train()(frames())


def test_bad_settings_are_refused() -> None:
    for settings in ({"decay": 1.0}, {"patience": 0}, {"commitment": -1.0}, {"epsilon": -1e-5}):
        with pytest.raises(ValueError, match="must be at least 1"):
            VectorQuantizer(4, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="temperatures positive"):
        GumbelOneHot(4, end=0.0)
    with pytest.raises(ValueError, match=f"between 1 and {MAX_BITS}"):
        BinaryCode(4, bits=MAX_BITS + 1)


# -- Gumbel one-hot ------------------------------------------------------------------------------


def test_gumbel_equals_torch_s_on_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x_MD = gumbel(start=0.7, end=0.7).train(), frames().requires_grad_()
    out = run(model, x_MD, seed=11)
    weights = torch.randn(FRAMES, WIDTH, generator=generator(12))
    grads = torch.autograd.grad((out.vectors_MD * weights).sum(), [x_MD, *model.parameters()])
    exponential = torch.empty(FRAMES, CODES).exponential_(generator=generator(11))
    monkeypatch.setattr(Tensor, "exponential_", lambda self: self.copy_(exponential))
    one_hot = F.gumbel_softmax(model.logits(x_MD), tau=0.7, hard=True)
    expected = model.codebook(one_hot)
    wanted = torch.autograd.grad((expected * weights).sum(), [x_MD, *model.parameters()])
    torch.testing.assert_close(out.vectors_MD, expected)
    for got, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_gumbel_in_eval_mode_is_the_argmax() -> None:
    model = gumbel().eval()
    out = model(frames())
    assert torch.equal(out.codes_M, model.logits(frames()).argmax(dim=1))
    assert torch.equal(out.vectors_MD, model.codebook.weight.T[out.codes_M])
    assert not out.losses


def test_the_temperature_falls_evenly_in_logarithm_and_is_saved() -> None:
    model = gumbel(start=2.0, end=0.5)
    seen = []
    for step in range(1, 5):
        model.after_step(step, 4)
        seen.append(model.temperature.item())
    assert seen == pytest.approx([2 * 0.25 ** (k / 4) for k in range(1, 5)])
    model.after_step(9, 4)
    assert model.temperature.item() == pytest.approx(0.5)
    assert "temperature" in model.state_dict()


def test_gumbel_s_diversity_is_its_definition() -> None:
    model = gumbel(diversity=0.3).train()
    out = run(model, frames())
    probs = model.logits(frames()).double().softmax(dim=1).mean(dim=0)
    expected = 0.3 * (1 - math.exp(-(probs * probs.log()).sum().item()) / CODES)
    assert out.losses["diversity"].item() == pytest.approx(expected, rel=1e-5)


# -- bits ----------------------------------------------------------------------------------------


def test_bits_are_drawn_with_the_probability_of_the_sigmoid() -> None:
    model = binary().train()
    x_MD = frames(count=1).repeat(20000, 1)
    out = run(model, x_MD)
    bits = (out.codes_M[:, None] >> torch.arange(4)) & 1
    probs = model.logits(x_MD[0]).sigmoid()
    assert (bits.double().mean(dim=0) - probs).abs().max() < 0.015
    expected = model.codebook(2.0 * bits - 1)
    assert (out.vectors_MD - expected).abs().max() < 1e-6


def test_bits_pass_the_sigmoid_s_gradient() -> None:
    model, x_MD = binary().train(), frames().requires_grad_()
    out = run(model, x_MD)
    weights = torch.randn(FRAMES, WIDTH, generator=generator(9))
    (gradient,) = torch.autograd.grad((out.vectors_MD * weights).sum(), x_MD)
    probs = model.logits(x_MD).double().sigmoid()
    slope = 2 * (weights.double() @ model.codebook.weight.double()) * probs * (1 - probs)
    expected = slope @ model.logits.weight.double()
    assert (gradient - expected).abs().max() < 1e-5


def test_bits_in_eval_mode_are_signs() -> None:
    model = binary().eval()
    out = model(frames())
    hard = (model.logits(frames()) > 0).long()
    assert torch.equal(out.codes_M, (hard * torch.tensor([1, 2, 4, 8])).sum(dim=1))
    assert torch.equal(out.vectors_MD, model.codebook(2.0 * hard - 1))


def test_the_diversity_of_bits_is_its_definition() -> None:
    model = binary(diversity=0.3).train()
    out = run(model, frames())
    p = model.logits(frames()).double().sigmoid().mean(dim=0)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean() / math.log(2)
    assert out.losses["diversity"].item() == pytest.approx(0.3 * (1 - entropy.item()), rel=1e-4)


def test_a_code_may_have_as_many_bits_as_an_integer() -> None:
    torch.manual_seed(0)
    model = BinaryCode(WIDTH, bits=MAX_BITS).eval()
    out = model(frames())
    hard = (model.logits(frames()) > 0).long()
    numbers = [sum(bit << k for k, bit in enumerate(row)) for row in hard.tolist()]
    assert out.codes_M.tolist() == numbers
