"""Permutation-invariant losses against every order by brute force, and against s3prl's."""

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F

from mynah.tasks.core.pit import MOST, assign, pit_bce, pit_spectra

LENGTHS = torch.tensor([7, 4, 1])


def random(speakers: int, *, heads: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(speakers)
    logits = torch.randn(heads, 3, 7, speakers, dtype=torch.float64) * 3
    target = (torch.rand(3, 7, speakers) > 0.5).double()
    return logits, target


@pytest.mark.parametrize("speakers", [1, 2, 3])
def test_bce_is_the_best_of_all_orders(speakers: int) -> None:
    logits, target = random(speakers)
    losses, order = pit_bce(logits, target, LENGTHS)
    for k in range(2):
        for b, n in enumerate(LENGTHS.tolist()):
            by_order = {
                p: float(
                    F.binary_cross_entropy_with_logits(
                        logits[k, b, :n], target[b, :n, list(p)], reduction="none"
                    ).mean(dim=1).sum()
                )
                for p in permutations(range(speakers))
            }  # fmt: skip
            best = min(by_order, key=lambda p: by_order[p])
            assert float(losses[k, b]) == pytest.approx(by_order[best])
            assert tuple(order[k, b].tolist()) == best


def test_bce_is_s3prls() -> None:
    from s3prl.downstream.diarization.utils import pit_loss

    logits, target = random(2)
    losses, order = pit_bce(logits.float(), target, LENGTHS)
    for k in range(2):
        loss, index, orders = pit_loss(logits[k].float(), target.float(), LENGTHS)
        total = float(losses[k].sum())
        assert total / int(LENGTHS.sum()) == pytest.approx(float(loss), rel=1e-5)
        assert [orders[i].tolist() for i in index] == order[k].tolist()


def test_padding_is_not_looked_at_and_has_no_gradient() -> None:
    logits, target = random(2)
    before, _ = pit_bce(logits, target, LENGTHS)
    logits[:, 1, 4:] = float("nan")
    target[1, 4:] = 1.0
    logits.requires_grad_()
    after, _ = pit_bce(logits, target, LENGTHS)
    assert torch.equal(before, after.detach())
    (grad,) = torch.autograd.grad(after.sum(), logits)
    assert grad[:, 1, 4:].abs().max() == 0
    assert bool((grad[:, 1, :4] != 0).all())


@pytest.mark.parametrize("distance", ["squared", "absolute"])
@pytest.mark.parametrize("sources", [1, 2, 3])
def test_spectra_are_the_best_of_all_orders(sources: int, distance: str) -> None:
    torch.manual_seed(0)
    estimate = torch.rand(2, 3, 7, sources, 5, dtype=torch.float64)
    target = torch.rand(3, 7, sources, 5, dtype=torch.float64)
    losses, order = pit_spectra(estimate, target, LENGTHS, distance=distance)  # type: ignore[arg-type]
    for k in range(2):
        for b, n in enumerate(LENGTHS.tolist()):
            costs = {}
            for p in permutations(range(sources)):
                apart = estimate[k, b, :n] - target[b, :n, list(p)]
                each = apart.square() if distance == "squared" else apart.abs()
                costs[p] = float(each.sum()) / sources
            best = min(costs, key=lambda p: costs[p])
            assert float(losses[k, b]) == pytest.approx(costs[best])
            assert tuple(order[k, b].tolist()) == best


def test_a_swapped_target_costs_nothing() -> None:
    torch.manual_seed(0)
    target = torch.rand(1, 6, 2, 4)
    losses, order = pit_spectra(target[None].flip(3), target, torch.tensor([6]))
    assert float(losses) == 0
    assert order.tolist() == [[[1, 0]]]


def test_equal_orders_take_the_first_and_costs_are_means() -> None:
    cost = torch.tensor([[[[1.0, 1.0], [1.0, 1.0]]]])
    lowest, order = assign(cost)
    assert lowest.tolist() == [[1.0]]
    assert order.tolist() == [[[0, 1]]]


def test_what_does_not_fit_is_refused() -> None:
    logits, target = random(2)
    with pytest.raises(ValueError, match="do not fit targets"):
        pit_bce(logits, target[:2], LENGTHS)
    with pytest.raises(ValueError, match="do not fit targets"):
        pit_spectra(torch.rand(1, 3, 7, 2, 4), torch.rand(3, 7, 2, 5), LENGTHS)
    with pytest.raises(ValueError, match="'squared' or 'absolute', got 'cosine'"):
        pit_spectra(torch.rand(1, 3, 7, 2, 4), torch.rand(3, 7, 2, 4), LENGTHS, distance="cosine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"1 to {MOST} outputs.*got 7"):
        assign(torch.rand(1, 1, 7, 7))
    with pytest.raises(ValueError, match=r"expected costs \(K, B, S, S\)"):
        assign(torch.rand(1, 1, 2, 3))
