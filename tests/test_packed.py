"""The pieces of padding-free execution, each against the plain operation that it replaces."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mynah import upstream
from mynah.upstream.core import attention, packed_linear
from mynah.upstream.core.conv import ConvExtractor, PackedConv, conv_frames, receptive_field
from mynah.upstream.core.posconv import PackedPosConv, PositionalConv
from mynah.upstream.core.ragged import blocks, pieces, runs, starting_next

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_blocks_hold_whole_utterances_in_order() -> None:
    found = blocks([3, 1, 9, 2, 2], rows=4)
    assert [(b.start, b.stop, b.lengths) for b in found] == [
        (0, 4, (3, 1)),
        (4, 13, (9,)),
        (13, 17, (2, 2)),
    ]
    assert [b.lengths for b in blocks([5, 1], rows=4)] == [(5,), (1,)]
    assert blocks([], rows=4) == []


def test_runs_and_pieces() -> None:
    assert list(runs([4, 4, 2, 4])) == [(0, 2, 4), (8, 1, 2), (10, 1, 4)]
    assert list(pieces(5, size=2)) == [(0, 2), (2, 4), (4, 5)]


def test_the_frame_of_another_rate_that_starts_next() -> None:
    # 20 ms against 10 ms: every other one; against 40 ms: halves go to the even one, the last serves
    assert [p.tolist() for p in starting_next([3, 1], [9, 1], stride=320, other=160)] == [
        [0, 2, 4],
        [0],
    ]
    (place,) = starting_next([6], [2], stride=320, other=640)
    assert place.tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("onednn", [False, True])
def test_packed_linear(
    gelu: bool, bias: bool, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if onednn and not packed_linear.onednn_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(packed_linear, "onednn_available", lambda: onednn)
    layer = nn.Linear(48, 33, bias=bias)
    packed = packed_linear.pack(layer, gelu=gelu)
    memory = torch.randn(400)
    rows = memory.as_strided((20, 48), (16, 1))  # overlapping, as the convolution stack has them
    with torch.no_grad():
        expected = layer(rows.contiguous())
    assert relative(packed(rows), F.gelu(expected) if gelu else expected) < 1e-6


def test_frames_of_the_published_stack() -> None:
    assert receptive_field(KERNELS, STRIDES) == (400, 320)
    assert [conv_frames(n, KERNELS, STRIDES) for n in (5, 399, 400, 719, 720, 16000)] == [
        0, 0, 1, 1, 2, 49,
    ]  # fmt: skip


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("samples", [1, 400, 9999, 40000])
def test_packed_conv(norm: str, bias: bool, samples: int) -> None:
    extractor = ConvExtractor(24, KERNELS, STRIDES, bias=bias, norm=norm)  # type: ignore[arg-type]
    for p in extractor.parameters():
        p.data += 0.1 * torch.randn_like(p)
    wav = 0.1 * torch.randn(samples) + 0.3  # an offset, which the folded norm must remove exactly
    with torch.no_grad():
        expected = extractor(wav[None])[0]
        packed = PackedConv(extractor, dtype=torch.float32)(wav)
    assert packed.shape == (extractor.num_frames(samples), 24)
    assert relative(packed, expected) < 1e-5


def test_group_norm_of_silence() -> None:
    extractor = ConvExtractor(8, KERNELS, STRIDES)
    with torch.no_grad():
        expected = extractor(torch.zeros(1, 4000))[0]
        packed = PackedConv(extractor, dtype=torch.float32)(torch.zeros(4000))
    assert torch.allclose(packed, expected, atol=1e-6)


@pytest.mark.parametrize(("kernel", "groups", "dim"), [(128, 4, 32), (32, 3, 12), (19, 2, 8)])
def test_packed_positional_convolution(kernel: int, groups: int, dim: int) -> None:
    conv = PositionalConv(dim, kernel=kernel, groups=groups)
    conv.bias.data.normal_()
    conv.gain.data *= torch.rand_like(conv.gain) + 0.5
    lengths = [1, 2, 63, 64, 65, 66, 129, 130, 400]
    x_ND = torch.randn(sum(lengths), dim)
    with torch.no_grad():
        expected = torch.cat([conv(part[None])[0] for part in x_ND.split(lengths)])
        packed = PackedPosConv(conv)(x_ND, lengths)
    for a, b in zip(packed.split(lengths), expected.split(lengths), strict=True):
        assert relative(a, b) < 3e-6


def test_the_positional_weight_is_normalised_per_tap() -> None:
    conv = PositionalConv(16, kernel=8, groups=4)
    conv.gain.data = torch.arange(1.0, 9.0)[None, None]
    norms_K = conv.weight().norm(dim=(0, 1))
    assert torch.allclose(norms_K, torch.arange(1.0, 9.0))
    reference = nn.utils.parametrizations.weight_norm(nn.Conv1d(16, 16, 8, groups=4), dim=2)
    reference.parametrizations.weight.original0.data = conv.gain.data  # type: ignore[union-attr,index]
    reference.parametrizations.weight.original1.data = conv.direction.data  # type: ignore[union-attr,index]
    assert torch.allclose(reference.weight, conv.weight(), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_is_within_utterances(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if dtype == torch.bfloat16:
        request.getfixturevalue("bfloat16_products")
    monkeypatch.setattr(attention, "_QUERIES", 7)
    module = attention.Attention(32, 4).eval()
    lengths = [5, 5, 20, 1]
    x_ND = torch.randn(31, 32)
    with torch.no_grad():
        expected = torch.cat([module(part[None], None)[0] for part in x_ND.split(lengths)])
        packed = attention.PackedAttention(module, dtype=dtype)(x_ND.to(dtype), lengths)
    assert packed.dtype == dtype
    assert relative(packed.float(), expected) < (1e-5 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("precise", [True, False])
def test_one_product_for_queries_keys_and_values(precise: bool) -> None:
    """As accelerators train: the outputs and gradients of three layers."""
    torch.manual_seed(0)
    module = attention.Attention(32, 4)
    layers = (module.q, module.k, module.v)
    for layer in layers:
        nn.init.normal_(layer.bias)
    x_BTD, weight = torch.randn(2, 7, 32, requires_grad=True), torch.randn(3, 2, 7, 32)
    found = []
    for together in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            parts = (
                attention.at_once(x_BTD, layers) if together else [layer(x_BTD) for layer in layers]
            )
        stacked = torch.stack([part.float() for part in parts])
        leaves = [x_BTD, *(p for layer in layers for p in layer.parameters())]
        found.append([stacked.detach(), *torch.autograd.grad((stacked * weight).sum(), leaves)])
    for ours, theirs in zip(*found, strict=True):
        assert relative(ours, theirs) < (1e-6 if precise else 5e-3)


def test_attention_trains_alike_with_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = attention.Attention(32, 4)
    x_BTD = torch.randn(2, 7, 32)
    three = module(x_BTD, None).detach()
    monkeypatch.setattr(attention, "_fuses", lambda *_: True)
    assert relative(module(x_BTD, None).detach(), three) < 1e-6


@pytest.mark.parametrize(
    "name", ["mockingjay/tiny", "byol/tiny", "vq_vae/tiny", "npc/tiny", "distilhubert/tiny"]
)
def test_a_copy_of_a_frozen_model_packs_for_itself(name: str) -> None:
    model = upstream.build(name).freeze()
    wav = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    expected = torch.cat(list(model.hidden_states([wav])))
    twin = copy.deepcopy(model)
    assert twin._packed is None  # type: ignore[attr-defined]
    torch.testing.assert_close(torch.cat(list(twin.hidden_states([wav]))), expected)
    with torch.no_grad():
        next(twin.parameters()).mul_(1.5)
    twin.load_state_dict(twin.state_dict())  # says that weights changed
    assert not torch.allclose(torch.cat(list(twin.hidden_states([wav]))), expected)
    torch.testing.assert_close(torch.cat(list(model.hidden_states([wav]))), expected)
