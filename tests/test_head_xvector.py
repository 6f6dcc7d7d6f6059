"""The x-vector: sizes, an independent reference, statistics, and the additive-margin softmax."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.downstream.core.amsoftmax import AMSoftmax, am_softmax
from mynah.downstream.xvector import TDNN, XVector, statistics

D, C = 6, 9


def test_sizes_are_those_of_superb() -> None:
    layers = {
        "projector": 768 * 512 + 512,
        "tdnn 1": 5 * 512 * 512 + 512,
        "tdnn 2": 3 * 512 * 512 + 512,
        "tdnn 3": 3 * 512 * 512 + 512,
        "tdnn 4": 512 * 512 + 512,
        "tdnn 5": 512 * 1500 + 1500,
        "first": 3000 * 512 + 512,
        "second": 512 * 512 + 512,
    }
    with torch.device("meta"):
        head = XVector(768, 1211)
    count = sum(p.numel() for p in head.parameters())
    assert sum(layers.values()) == 6_110_172
    assert count == 6_110_172 + 512 * 1211
    assert head.minimum_frames == 15


def test_it_is_a_stack_of_dilated_convolutions() -> None:
    torch.manual_seed(0)
    head = XVector(D, C, width=8, pooled=10)
    x_1TD = torch.randn(1, 40, D)
    hidden = head.projector(x_1TD).transpose(1, 2)
    for layer, (context, dilation) in zip(
        head.frames, [(5, 1), (3, 2), (3, 3), (1, 1), (1, 1)], strict=True
    ):
        assert isinstance(layer, TDNN)
        kernel_OIK = layer.linear.weight.unflatten(1, (context, -1)).transpose(1, 2)
        hidden = F.conv1d(hidden, kernel_OIK, layer.linear.bias, dilation=dilation).relu()
    assert hidden.shape == (1, 10, 26)
    pooled = torch.cat([hidden.mean(2), hidden.std(2)], dim=1)
    first = F.linear(pooled, head.first.weight, head.first.bias).relu()
    torch.testing.assert_close(head.embed(x_1TD), first / first.norm(dim=1, keepdim=True))
    second = F.linear(first, head.second.weight, head.second.bias).relu()
    expected = F.cosine_similarity(second[:, :, None], head.amsoftmax.weight[None], dim=1)
    torch.testing.assert_close(head(x_1TD), expected)


def test_embeddings_have_length_one_and_ignore_the_batch() -> None:
    torch.manual_seed(0)
    head = XVector(D, C, width=8, pooled=10)
    x_BTD = torch.randn(3, 50, D)
    together = head.embed(x_BTD, torch.tensor([50, 15, 31]))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    for b, n in enumerate((50, 15, 31)):
        torch.testing.assert_close(together[b], head.embed(x_BTD[b : b + 1, :n])[0])


def test_statistics_are_of_valid_frames_and_never_nan() -> None:
    torch.manual_seed(0)
    x_BTD = torch.randn(3, 20, 4, dtype=torch.float64)
    x_BTD[:, :, 1] = 3.0  # what never changes
    x_BTD[1, 1:] = float("inf")
    x_BTD[2, 7:] = float("nan")
    x_BTD.requires_grad_()
    out = statistics(x_BTD, torch.tensor([20, 1, 7]))
    torch.testing.assert_close(out[0], torch.cat([x_BTD[0].mean(0), x_BTD[0].std(0)]))
    torch.testing.assert_close(out[2], torch.cat([x_BTD[2, :7].mean(0), x_BTD[2, :7].std(0)]))
    assert torch.equal(out[1], torch.cat([x_BTD[1, 0], torch.zeros(4)]))
    assert out[0, 5] == 0
    (grad,) = torch.autograd.grad(out.sum(), x_BTD)
    assert grad.isfinite().all()
    assert grad[1, 1:].abs().max() == 0


def test_fifteen_frames_are_enough_and_fourteen_are_not() -> None:
    head = XVector(D, C, width=8, pooled=10)
    x_BTD = torch.randn(2, 20, D)
    cosines = head(x_BTD, torch.tensor([20, 15]))
    assert cosines.isfinite().all()
    grads = torch.autograd.grad(cosines.sum(), list(head.parameters()))
    assert all(g.isfinite().all() for g in grads)
    with pytest.raises(ValueError, match="at least 15 frames of each item, got one with 14"):
        head.embed(x_BTD, torch.tensor([20, 14]))
    with pytest.raises(ValueError, match="at least 15 frames"):
        head(x_BTD[:, :14])


# -- the loss -------------------------------------------------------------------------------


def explicit(x_BD: Tensor, weight_DC: Tensor, speakers: list[int], s: float, m: float) -> Tensor:
    """The formula of Wang et al. 2018, written out."""
    total = torch.zeros((), dtype=x_BD.dtype)
    for x_D, y in zip(x_BD, speakers, strict=True):
        cos = [(x_D @ w) / x_D.norm() / w.norm() for w in weight_DC.T]
        own = torch.exp(s * (cos[y] - m))
        others = sum(torch.exp(s * c) for j, c in enumerate(cos) if j != y)
        total = total - torch.log(own / (own + others))
    return total / len(speakers)


def test_am_softmax_is_its_formula() -> None:
    torch.manual_seed(0)
    loss = AMSoftmax(5, C).double()
    x_BD = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    speakers = [0, 8, 3, 3]
    ours = am_softmax(loss.cosines(x_BD), torch.tensor(speakers)).mean()
    expected = explicit(x_BD, loss.weight, speakers, 30.0, 0.4)
    torch.testing.assert_close(ours, expected)
    for a, b in zip(
        torch.autograd.grad(ours, [x_BD, loss.weight]),
        torch.autograd.grad(expected, [x_BD, loss.weight]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_a_hand_worked_case() -> None:
    """Cosines 1 and 0, s = 2, m = 0.5: log(1 + e^(0 - 2 * 0.5)) and log(1 + e^(2 + 2 * 0.5))."""
    cosines = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    out = am_softmax(cosines, torch.tensor([0, 1]), scale=2.0, margin=0.5)
    torch.testing.assert_close(out, torch.tensor([0.313262, 3.048587]))


def test_it_does_not_overflow() -> None:
    """Float32 exponentials end at e^88; the loss is exact far beyond."""
    cosines = torch.tensor([[-1.0, 1.0]], requires_grad=True)
    out = am_softmax(cosines, torch.tensor([0]), scale=200.0)
    torch.testing.assert_close(out, torch.tensor([480.0]))
    assert torch.autograd.grad(out.sum(), cosines)[0].isfinite().all()


def test_k_heads_at_once_and_bad_speakers() -> None:
    cosines = torch.rand(3, 4, C)
    speakers = torch.randint(0, C, (3, 4))
    out = am_softmax(cosines, speakers)
    for k in range(3):
        torch.testing.assert_close(out[k], am_softmax(cosines[k], speakers[k]))
    with pytest.raises(ValueError, match="0 to 8, got 0 to 9"):
        am_softmax(cosines[0], torch.tensor([0, 9, 1, 1]))
    with pytest.raises(ValueError, match="need speakers of shape \\(4,\\), got \\(3,\\)"):
        am_softmax(cosines[0], torch.tensor([0, 1, 1]))


def test_columns_start_xavier_normal() -> None:
    torch.manual_seed(0)
    loss = AMSoftmax(512, 300)
    torch.manual_seed(0)
    expected = nn.init.xavier_normal_(torch.empty(512, 300))
    assert torch.equal(loss.weight, expected)
    assert float(loss.weight.detach().std()) == pytest.approx((2 / 812) ** 0.5, rel=0.02)
