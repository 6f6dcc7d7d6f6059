"""Codebooks that follow a teacher: nearest codes and moves against explicit loops in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mynah.upstream.core import online_codebook
from mynah.upstream.core.online_codebook import OnlineCodebook


def test_nearest_codes_equal_an_explicit_search() -> None:
    torch.manual_seed(0)
    book = OnlineCodebook(3, 20, 16)
    book.counts_GV.uniform_(0.5, 4.0)
    x_GMD = torch.randn(3, 100, 16)
    found_GM = book.nearest(x_GMD)
    for g in range(3):
        codes = [
            s / n
            for s, n in zip(book.sums_GVD[g].double(), book.counts_GV[g].double(), strict=True)
        ]
        for m, x_D in enumerate(x_GMD[g].double()):
            distances = [float(((x_D - c) ** 2).sum()) for c in codes]
            assert int(found_GM[g, m]) == min(range(20), key=distances.__getitem__)


def test_codes_begin_like_normalised_frames() -> None:
    torch.manual_seed(0)
    vectors_GVD = OnlineCodebook(2, 50, 9).vectors().double()
    for codes_VD in vectors_GVD:
        for column_V in codes_VD.T:
            assert abs(float(column_V.mean())) < 1e-6
            assert float(column_V.var(correction=0)) == pytest.approx(1.0, abs=1e-4)


def test_codes_follow_as_explicit_loops_say() -> None:
    """Five steps; unused codes stay, each step may consist of several batches."""
    torch.manual_seed(0)
    book = OnlineCodebook(2, 12, 8, decay=0.9)
    sums = book.sums_GVD.double().tolist()
    counts = book.counts_GV.double().tolist()
    for step in range(5):
        seen: list[tuple[int, int, Tensor]] = []
        for _ in range(1 + step % 2):
            x_GMD = torch.randn(2, 6, 8)
            codes_GM = book.nearest(x_GMD)
            book.gather(x_GMD, codes_GM)
            seen += [(g, int(codes_GM[g, m]), x_GMD[g, m]) for g in range(2) for m in range(6)]
        before = book.vectors().clone()
        book.follow()
        for g in range(2):
            for v in range(12):
                mine = [x_D.double() for group, code, x_D in seen if (group, code) == (g, v)]
                if not mine:
                    assert torch.equal(book.vectors()[g, v], before[g, v])
                    continue
                counts[g][v] = 0.9 * counts[g][v] + 0.1 * len(mine)
                total = [float(sum(x_D[d] for x_D in mine)) for d in range(8)]
                sums[g][v] = [0.9 * s + 0.1 * t for s, t in zip(sums[g][v], total, strict=True)]
    assert torch.allclose(book.sums_GVD.double(), torch.tensor(sums).double(), atol=1e-5)
    assert torch.allclose(book.counts_GV.double(), torch.tensor(counts).double(), atol=1e-5)


def test_a_step_without_frames_or_with_bad_ones_moves_nothing() -> None:
    book = OnlineCodebook(2, 4, 3)
    before = {k: v.clone() for k, v in book.state_dict().items()}
    book.follow()
    x_GMD = torch.full((2, 5, 3), float("nan"))
    book.gather(x_GMD, torch.zeros(2, 5, dtype=torch.int64))
    book.follow()
    assert all(torch.equal(v, before[k]) for k, v in book.state_dict().items())
    still = OnlineCodebook(1, 4, 3, decay=1.0)
    before = {k: v.clone() for k, v in still.state_dict().items()}
    still.gather(torch.ones(1, 5, 3), torch.zeros(1, 5, dtype=torch.int64))
    still.follow()
    assert all(torch.equal(v, before[k]) for k, v in still.state_dict().items())


def test_processes_move_the_codes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that saw the same frames weigh them twice."""

    class Two:
        is_available = staticmethod(lambda: True)
        is_initialized = staticmethod(lambda: True)
        all_reduce = staticmethod(lambda x: x.mul_(2))

    torch.manual_seed(0)
    one, two = OnlineCodebook(1, 4, 3), OnlineCodebook(1, 4, 3)
    two.load_state_dict(one.state_dict())
    x_GMD = torch.randn(1, 9, 3)
    codes_GM = one.nearest(x_GMD)
    for _ in range(2):
        one.gather(x_GMD, codes_GM)
    one.follow()
    monkeypatch.setattr(online_codebook, "dist", Two)
    two.gather(x_GMD, codes_GM)
    two.follow()
    assert torch.allclose(one.sums_GVD, two.sums_GVD)
    assert torch.allclose(one.counts_GV, two.counts_GV)


@pytest.mark.parametrize("wrong", [{"codes": 1}, {"groups": 0}, {"dim": 0}, {"decay": 1.1}])
def test_a_wrong_codebook_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="decay between 0 and 1"):
        OnlineCodebook(**{"groups": 1, "codes": 4, "dim": 3, **wrong})
