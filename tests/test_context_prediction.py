"""Context prediction: pairs, the cross-entropy of gaps, and that stretches do not see each other."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from mynah.upstream.context_prediction import CONFIGS, ContextPrediction, Pairs
from mynah.upstream.core.contract import Batch


def small(**changes: Any) -> ContextPrediction:
    torch.manual_seed(0)
    values = {"dim": 32, "heads": 2, "ffn": 48, "layers": 2, "hidden": 32}
    return ContextPrediction(dataclasses.replace(CONFIGS["tiny"], **{**values, **changes}))


def speech(*sizes: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        wav_BS=0.1 * torch.randn(len(sizes), max(sizes), generator=generator),
        lengths_B=torch.tensor(sizes),
        ids=tuple(f"u{n}" for n in sizes),
        generator=generator,
    )


def test_pairs_lie_inside_their_utterance() -> None:
    counts = [100, 26, 25, 60]
    pairs = Pairs(counts, stretch=25, pairs=400, generator=torch.Generator().manual_seed(0))
    assert pairs.row_K.unique().tolist() == [0, 1, 3]
    for first in (pairs.first_K, pairs.second_K):
        assert int(first.min()) == 0
        assert bool((first + 25 <= torch.tensor(counts)[pairs.row_K]).all())
    long = pairs.row_K == 0
    assert int(pairs.first_K[long].max()) == 75
    gap = (pairs.first_K - pairs.second_K).abs()[long] / 75
    assert torch.allclose(pairs.gap_K[long].double(), gap.double(), atol=1e-6)
    assert float(pairs.gap_K[long].mean()) == pytest.approx(1 / 3, abs=0.05)
    assert 0.4 < float(pairs.later_K.mean()) < 0.6


@pytest.mark.parametrize("order", [False, True])
def test_the_loss_is_the_cross_entropy_of_gap_and_order(order: bool) -> None:
    model = small(order=order).eval()
    with torch.no_grad():
        raw_BTC, counts = model.frontend.raw(speech(32000, 24000).wavs())
        pairs = Pairs(counts, stretch=25, pairs=3, generator=torch.Generator().manual_seed(2))
        loss = model.compare(raw_BTC, pairs)
        total = 0.0
        for k in range(6):
            vectors = []
            for start in (int(pairs.first_K[k]), int(pairs.second_K[k])):
                alone = raw_BTC[pairs.row_K[k], start : start + 25][None]
                x = model.frontend.proj(model.frontend.norm(alone))
                vectors.append(model.encoder(x)[-1][0].mean(dim=0))
            p = torch.sigmoid(model.estimate(torch.cat(vectors))).double().tolist()
            g, later = float(pairs.gap_K[k]), float(pairs.later_K[k])
            total -= (g * math.log(p[0]) + (1 - g) * math.log(1 - p[0])) / 6
            if order:
                total -= (later * math.log(p[1]) + (1 - later) * math.log(1 - p[1])) / 6
    assert float(loss.total) == pytest.approx(total, rel=1e-5)
    assert loss.weight == 6


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"at most 25 frames.*u6000"):
        small().loss(speech(6000, 6000))
    with pytest.raises(ValueError, match="front must be 'mel'"):
        small(front="wave")
