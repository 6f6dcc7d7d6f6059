"""The stack over rows, as GPUs train it, equals the one that CPUs train: values and gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mynah.upstream.core.conv import ConvExtractor, Norm
from mynah.upstream.core.conv_rows import conv_rows, normed_first, window_moments
from mynah.upstream.core.posconv import PositionalConv, correlate


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    assert a.shape == b.shape
    assert (a - b).norm() <= tolerance * b.norm()


@pytest.mark.parametrize(("taps", "stride"), [(3, 2), (2, 2), (10, 5), (5, 1), (4, 3), (2, 3)])
@pytest.mark.parametrize("frames", [40, 41, 42])
def test_one_convolution(taps: int, stride: int, frames: int) -> None:
    x, w, b = randn(3, frames, 8), randn(6, 8, taps, seed=1), randn(6, seed=2)
    x.requires_grad_()
    w.requires_grad_()
    theirs = F.conv1d(x.mT, w, b, stride).mT
    close(conv_rows(x, w, b, stride), theirs, 1e-12)
    assert torch.autograd.gradcheck(lambda x, w: conv_rows(x, w, None, stride), (x, w))


def test_the_folded_norm() -> None:
    wav = 0.1 * randn(2, 4000, dtype=torch.float32) + 0.3
    w, gain, shift = (randn(*s, seed=3, dtype=torch.float32) for s in ((16, 10), (16,), (16,)))
    for x in (w, gain, shift):
        x.requires_grad_()
    ours = normed_first(wav, w, gain, shift, 5, 1e-5)
    plain = F.conv1d(wav[:, None], w[:, None], stride=5)
    theirs = F.gelu(F.group_norm(plain, 16, gain, shift, 1e-5)).mT
    close(ours, theirs)
    weight = randn(*ours.shape, seed=4, dtype=torch.float32)
    grads = (torch.autograd.grad((y * weight).sum(), (w, gain, shift)) for y in (ours, theirs))
    for a, b in zip(*grads, strict=True):
        close(a, b)


def test_silence_has_no_variance() -> None:
    mean, moments = window_moments(torch.zeros(1, 50).unfold(1, 10, 5))
    assert not mean.any()
    assert not moments.any()
    y = normed_first(torch.zeros(1, 50), torch.ones(4, 10), torch.ones(4), torch.ones(4), 5, 1e-5)
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_whole_stack(norm: Norm, bias: bool) -> None:
    torch.manual_seed(0)
    stack = ConvExtractor(16, (10, 3, 3, 2), (5, 2, 2, 2), norm=norm, bias=bias)
    wav = 0.2 * randn(3, 1601, dtype=torch.float32)
    x = wav[:, :, None]
    for block in stack:
        x = block.rows(x)  # type: ignore[operator]
    theirs = stack(wav)
    close(x, theirs)
    grads = []
    for y in (x, theirs):
        stack.zero_grad()
        y.square().sum().backward()
        grads.append([None if p.grad is None else p.grad.clone() for p in stack.parameters()])
    scale = torch.stack([g.norm() for g in grads[1] if g is not None]).norm()
    for a, b in zip(*grads, strict=True):
        if a is not None and b is not None:  # a bias that a norm takes away again has no gradient
            assert (a - b).norm() <= 1e-4 * b.norm() + 1e-5 * scale


@pytest.mark.parametrize("taps", [128, 127, 32, 19, 1])
@pytest.mark.parametrize("frames", [1, 17, 129, 300])
def test_positions_by_fft(taps: int, frames: int) -> None:
    torch.manual_seed(0)
    module = PositionalConv(24, kernel=taps, groups=4)
    x = randn(2, frames, 24, dtype=torch.float32).requires_grad_()
    plain = F.conv1d(x.mT, module.weight(), None, padding=taps // 2, groups=4)[:, :, :frames].mT
    ours = correlate(x, module.weight(), groups=4)
    close(ours, plain)
    weight = randn(*ours.shape, seed=4, dtype=torch.float32)
    grads = (torch.autograd.grad((y * weight).sum(), (x, module.direction)) for y in (ours, plain))
    for a, b in zip(*grads, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm() + 1e-6


def test_the_gradient_of_a_frame_that_nothing_sees_is_nought() -> None:
    x = randn(2, 9, 4).requires_grad_()
    conv_rows(x, randn(6, 4, 2, seed=1), None, 2).sum().backward()
    assert x.grad is not None
    assert not x.grad[:, 8:].any()
    assert x.grad[:, :8].all()
