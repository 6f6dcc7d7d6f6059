"""Vector quantisation: codes against float64 oracles, idle ones, resumed runs, several processes."""

import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from bottlenecks import CODES, FRAMES, WIDTH, frames, generator, run, vq

from mynah.upstream.core.codebooks import (
    VectorQuantizer,
)


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
