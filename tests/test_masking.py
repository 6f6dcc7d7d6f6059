"""Span masks: share, spans, lengths, determinism."""

import pytest
import torch

from mynah.upstream.core.masking import span_mask


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def runs(row: torch.Tensor) -> list[int]:
    """Lengths of the runs of true."""
    out: list[int] = []
    previous = False
    for value in row.tolist():
        if value and previous:
            out[-1] += 1
        elif value:
            out.append(1)
        previous = value
    return out


@pytest.mark.parametrize(
    ("prob", "length", "published"),
    [(0.65, 10, 0.49), (0.80, 10, 0.57), (0.5, 5, 0.41), (0.7, 5, 0.53)],
)
def test_expected_share_is_the_published_one(prob: float, length: int, published: float) -> None:
    lengths = torch.full((300,), 750)
    mask = span_mask(lengths, prob=prob, length=length, generator=generator(), same_count=False)
    share = mask.float().mean().item()
    assert share == pytest.approx(1 - (1 - prob / length) ** length, abs=0.01)
    assert share == pytest.approx(published, abs=0.012)


def test_number_of_spans_is_rounded_at_random_per_utterance() -> None:
    # 0.65 * 40 / 10 = 2.6 spans: 3 in 60 % of the utterances, else 2; length 1 counts them exactly
    lengths = torch.full((4000,), 4)
    mask = span_mask(
        lengths, prob=0.65, length=1, min_spans=0, generator=generator(), same_count=False
    )
    counts = mask.sum(dim=1)
    assert set(counts.tolist()) == {2, 3}
    assert (counts == 3).float().mean().item() == pytest.approx(0.6, abs=0.03)


def test_every_span_is_whole_and_within_the_utterance() -> None:
    lengths = torch.tensor([40, 200, 63, 120, 55])
    for seed in range(20):
        mask = span_mask(lengths, prob=0.3, length=10, generator=generator(seed), same_count=False)
        assert mask.shape == (5, 200)
        for row, length in enumerate(lengths.tolist()):
            assert not mask[row, length:].any()
            assert runs(mask[row]) and min(runs(mask[row])) >= 10


def test_starts_are_uniform_and_exclude_the_last_one() -> None:
    mask = span_mask(
        torch.full((6000,), 30),
        prob=0.01,
        length=10,
        min_spans=1,
        generator=generator(),
        same_count=False,
    )
    assert (mask.sum(dim=1) == 10).float().mean() > 0.95
    single = mask[mask.sum(dim=1) == 10]
    starts = single.float().argmax(dim=1)
    histogram = torch.bincount(starts, minlength=20) / len(starts)
    assert histogram.shape == (20,)
    assert histogram.sub(1 / 20).abs().max() < 0.012


@pytest.mark.parametrize("size", [1, 2, 3, 5, 10, 11, 12, 13])
def test_utterances_shorter_than_a_span(size: int) -> None:
    lengths = torch.tensor([size])
    masks = [span_mask(lengths, prob=0.65, length=10, generator=generator(s)) for s in range(30)]
    assert all(mask.shape == (1, size) for mask in masks)
    assert any(mask.any() for mask in masks)


def test_same_count_unmasks_single_frames_of_the_fuller_rows() -> None:
    lengths = torch.full((8,), 100)
    free = span_mask(lengths, prob=0.65, length=10, generator=generator(3), same_count=False)
    even = span_mask(lengths, prob=0.65, length=10, generator=generator(3))
    assert len(set(free.sum(dim=1).tolist())) > 1
    assert set(even.sum(dim=1).tolist()) == {int(free.sum(dim=1).min())}
    assert not (even & ~free).any()


def test_deterministic_under_the_generator_and_blind_to_the_global_one() -> None:
    lengths = torch.tensor([90, 140])
    torch.manual_seed(1)
    a = span_mask(lengths, prob=0.65, length=10, generator=generator(5))
    torch.manual_seed(2)
    b = span_mask(lengths, prob=0.65, length=10, generator=generator(5))
    c = span_mask(lengths, prob=0.65, length=10, generator=generator(6))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(
    ("lengths", "kwargs", "message"),
    [
        ([10], {"prob": 0.0, "length": 5}, "prob must be"),
        ([10], {"prob": 1.5, "length": 5}, "prob must be"),
        ([10], {"prob": 0.5, "length": 0}, "length must be"),
        ([10, 0], {"prob": 0.5, "length": 5}, "positive frame count"),
        ([], {"prob": 0.5, "length": 5}, "positive frame count"),
    ],
)
def test_bad_arguments(lengths: list[int], kwargs: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        span_mask(torch.tensor(lengths), generator=generator(), **kwargs)  # type: ignore[arg-type]
