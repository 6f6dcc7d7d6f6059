"""Every head over frames: an item does not see its neighbours, padding, or how it is called."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from mynah.downstream.blstm_ctc import BLSTMCTC
from mynah.downstream.core.frames import frame_lengths, without_padding
from mynah.downstream.core.sweep import Sweep
from mynah.downstream.diarizer import Diarizer
from mynah.downstream.mask_rnn import MaskRNN
from mynah.downstream.translator import Translator
from mynah.downstream.xvector import XVector

B, T, D = 4, 41, 6
LENGTHS = torch.tensor([41, 15, 28, 16])


class Forced(nn.Module):
    """A translator that is always given the same targets."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Translator(D, 7, width=8, inner=9, heads=2, conv_channels=10, dropout=0.0)

    def forward(self, x_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        out: Tensor = self.model(x_BTD, lengths_B, torch.tensor([[2, 3, 4]] * len(x_BTD)))
        return out


BUILD: dict[str, Callable[[], nn.Module]] = {
    "blstm_ctc": lambda: BLSTMCTC(
        D, 7, projection=5, hidden=4, dropout=0.0, projections=True, specaug=None
    ),
    "blstm_ctc drop": lambda: BLSTMCTC(
        D, 7, projection=5, hidden=4, dropout=0.0, stride_factor=2, specaug=None
    ),
    "diarizer": lambda: Diarizer(D, 2, hidden=5),
    "mask_rnn": lambda: MaskRNN(
        D, 5, sources=2, hidden=4, layers=2, dropout=0.0, activation="sigmoid"
    ),
    "translator": Forced,
    "xvector": lambda: XVector(D, 9, width=32, pooled=40),
}  # fmt: skip


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return BUILD[name]()


def batch(dtype: torch.dtype = torch.float32, padding: float = float("nan")) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x_BTD = torch.randn(B, T, D, generator=generator, dtype=torch.float64)
    for b, n in enumerate(LENGTHS.tolist()):
        x_BTD[b, n:] = padding
    return x_BTD.to(dtype)


def valid(head: nn.Module, out: Tensor, n: int) -> Tensor:
    """What means something of one item's output."""
    if isinstance(head, (Diarizer, MaskRNN)):
        return out[:n]
    return out[: int(head.output_lengths(torch.tensor(n)))] if isinstance(head, BLSTMCTC) else out


@pytest.mark.parametrize("name", BUILD)
def test_an_item_alone_equals_the_item_in_a_batch(name: str) -> None:
    head = build(name)
    x_BTD = batch()
    together = head(x_BTD, LENGTHS)
    for b, n in enumerate(LENGTHS.tolist()):
        alone = head(x_BTD[b : b + 1, :n])[0]
        torch.testing.assert_close(valid(head, together[b], n), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BUILD)
def test_a_batch_trains_like_its_items_one_by_one(name: str) -> None:
    head = build(name).double()
    x_BTD = batch(torch.float64)
    params = list(head.parameters())

    def gradients(loss: Tensor) -> list[Tensor]:
        grads = torch.autograd.grad(loss, params, allow_unused=True)
        return [torch.zeros(1) if g is None else g for g in grads]

    together = head(x_BTD, LENGTHS)
    loss = torch.stack(
        [valid(head, together[b], n).square().sum() for b, n in enumerate(LENGTHS.tolist())]
    ).sum()
    alone = torch.stack(
        [head(x_BTD[b : b + 1, :n]).square().sum() for b, n in enumerate(LENGTHS.tolist())]
    ).sum()
    both = list(zip(gradients(loss), gradients(alone), strict=True))
    assert sum(float(a.abs().sum()) > 0 for a, _ in both) > len(both) // 2
    for a, b in both:
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", BUILD)
def test_parameters_may_be_given_from_outside(name: str) -> None:
    head, other = build(name), build(name)
    for p in other.parameters():
        nn.init.normal_(p, std=0.3)
    x_BTD = batch()
    given = {n: p.detach().clone().requires_grad_() for n, p in other.named_parameters()}
    out = functional_call(head, given, (x_BTD, LENGTHS))
    expected = other(x_BTD, LENGTHS)
    assert torch.equal(out, expected)
    weight = torch.randn_like(out).where(out.isfinite(), torch.tensor(0.0))
    grads = torch.autograd.grad((out * weight).sum(), list(given.values()), allow_unused=True)
    own = torch.autograd.grad(
        (expected * weight).sum(), list(other.parameters()), allow_unused=True
    )
    for a, b in zip(grads, own, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", [n for n in BUILD if n != "translator"])
def test_a_sweep_trains_it(name: str) -> None:
    """K heads at once give what each gives alone; recurrent ones are computed one by one."""
    sweep = Sweep(BUILD[name], layers=2, learning_rates=(1e-2, 1e-3), seeds=(0, 1))
    layers_LBTD = torch.stack([batch(padding=7.0), batch(padding=-3.0).flip(2)])
    out = sweep(layers_LBTD, LENGTHS)
    assert sweep.mode == ("vmap" if name == "xvector" else "loop")
    before = [sweep.state(k) for k in range(4)]
    sweep.backward(out.square().flatten(1).mean(1))
    sweep.update()
    assert sweep.alive == [True] * 4
    for k in range(4):
        alone = sweep.probe(before[k])(layers_LBTD, LENGTHS)
        torch.testing.assert_close(out[k], alone, rtol=1e-4, atol=1e-5)
        assert any(not torch.equal(before[k][n], v) for n, v in sweep.state(k).items())


@pytest.mark.parametrize("name", BUILD)
def test_what_does_not_fit_is_refused(name: str) -> None:
    head = build(name)
    with pytest.raises(ValueError, match="expected frames"):
        head(torch.zeros(B, D), None)
    with pytest.raises(ValueError, match="expected frames"):
        head(torch.zeros(B, 0, D), None)
    with pytest.raises(ValueError, match="expected 4 lengths as integers"):
        head(torch.zeros(B, T, D), torch.tensor([41, 15]))
    with pytest.raises(ValueError, match="expected 4 lengths as integers"):
        head(torch.zeros(B, T, D), LENGTHS.float())
    with pytest.raises(ValueError, match="is said to have 42 frames, the features hold 41"):
        head(torch.zeros(B, T, D), LENGTHS + 1)
    with pytest.raises(ValueError, match="at least .* frames? of each item"):
        head(torch.zeros(B, T, D), LENGTHS - 15)


def test_lengths_and_padding() -> None:
    x_BTD = batch()
    assert frame_lengths(x_BTD, None).tolist() == [T] * B
    assert torch.equal(frame_lengths(x_BTD, LENGTHS.int(), minimum=15), LENGTHS.int())
    cleaned = without_padding(x_BTD, LENGTHS)
    assert cleaned.isfinite().all()
    assert torch.equal(cleaned[1, :15], x_BTD[1, :15])
    assert cleaned[1, 15:].abs().max() == 0
