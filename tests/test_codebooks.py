"""Discrete bottlenecks against float64 oracles, and what keeps their codes in use."""

import math
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mynah.upstream.core.codebooks import (
    MAX_BITS,
    BinaryCode,
    Bottleneck,
    Coded,
    GumbelOneHot,
    VectorQuantizer,
)

FRAMES, WIDTH, CODES = 61, 6, 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frames(seed: int = 1, count: int = FRAMES) -> Tensor:
    return torch.randn(count, WIDTH, generator=generator(seed))


def vq(**settings: float) -> VectorQuantizer:
    torch.manual_seed(3)
    model = VectorQuantizer(WIDTH, codes=CODES, **settings)  # type: ignore[arg-type]
    model.codebook_VD.copy_(torch.randn(CODES, WIDTH))
    model.sum_VD.copy_(model.codebook_VD)
    model.idle_V.zero_()
    return model


def gumbel(**settings: float) -> GumbelOneHot:
    torch.manual_seed(3)
    return GumbelOneHot(WIDTH, codes=CODES, **settings)  # type: ignore[arg-type]


def binary(**settings: float) -> BinaryCode:
    torch.manual_seed(3)
    return BinaryCode(WIDTH, bits=4, **settings)  # type: ignore[arg-type]


KINDS: list[Callable[[], Bottleneck]] = [vq, gumbel, binary]


def run(model: Bottleneck, x_MD: Tensor, seed: int = 0) -> Coded:
    coded: Coded = model(x_MD, generator=generator(seed))
    return coded


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


# -- vector quantisation ---------------------------------------------------------------------------


def test_the_nearest_code_straight_through_and_the_commitment() -> None:
    model, x_MD = vq(commitment=0.4).train(), frames().requires_grad_()
    book = model.codebook_VD.double().clone()
    out = run(model, x_MD)
    distance = (x_MD.detach().double()[:, None] - book).square().sum(dim=2)
    assert torch.equal(out.codes_M, distance.argmin(dim=1))
    assert (out.vectors_MD.detach().double() - book[out.codes_M]).abs().max() < 1e-6
    weights = torch.randn(FRAMES, WIDTH, generator=generator(9))
    (gradient,) = torch.autograd.grad((out.vectors_MD * weights).sum(), x_MD, retain_graph=True)
    assert torch.equal(gradient, weights)  # straight through
    difference = x_MD.detach().double() - book[out.codes_M]
    expected = 0.4 * difference.square().mean().item()
    assert out.losses["commitment"].item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(out.losses["commitment"], x_MD)
    assert (gradient - 0.8 * difference / difference.numel()).abs().max() < 1e-8


def test_the_codebook_is_the_smoothed_moving_average() -> None:
    decay, epsilon = 0.9, 0.01
    model = vq(decay=decay, epsilon=epsilon, patience=1000).train()
    count = torch.ones(CODES, dtype=torch.float64)
    total = book = model.codebook_VD.double().clone()
    for step in range(1, 6):
        x_MD = frames(seed=step) + 0.3 * step
        run(model, x_MD, seed=step)
        assert torch.equal(model.codebook_VD, book.float())  # the forward moves nothing
        model.after_step(step, 5)
        x_MD = x_MD.double()
        one_hot = F.one_hot((x_MD[:, None] - book).square().sum(dim=2).argmin(dim=1), CODES)
        count = decay * count + (1 - decay) * one_hot.sum(dim=0)
        total = decay * total + (1 - decay) * one_hot.T.double() @ x_MD
        smooth = (count + epsilon) / (count.sum() + CODES * epsilon) * count.sum()
        book = total / smooth[:, None]
        assert (model.codebook_VD.double() - book).abs().max() < 1e-6
        assert (model.count_V.double() - count).abs().max() < 1e-5
        model.codebook_VD.copy_(book)
        book = model.codebook_VD.double()
    before = model.codebook_VD.clone()
    model.after_step(6, 6)  # nothing was coded since
    assert torch.equal(model.codebook_VD, before)


def test_accumulated_batches_count_as_one() -> None:
    whole, halves = vq(patience=2).train(), vq(patience=2).train()
    x_MD = frames(count=80)
    for step in range(1, 4):
        run(whole, x_MD, seed=step)
        run(halves, x_MD[:50], seed=step)
        run(halves, x_MD[50:], seed=step + 100)
        for model in (whole, halves):
            assert model.step_count_V.sum() == 80
            model.after_step(step, 3)
        halves.spare_VD.copy_(whole.spare_VD)
        assert torch.allclose(whole.codebook_VD, halves.codebook_VD, atol=1e-6)
        assert torch.equal(whole.idle_V, halves.idle_V)


def test_spares_are_frames_of_the_first_batch_of_a_step() -> None:
    model = vq().train()
    first, second = frames(seed=1), frames(seed=2)
    run(model, first)
    run(model, second)
    for spare_D in model.spare_VD:
        assert (first == spare_D).all(dim=1).any()
    model.after_step(1, 2)
    run(model, second)
    for spare_D in model.spare_VD:
        assert (second == spare_D).all(dim=1).any()


def test_codes_without_frames_start_anew_on_frames_after_their_patience() -> None:
    model = vq(patience=3, decay=0.5).train()
    model.codebook_VD[2:] += 1000.0  # out of reach
    model.sum_VD.copy_(model.codebook_VD)
    for step in range(1, 4):
        run(model, frames(seed=step), seed=step)
        model.after_step(step, 4)
        far = model.codebook_VD.abs().amax(dim=1) > 100
        assert far.tolist() == [False, False] + [step < 3] * 3
    assert torch.equal(model.codebook_VD[2:], model.spare_VD[2:])
    assert model.count_V[2:].tolist() == [1.0] * 3
    assert model.idle_V.tolist() == [0] * 5
    out = run(model, frames(seed=3))
    assert len(out.codes_M.unique()) == 5


def test_a_new_codebook_lies_on_frames_after_its_first_step() -> None:
    torch.manual_seed(0)
    model = VectorQuantizer(WIDTH, codes=32, decay=0.9).train()
    x_MD = 5 + frames(count=400)
    assert run(model, x_MD).code_perplexity < 8
    model.after_step(1, 100)
    assert run(model, x_MD).code_perplexity > 10
    fresh = torch.stack([(x_MD == code_D).all(dim=1).any() for code_D in model.codebook_VD])
    assert fresh.sum() >= 24


def test_a_batch_that_is_not_finite_does_not_poison_the_codebook() -> None:
    model = vq().train()
    x_MD = frames()
    x_MD[3] = float("nan")
    x_MD[4, 0] = float("inf")
    run(model, x_MD)  # the loop skips after_step
    run(model, frames(seed=2))
    model.after_step(2, 10)
    assert all(bool(b.isfinite().all()) for b in model.buffers())


def test_a_resumed_codebook_goes_on_bit_for_bit() -> None:
    straight = vq(patience=2, decay=0.8).train()
    for step in range(1, 4):
        run(straight, frames(seed=step), seed=step)
        straight.after_step(step, 6)
    resumed = VectorQuantizer(WIDTH, codes=CODES, patience=2, decay=0.8).train()
    resumed.load_state_dict(straight.state_dict())
    for step in range(4, 7):
        for model in (straight, resumed):
            run(model, frames(seed=step), seed=step)
            model.after_step(step, 6)
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


class Peers:
    """Two threads that exchange tensors as processes do."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)
        self.given: dict[str, Tensor] = {}

    def exchange(self, tensor: Tensor) -> list[Tensor]:
        self.given[threading.current_thread().name] = tensor.clone()
        self.barrier.wait(60)
        both = [self.given[name] for name in ("0", "1")]
        self.barrier.wait(60)
        return both

    def all_reduce(self, tensor: Tensor) -> None:
        tensor.copy_(sum(self.exchange(tensor)))

    def broadcast(self, tensor: Tensor, src: int) -> None:
        tensor.copy_(self.exchange(tensor)[src])


def test_two_processes_share_one_codebook_that_is_that_of_two_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = [vq(patience=1).train() for _ in range(2)]
    one = vq(patience=1).train()
    for step in range(1, 4):
        for rank in range(2):
            run(one, frames(seed=2 * step + rank), seed=2 * step + rank)
        one.after_step(step, 3)

    def work(rank: int) -> None:
        for step in range(1, 4):
            run(models[rank], frames(seed=2 * step + rank), seed=2 * step + rank)
            models[rank].after_step(step, 3)

    peers = Peers()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", peers.all_reduce)
    monkeypatch.setattr(torch.distributed, "broadcast", peers.broadcast)
    threads = [threading.Thread(target=work, args=(rank,), name=str(rank)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for model in models:
        for key, value in one.state_dict().items():
            assert torch.allclose(model.state_dict()[key], value, atol=1e-6), key


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
