"""SpecAug: the warp against torch's own interpolation, masks within an utterance, how they fall."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mynah.downstream.core.specaug import SpecAug, warped

NOTHING: dict[str, Any] = {"window": 0, "frequency_masks": 0, "time_masks": 0}


def stretched(x_TD: Tensor, frames: int) -> Tensor:
    size = (frames, x_TD.shape[1])
    return F.interpolate(x_TD[None, None], size, mode="bicubic", align_corners=False)[0, 0]


def test_warp_is_bicubic_interpolation_of_both_sides() -> None:
    torch.manual_seed(0)
    x_BTD = torch.randn(4, 30, 5, dtype=torch.float64, requires_grad=True)
    lengths, center, moved = [30, 17, 22, 6], [12, 5, 21, 6], [17, 9, 1, 6]
    out = warped(x_BTD, *(torch.tensor(v) for v in (lengths, center, moved)))
    rows = []
    for b, (n, c, m) in enumerate(zip(lengths, center, moved, strict=True)):
        sides = [stretched(x_BTD[b, :c], m)]
        sides += [stretched(x_BTD[b, c:n], n - m)] if c < n else []
        rows.append(torch.cat([*sides, x_BTD[b, n:]]))
    expected = torch.stack(rows)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(
        *(
            torch.autograd.grad(y.square().sum(), x_BTD, retain_graph=True)[0]
            for y in (out, expected)
        )
    )


def test_the_warp_that_is_drawn() -> None:
    """A ramp shows which frame went where: every distance in (-window, window], none beyond."""
    specaug = SpecAug(**{**NOTHING, "window": 3})
    torch.manual_seed(0)
    ramp_BTD = torch.arange(40.0).view(1, 40, 1).repeat(2000, 1, 1)
    lengths_B = torch.tensor([40, 6] * 1000)
    out = specaug(ramp_BTD, lengths_B)
    assert torch.equal(out[1::2], ramp_BTD[1::2])  # too short to be warped
    change_BT = (out - ramp_BTD)[::2, :, 0]
    furthest = change_BT.abs().amax(dim=1)
    assert 2.5 < float(furthest.max()) <= 3.5
    assert (change_BT[:, 0].abs() <= 1.0).all()  # three frames become one at most
    assert (change_BT[:, -1].abs() <= 1.5).all()  # four become one
    earlier, later = (change_BT.mean(1) > 0.05).float(), (change_BT.mean(1) < -0.05).float()
    assert earlier.mean() == pytest.approx(2 / 6, abs=0.06)  # moved is center - 2, center - 1
    assert later.mean() == pytest.approx(3 / 6, abs=0.06)  # center + 1, + 2, + 3


def runs(mask_T: Tensor) -> list[tuple[int, int]]:
    """Start and width of each run of true."""
    edges = torch.diff(torch.cat([torch.zeros(1), mask_T.float(), torch.zeros(1)]))
    return list(zip(
        edges.gt(0).nonzero().flatten().tolist(),
        (edges.lt(0).nonzero() - edges.gt(0).nonzero()).flatten().tolist(),
        strict=True,
    ))  # fmt: skip


def test_time_masks_lie_within_each_utterance() -> None:
    specaug = SpecAug(time_masks=1, time_width=9)
    torch.manual_seed(0)
    lengths_B = torch.tensor([50, 4, 12]).repeat(4000)
    mask_BT = specaug.time_mask(lengths_B, 60)
    for n, most in ((50, 9), (4, 4), (12, 9)):
        rows = mask_BT[lengths_B == n]
        assert not rows[:, n:].any()
        widths = rows.sum(1)
        assert widths.max() == most
        assert all(len(runs(row)) <= 1 for row in rows[:300])
        share = torch.bincount(widths, minlength=most + 1) / len(widths)
        assert share[0] == pytest.approx(0.1, abs=0.02)
        assert share[most] == pytest.approx((10 - most) / 10, abs=0.03)  # wider ones are cut
    ends = mask_BT[lengths_B == 50]
    assert ends[:, 0].any()  # masks may touch both ends
    assert ends[:, 49].any()


def test_width_and_start_are_uniform() -> None:
    specaug = SpecAug(frequency_masks=1, frequency_width=4)
    torch.manual_seed(0)
    found = [runs(row) for row in specaug.frequency_mask(20_000, 6)]
    counts = {(s, w): 0 for w in range(1, 5) for s in range(6 - w + 1)}
    for spans in found:
        for span in spans:
            counts[span] += 1
    for (_, width), times in counts.items():  # 1/5 for the width, 1/(7 - width) for the start
        assert times / 20_000 == pytest.approx(1 / 5 / (7 - width), abs=0.006)


def test_what_is_masked_is_zero_and_the_rest_untouched() -> None:
    torch.manual_seed(0)
    specaug = SpecAug(window=0)
    x_BTD = 1 + torch.rand(16, 200, 300)
    lengths_B = torch.randint(100, 201, (16,))
    before = x_BTD.clone()
    out = specaug(x_BTD, lengths_B)
    assert torch.equal(x_BTD, before)
    for b, n in enumerate(lengths_B.tolist()):
        zero_TD = out[b, :n] == 0
        bands, spans = zero_TD.all(0), zero_TD.all(1)
        assert torch.equal(zero_TD, bands[None] | spans[:, None])
        assert torch.equal(out[b, :n][~zero_TD], x_BTD[b, :n][~zero_TD])
        assert bands.sum() <= 4 * 49
        assert spans.sum() <= 2 * 39
    assert (out == 0).any()


def test_adaptive_time_masks_follow_the_length() -> None:
    """4 % of 100 frames: 4 masks of 0 to 3 frames; of 24 frames: none; never more than 20."""
    specaug = SpecAug(adaptive=0.04)
    torch.manual_seed(0)
    lengths_B = torch.tensor([100, 24, 2000]).repeat(500)
    mask_BT = specaug.time_mask(lengths_B, 2000)
    masked = mask_BT.sum(1)
    assert masked[lengths_B == 100].max() <= 12
    assert masked[lengths_B == 100].float().mean() == pytest.approx(4 * 1.5, abs=0.6)
    assert masked[lengths_B == 24].max() == 0
    alone = SpecAug(time_masks=20).time_mask(torch.full((500,), 2000), 2000).sum(1).float()
    assert masked[lengths_B == 2000].float().mean() == pytest.approx(float(alone.mean()), rel=0.05)


def test_draws_are_the_global_generators() -> None:
    specaug, x_BTD = SpecAug(), torch.randn(3, 60, 80)
    lengths_B = torch.tensor([60, 11, 34])
    torch.manual_seed(3)
    first = specaug(x_BTD, lengths_B)
    assert not torch.equal(first, specaug(x_BTD, lengths_B))
    torch.manual_seed(3)
    assert torch.equal(first, specaug(x_BTD, lengths_B))


def test_nothing_is_done_where_nothing_is_asked_for() -> None:
    x_BTD = torch.randn(2, 30, 8)
    assert torch.equal(SpecAug(**NOTHING)(x_BTD, torch.tensor([30, 20])), x_BTD)


def test_gradients_pass() -> None:
    torch.manual_seed(0)
    x_BTD = torch.randn(2, 40, 8, dtype=torch.float64, requires_grad=True)
    out = SpecAug(frequency_width=3, time_width=5)(x_BTD, torch.tensor([40, 31]))
    (grad,) = torch.autograd.grad(out.sum(), x_BTD)
    assert grad.isfinite().all()
    assert grad[0].abs().sum() > 0


@pytest.mark.parametrize("options", [{"time_width": -1}, {"window": -2}, {"adaptive": 1.5}])
def test_bad_sizes_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SpecAug(**options)
