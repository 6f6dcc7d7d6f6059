"""Moments of frames as they come, and scores normalised as the protocol does."""

import numpy as np
import pytest
import torch

from mynah.tasks.core.znorm import RunningMoments, found, normalise_scores


@pytest.mark.parametrize("shape", [(6,), (3, 6)])
def test_running_moments_equal_those_of_all_frames(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    pieces = [
        torch.randn(*shape[:-1], n, shape[-1], generator=generator) * 3 + 1000
        for n in (1, 0, 40, 7, 300)
    ]
    moments = RunningMoments()
    for piece in pieces:
        moments.update(piece)
    whole = torch.cat(pieces, dim=-2).double()
    assert moments.frames == 348
    torch.testing.assert_close(moments.mean, whole.mean(dim=-2))
    torch.testing.assert_close(moments.deviation, whole.std(dim=-2))
    normal = torch.cat([moments.normalise(piece.double()) for piece in pieces], dim=-2)
    torch.testing.assert_close(normal.mean(dim=-2), torch.zeros(shape, dtype=torch.float64))
    torch.testing.assert_close(normal.std(dim=-2), torch.ones(shape, dtype=torch.float64))
    assert moments.normalise(pieces[2].half()).dtype == torch.float32


def test_constant_dimension_is_divided_by_the_least_deviation() -> None:
    moments = RunningMoments()
    moments.update(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert moments.deviation.tolist() == [pytest.approx(2**0.5), 1e-9]
    assert moments.normalise(torch.tensor([[2.0, 5.0]])).tolist() == [[0, 0]]


def test_bad_moments() -> None:
    moments = RunningMoments()
    with pytest.raises(ValueError, match="no frames yet"):
        moments.normalise(torch.randn(3, 4))
    moments.update(torch.randn(1, 4))
    with pytest.raises(ValueError, match="1 frames: a deviation needs two"):
        moments.normalise(torch.randn(3, 4))
    with pytest.raises(ValueError, match="all must be of one upstream"):
        moments.update(torch.randn(3, 5))
    with pytest.raises(ValueError, match="must be floats"):
        moments.update(torch.ones(3, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="not finite"):
        moments.update(torch.full((2, 4), torch.nan))
    moments.update(torch.randn(2, 4))
    assert moments.frames == 3
    with pytest.raises(ValueError, match=r"frames of shape \(2, 3, 4\)"):
        moments.normalise(torch.randn(2, 3, 4))


def test_scores_are_normalised_as_the_protocol_does() -> None:
    scores = np.random.default_rng(0).normal(size=(7, 50)).astype(np.float32)
    wide = scores.astype(np.float64)
    expected = (wide - wide.mean(1, keepdims=True)) / wide.std(1, keepdims=True)
    ours = normalise_scores(torch.from_numpy(scores))
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    np.testing.assert_array_equal(found(ours), expected > 2)
    assert found(ours).any()
    hand = normalise_scores(torch.tensor([[-1.0] * 9 + [0.0]]))  # mean -0.9, deviation 0.3
    assert hand[0, 9].item() == pytest.approx(3)
    assert found(hand).sum().item() == 1


def test_a_query_that_scores_all_alike_finds_nothing() -> None:
    scores = normalise_scores(torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.1, 0.1]]))
    assert torch.equal(scores, torch.zeros(2, 3, dtype=torch.float64))
    assert not found(scores).any()
    with pytest.raises(ValueError, match="no documents"):
        normalise_scores(torch.zeros(2, 0))
    with pytest.raises(ValueError, match="not finite"):
        normalise_scores(torch.tensor([[0.0, torch.nan]]))
