"""The CPU kernels of training: the same results as torch's functions, gradients included."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from golden import load_make

from mynah.recipes.training.kernels import Kernels, attention, cpu_kernels, linear, table
from mynah.recipes.training.kernels.dropout import Drops
from mynah.upstream.core.conv import ConvExtractor, normed_conv
from mynah.upstream.core.posconv import PositionalConv

CPU = torch.device("cpu")


make = load_make()


@pytest.fixture(autouse=True)
def every_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the kernels for small products too."""
    monkeypatch.setattr(linear, "_WORTH", 0)


def both(
    function: Callable[..., Tensor], *inputs: Tensor, seed: int = 0
) -> list[tuple[Tensor, list[Tensor | None]]]:
    """Return output and gradients by torch and by the kernels."""
    found = []
    for wanted in (False, True):
        given = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        torch.manual_seed(seed)
        with cpu_kernels(CPU, wanted):
            y = function(*given)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        (y.float() * weight).sum().backward()  # type: ignore[no-untyped-call]
        found.append((y.detach(), [x.grad for x in given]))
    return found


def assert_same(function: Callable[..., Tensor], *inputs: Tensor, tolerance: float = 2e-5) -> None:
    (a, a_grads), (b, b_grads) = both(function, *inputs)
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    assert (a - b).float().norm() <= tolerance * a.float().norm()
    # a gradient that is zero in exact arithmetic is rounding in both, as large as the others make it
    total = sum(float(x.norm()) for x in a_grads if x is not None)
    for x, y in zip(a_grads, b_grads, strict=True):
        assert (x is None) == (y is None)
        if x is not None and y is not None:
            assert x.shape == y.shape
            assert (x - y).norm() <= tolerance * x.norm() + 1e-5 * total + 1e-7


def randn(*shape: int, seed: int = 0, grad: bool = True) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))
    return x.requires_grad_(grad)


# -- whole models --------------------------------------------------------------------------------


QUICK = ("apc/tiny", "cpc/tiny", "data2vec/tiny", "hubert/tiny-wav", "hubert/tiny-wavlm")


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in make.names()
    ],
)
def test_every_family_has_the_same_loss_and_gradients(name: str) -> None:
    found = []
    for wanted in (False, True):
        model = make.model(name)
        data = make.labelled(model, make.batch(torch.Generator().manual_seed(make.SEED)))
        torch.manual_seed(0)
        with cpu_kernels(CPU, wanted):
            loss = model.loss(data).total
        loss.backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append((loss.item(), grads))
    (plain, plain_grads), (own, own_grads) = found
    assert own == pytest.approx(plain, rel=1e-5)
    assert plain_grads.keys() == own_grads.keys()
    scale = torch.stack([grad.norm() for grad in plain_grads.values()]).norm()
    for key, grad in plain_grads.items():
        assert (grad - own_grads[key]).norm() <= 1e-3 * grad.norm() + 1e-4 * scale, key


# -- products ------------------------------------------------------------------------------------


def test_products() -> None:
    assert_same(F.linear, randn(3, 5, 7), randn(4, 7), randn(4))
    assert_same(F.linear, randn(6, 7), randn(4, 7))
    assert_same(lambda a, b: a @ b, randn(6, 7), randn(7, 4))
    assert_same(lambda a, b: a @ b.T, randn(2, 6, 7), randn(4, 7))
    assert_same(torch.matmul, randn(2, 3, 4), randn(2, 4, 5))
    strided = randn(9, 14, grad=False)[::2, ::2]
    assert_same(F.linear, strided, randn(4, 7), randn(4))


def test_other_types_are_left_to_torch() -> None:
    x, weight = randn(3, 4).double(), randn(5, 4).double()
    with cpu_kernels(CPU):
        assert torch.equal(F.linear(x, weight), x @ weight.T)
        assert F.conv1d(x[None], randn(5, 3, 2).double()).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16), cpu_kernels(CPU):
        assert F.linear(randn(3, 4), randn(5, 4)).dtype == torch.bfloat16


def test_only_inside_and_only_on_a_cpu() -> None:
    torch.manual_seed(0)
    before = F.dropout(torch.ones(100), 0.5)
    with cpu_kernels(CPU):
        assert Kernels.entered == 1
        torch.manual_seed(0)
        inside = F.dropout(torch.ones(100), 0.5)
    assert Kernels.entered == 0
    torch.manual_seed(0)
    assert torch.equal(before, F.dropout(torch.ones(100), 0.5))
    assert not torch.equal(before, inside)
    for context in (cpu_kernels(CPU, False), cpu_kernels(torch.device("cuda"))):
        with context:
            torch.manual_seed(0)
            assert torch.equal(before, F.dropout(torch.ones(100), 0.5))


def test_without_onednn_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    from mynah.recipes.training import kernels

    monkeypatch.setattr(kernels, "onednn_available", lambda: False)
    table.cache_clear()
    assert table() == {}
    table.cache_clear()


# -- dropout -------------------------------------------------------------------------------------


def test_dropout_keeps_the_expectation() -> None:
    x = torch.ones(400, 500, requires_grad=True)
    with cpu_kernels(CPU):
        torch.manual_seed(3)
        y = F.dropout(x, 0.1)
    kept = y.detach()
    dropped = (kept == 0).float()
    assert float(dropped.mean()) == pytest.approx(0.1, abs=0.003)
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.003)
    assert kept[kept != 0].unique().tolist() == pytest.approx([65536 / (65536 - 6554)])
    assert dropped.mean(0).std() < 0.02  # no column is favoured
    assert dropped.mean(1).std() < 0.02
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, kept)


def test_dropout_is_seeded_by_torch() -> None:
    def draw(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        with cpu_kernels(CPU):
            return [F.dropout(torch.ones(7, 5), 0.5) for _ in range(2)]

    assert all(torch.equal(a, b) for a, b in zip(draw(1), draw(1), strict=True))
    assert not torch.equal(draw(1)[0], draw(2)[0])
    assert not torch.equal(*draw(1))


def test_dropout_at_its_ends() -> None:
    x = torch.ones(9)
    with cpu_kernels(CPU):
        assert F.dropout(x, 0.0) is x
        assert F.dropout(x, 0.5, training=False) is x
        assert not F.dropout(x, 1.0).any()
        with pytest.raises(ValueError, match="between 0 and 1"):
            F.dropout(x, 1.5)


# -- attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", [1 << 17, 1])  # one block; sixteen queries a block
@pytest.mark.parametrize("kind", ["none", "padding", "heads", "all", "scale"])
def test_attention(kind: str, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_SCORES", scores)
    q, k, v = (randn(2, 37, 3, 8, seed=i).transpose(1, 2) for i in range(3))
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    masks = {
        "padding": torch.arange(37)[None, None, None] < torch.tensor([37, 20]).view(2, 1, 1, 1),
        "heads": randn(3, 37, 37),
        "all": randn(2, 3, 37, 37),
    }

    def attend(q: Tensor, k: Tensor, v: Tensor, *mask: Tensor) -> Tensor:
        scale = 0.3 if kind == "scale" else None
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask[0] if mask else None, scale=scale
        )

    assert_same(attend, q, k, v, *([masks[kind]] if kind in masks else []))


def test_attention_with_dropout_equals_the_formula() -> None:
    q, k, v = (randn(2, 3, 21, 8, seed=i) for i in range(3))
    torch.manual_seed(5)
    drops = Drops(0.2)
    keep = torch.stack([drops.keep((21, 21)) for _ in range(6)]).view(2, 3, 21, 21)

    def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (q @ k.transpose(2, 3) * 8**-0.5).softmax(-1)
        return weights * keep * drops.scale @ v

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        torch.manual_seed(5)
        with cpu_kernels(CPU):
            return F.scaled_dot_product_attention(q, k, v, dropout_p=0.2)

    (a, a_grads), _ = both(formula, q, k, v)
    (b, b_grads), _ = both(ours, q, k, v)
    assert torch.allclose(a, b, atol=1e-5)
    for x, y in zip(a_grads, b_grads, strict=True):
        assert x is not None
        assert y is not None
        assert torch.allclose(x, y, atol=1e-5)


def test_attention_that_is_not_ours() -> None:
    x = randn(1, 2, 5, 4)
    with cpu_kernels(CPU):
        causal = F.scaled_dot_product_attention(x, x, x, is_causal=True)
    assert torch.allclose(causal[0, 0, 0], x[0, 0, 0])  # the first sees itself alone
    assert_same(lambda x: F.scaled_dot_product_attention(x, x, x), randn(2, 5, 4))


# -- convolutions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "stride", "frames"),
    [(8, 6, 3, 2, 40), (8, 6, 2, 2, 41), (1, 6, 10, 5, 100), (8, 5, 3, 1, 9), (16, 4, 1, 1, 7)],
)
def test_convolutions(inputs: int, outputs: int, kernel: int, stride: int, frames: int) -> None:
    x, weight = randn(3, inputs, frames), randn(outputs, inputs, kernel)
    assert_same(lambda x, w: F.conv1d(x, w, stride=stride), x, weight)
    assert_same(
        lambda x, w, b: F.conv1d(x, w, b, stride, padding=kernel), x, weight, randn(outputs)
    )


@pytest.mark.parametrize("frames", [1, 30, 64, 65, 200])
@pytest.mark.parametrize("kernel", [32, 33])
def test_position_convolutions(frames: int, kernel: int) -> None:
    conv = PositionalConv(24, kernel=kernel, groups=4)
    parameters = (conv.direction, conv.gain, conv.bias)

    def run(x_BTD: Tensor, direction: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        weights = dict(zip(("direction", "gain", "bias"), (direction, gain, bias), strict=True))
        return torch.func.functional_call(conv, weights, (x_BTD,))  # type: ignore[no-any-return]

    assert_same(run, randn(2, frames, 24), *parameters)


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_the_first_convolution_with_its_norm(offset: float) -> None:
    wav = 0.1 * randn(2, 1, 400, grad=False) + offset

    def run(weight: Tensor, gain: Tensor, shift: Tensor, *own: Tensor) -> Tensor:
        return normed_conv(wav, weight, own[0] if own else None, gain, shift, 5, 1e-5)

    given = (randn(6, 1, 10), randn(6), randn(6, seed=1))
    # an offset that is thirty times the signal costs torch's float32 some digits, not ours
    assert_same(run, *given, tolerance=2e-3 if offset else 2e-5)
    (plain, plain_grads), (own, own_grads) = both(run, *given, randn(6, seed=2))
    assert torch.allclose(plain, own, atol=1e-3 if offset else 1e-5)
    assert own_grads[3] is not None
    assert plain_grads[3] is not None
    assert not own_grads[3].any()  # the norm takes a bias away: its gradient is rounding or zero
    assert plain_grads[3].norm() < 1e-3


@pytest.mark.usefixtures("bfloat16_products")
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_the_whole_stack_also_in_bfloat16(norm: str) -> None:
    torch.manual_seed(0)
    stack = ConvExtractor(16, (10, 3, 2), (5, 2, 2), norm=norm)  # type: ignore[arg-type]
    wav_BS = randn(2, 800, grad=False)

    def run(weight: Tensor) -> Tensor:
        return torch.func.functional_call(stack, {"1.conv.weight": weight}, (wav_BS,))  # type: ignore[no-any-return]

    weight = dict(stack.named_parameters())["1.conv.weight"]
    assert_same(run, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(run, weight, tolerance=2e-2)


# -- recurrence ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "batch_first"), [(1, False), (2, True)])
def test_gru(layers: int, batch_first: bool) -> None:
    torch.manual_seed(0)
    network = nn.GRU(5, 8, num_layers=layers, batch_first=batch_first)
    names = [name for name, _ in network.named_parameters()]

    def run(x: Tensor, h: Tensor, *weights: Tensor) -> Tensor:
        flat = [weights[names.index(n)] for n in names]
        y, last = torch._VF.gru(x, h, flat, True, layers, 0.0, True, False, batch_first)  # type: ignore[attr-defined]
        return torch.cat([y.flatten(), 2 * last.flatten()])

    assert_same(
        run, randn(4, 6, 5), randn(layers, 6 if not batch_first else 4, 8), *network.parameters()
    )


def test_recurrence_that_is_not_ours() -> None:
    torch.manual_seed(0)
    x = randn(4, 3, 5, grad=False)
    for network in (nn.GRU(5, 8, bidirectional=True), nn.GRU(5, 8, bias=False), nn.LSTM(5, 8)):
        with cpu_kernels(CPU):
            y = network(x)[0]
        assert torch.equal(y, network(x)[0])
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 3, 2]))
    network = nn.GRU(5, 8)
    with cpu_kernels(CPU):
        y = network(packed)[0].data
    assert torch.equal(y, network(packed)[0].data)


@pytest.mark.usefixtures("bfloat16_products")
def test_gru_in_bfloat16() -> None:
    torch.manual_seed(0)
    network = nn.GRU(5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(lambda x: network(x)[0].float(), randn(4, 3, 5), tolerance=3e-2)
