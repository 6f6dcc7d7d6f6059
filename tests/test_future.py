"""Predicting future frames: the norm, the negatives, and losses by their formulas."""

import math

import pytest
import torch
from torch import nn

from mynah.upstream.core.aggregator import Aggregator, utterance_norm
from mynah.upstream.core.future import blind_loss, draw_others, future_loss


def test_context_looks_backwards_only() -> None:
    """But for the statistics of the norms, which are held fast here."""
    aggregator = Aggregator(8, (2, 3, 5)).eval()
    x_1TC = torch.randn(1, 30, 8, generator=torch.Generator().manual_seed(0))
    late_1TC = x_1TC.clone()
    late_1TC[:, 20:] = 5.0
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr("mynah.upstream.core.aggregator.utterance_norm", lambda x, _norm, _valid: x)
        a, b = aggregator(x_1TC, None), aggregator(late_1TC, None)
    assert torch.equal(a[:, :20], b[:, :20])
    assert not torch.allclose(a[:, 20:], b[:, 20:])


def test_the_norm_is_that_of_each_utterance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    norm = nn.GroupNorm(2, 6)
    norm.weight.data = torch.rand(6, generator=generator)
    norm.bias.data = torch.rand(6, generator=generator)
    x_BCT = 3 + torch.randn(3, 6, 9, generator=generator)
    counts = [9, 4, 1]
    valid_BT = torch.arange(9) < torch.tensor(counts)[:, None]
    found = utterance_norm(x_BCT, norm, valid_BT)
    for row, n in enumerate(counts):
        alone = norm(x_BCT[row : row + 1, :, :n])
        torch.testing.assert_close(found[row : row + 1, :, :n], alone)


def test_others_are_other_frames_of_the_utterance() -> None:
    counts = [7, 1, 3]
    others_BTN = draw_others(counts, 50, generator=torch.Generator().manual_seed(0))
    assert others_BTN.shape == (3, 7, 50)
    for row, n in enumerate(counts):
        for frame in range(n):
            expected = set(range(n)) - {frame} or {frame}
            assert set(others_BTN[row, frame].tolist()) == expected
    drawn = draw_others([1000], 100, generator=torch.Generator().manual_seed(0))[0]
    frequency = drawn.flatten().bincount(minlength=1000) / 100
    assert float(frequency.std()) == pytest.approx(0.1, rel=0.15)  # binomial


def test_the_loss_is_the_formula() -> None:
    """Equation 2 in float64, term by term, on utterances of several lengths."""
    generator = torch.Generator().manual_seed(0)
    counts, steps, offset = [8, 5, 2, 3], 3, 2
    predicted = torch.randn(4, 8, steps, 6, generator=generator, dtype=torch.float64)
    frames = torch.randn(4, 8, 6, generator=generator, dtype=torch.float64)
    others = draw_others(counts, 4, generator=generator)
    total, won, count = 0.0, 0, 0
    for row, n in enumerate(counts):
        for t in range(n):
            for k in range(steps):
                ahead = t + offset + k
                if ahead >= n:
                    continue
                true = float(predicted[row, t, k] @ frames[row, ahead])
                wrong = [float(predicted[row, t, k] @ frames[row, i]) for i in others[row, ahead]]
                total += math.log1p(math.exp(-true)) + sum(math.log1p(math.exp(s)) for s in wrong)
                won += all(true > s for s in wrong)
                count += 1
    found = future_loss(predicted, frames, others, counts, offset=offset)
    assert found.count == count == 6 + 5 + 4 + 3 + 2 + 1 + 0 + 1
    assert float(found.loss) == pytest.approx(total / count, rel=1e-6)
    assert float(found.accuracy) == pytest.approx(won / count)


def test_blind_is_the_best_constant_score() -> None:
    predictor = torch.zeros(1, 50, 1, 1)
    best = min(
        float(
            future_loss(
                torch.full_like(predictor, value),
                torch.ones(1, 50, 1),
                torch.zeros(1, 50, 10, dtype=torch.int64),
                [50],
                offset=1,
            ).loss
        )
        for value in torch.linspace(-3, -1.5, 61).tolist()
    )
    assert blind_loss(10) == pytest.approx(best, rel=1e-4)
