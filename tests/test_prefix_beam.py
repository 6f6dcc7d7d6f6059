"""CTC prefix beam search: equal to summing over every path, where there are few."""

from collections import defaultdict
from itertools import product

import numpy as np
import pytest
import torch

from mynah.tasks.core.ctc import greedy
from mynah.tasks.core.prefix_beam import prefix_beam


def logs(frames: int, symbols: int, seed: int, scale: float = 1.0) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(frames, symbols, generator=generator, dtype=torch.float64) * scale
    return logits.log_softmax(-1).numpy()


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(s for i, s in enumerate(path) if s and (i == 0 or s != path[i - 1]))


def every_sequence(log_probs_TV: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """Return all sequences with their log-probabilities, the most probable first."""
    frames, symbols = log_probs_TV.shape
    sums: dict[tuple[int, ...], float] = defaultdict(float)
    for path in product(range(symbols), repeat=frames):
        sums[collapsed(path)] += float(np.exp(log_probs_TV[range(frames), path].sum()))
    return sorted(((s, float(np.log(p))) for s, p in sums.items()), key=lambda one: -one[1])


@pytest.mark.parametrize(("frames", "symbols"), [(1, 2), (3, 3), (5, 3), (6, 3), (4, 4), (5, 4)])
def test_a_beam_of_all_prefixes_is_exact(frames: int, symbols: int) -> None:
    for seed in range(10):
        log_probs = logs(frames, symbols, seed)
        wanted = every_sequence(log_probs)
        found = prefix_beam(log_probs, beam=5000, nbest=5000)
        assert len(found) == len(wanted)
        assert {h.symbols: h.log_prob for h in found} == pytest.approx(dict(wanted))
        assert [h.log_prob for h in found] == pytest.approx([p for _, p in wanted])


def test_a_narrow_beam_finds_the_best_and_never_more_than_there_is() -> None:
    right = 0
    for seed in range(60):
        log_probs = logs(6, 4, seed, scale=2.0)
        wanted = every_sequence(log_probs)
        (best,) = prefix_beam(log_probs, beam=12)
        assert best.log_prob <= dict(wanted)[best.symbols] + 1e-9
        right += best.symbols == wanted[0][0]
    assert right >= 57


def test_it_sums_alignments_where_the_best_path_is_another() -> None:
    # two frames: blank, blank is the best path (0.36), but "a" has three (0.64)
    probs = np.array([[0.6, 0.4], [0.6, 0.4]])
    assert greedy(torch.tensor(probs)[None].log(), torch.tensor([2])) == [[]]
    first, second = prefix_beam(np.log(probs), nbest=2)
    assert first.symbols == (1,)
    assert first.log_prob == pytest.approx(np.log(0.64))
    assert (second.symbols, second.log_prob) == ((), pytest.approx(np.log(0.36)))


def test_a_symbol_twice_needs_a_blank_between() -> None:
    sure = np.full((3, 3), 1e-9)
    sure[[0, 1, 2], [1, 0, 1]] = 1 - 2e-9
    assert prefix_beam(np.log(sure))[0].symbols == (1, 1)
    sure = np.full((3, 3), 1e-9)
    sure[[0, 1, 2], [1, 1, 1]] = 1 - 2e-9
    assert prefix_beam(np.log(sure))[0].symbols == (1,)


def test_impossible_symbols_and_no_frames() -> None:
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    assert [(h.symbols, h.log_prob) for h in prefix_beam(log_probs, nbest=9)] == [((1,), 0.0)]
    assert [(h.symbols, h.log_prob) for h in prefix_beam(np.zeros((0, 3)))] == [((), 0.0)]


def test_a_long_input_is_at_least_as_probable_as_the_best_path() -> None:
    log_probs = logs(300, 30, 0, scale=3.0)
    tensor = torch.from_numpy(log_probs)
    (path,) = greedy(tensor[None], torch.tensor([300]))

    def total(symbols: tuple[int, ...]) -> float:
        return -float(
            torch.nn.functional.ctc_loss(
                tensor[:, None], torch.tensor([symbols]), torch.tensor([300]),
                torch.tensor([len(symbols)]), reduction="sum",
            )
        )  # fmt: skip

    (best,) = prefix_beam(log_probs, beam=16)
    assert best.log_prob <= total(best.symbols) + 1e-6
    assert total(best.symbols) >= total(tuple(path)) - 1e-6


@pytest.mark.parametrize(
    ("log_probs", "options", "message"),
    [
        (np.zeros((2, 3)), {}, "must sum to one"),
        (np.full((2, 3), np.nan), {}, "must sum to one"),
        (logs(2, 3, 0)[None], {}, "frames x symbols"),
        (np.zeros((4, 1)), {}, "the blank among them"),
        (logs(2, 3, 0), {"beam": 0}, "at least 1, got 0 and 1"),
        (logs(2, 3, 0), {"nbest": 0}, "at least 1"),
    ],
)
def test_faults(log_probs: np.ndarray, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prefix_beam(log_probs, **options)
