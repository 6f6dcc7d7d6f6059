"""Speech SimCLR: both terms against formulas written out, views that keep their frames."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from mynah.upstream.core.contract import Batch
from mynah.upstream.core.waveviews import distort, reverberate
from mynah.upstream.speech_simclr import CONFIGS, SpeechSimclr


def small(**changes: Any) -> SpeechSimclr:
    torch.manual_seed(0)
    values = {"dim": 32, "heads": 2, "ffn": 48, "layers": 2, "hidden": 32, "final_dim": 16}
    return SpeechSimclr(dataclasses.replace(CONFIGS["tiny"], **{**values, **changes}))


def speech(*sizes: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    wav_BS = 0.1 * torch.randn(len(sizes), max(sizes), generator=generator)
    return Batch(
        wav_BS=wav_BS,
        lengths_B=torch.tensor(sizes),
        ids=tuple(map(str, sizes)),
        generator=generator,
    )


def test_the_loss_is_nt_xent_and_l1() -> None:
    model = small(temperature=0.2, reconstruction_weight=0.5).eval()
    wavs = speech(12000, 9000, 14000).wavs()
    views = [
        (distort(wavs, gain=3.0, snr=(5.0, 20.0), silence=0.1, reverb=1.0, generator=g), mask)
        for g, mask in (
            (
                torch.Generator().manual_seed(n),
                torch.rand(3, 43, generator=torch.Generator().manual_seed(n)) < 0.2,
            )
            for n in (5, 6)
        )
    ]
    with torch.no_grad():
        clean = model.frames(wavs)
        assert clean.valid_BT.shape[1] == 43
        views = [(v, m & clean.valid_BT) for v, m in views]
        loss = model.compare(views, clean.raw_BTC, clean.valid_BT)
        z, l1 = [], 0.0
        for wave, mask in views:
            last = model.states(model.frames(wave), mask)[-1].double()
            for row, count in enumerate(clean.counts):
                mean = last[row, :count].mean(dim=0)
                z.append(model.projector(mean.float()).double())
            error = (model.repair(last.float()) - clean.raw_BTC).abs()[clean.valid_BT]
            l1 += float(error.double().mean()) / 2
        unit = [v / v.norm() for v in z]
        total = 0.0
        for i in range(6):
            others = [float(unit[i] @ unit[j]) / 0.2 for j in range(6) if j != i]
            positive = float(unit[i] @ unit[(i + 3) % 6]) / 0.2
            total += (math.log(sum(map(math.exp, others))) - positive) / 6
    assert float(loss.total) == pytest.approx(total + 0.5 * l1, rel=1e-5)
    assert float(loss.parts["l1"]) == pytest.approx(l1, rel=1e-5)


def test_distorted_copies_keep_length_and_place() -> None:
    click = torch.zeros(16000)
    click[8000] = 1.0
    wet = reverberate(click, generator=torch.Generator().manual_seed(0))
    assert len(wet) == 16000
    assert int(wet.abs().argmax()) == 8000
    assert not wet[:7999].abs().max() > 1e-5
    assert float(wet.square().sum()) == pytest.approx(1.0, rel=1e-3)
    early, late = wet[8001:9600].square().sum(), wet[12000:].square().sum()
    assert float(early) > 10 * float(late)
    wavs = speech(5000, 300, 1).wavs()
    copies = distort(
        [*wavs, torch.zeros(4000)],
        gain=6.0,
        snr=(0.0, 10.0),
        silence=0.5,
        reverb=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    assert [len(c) for c in copies] == [5000, 300, 1, 4000]
    assert all(torch.isfinite(c).all() for c in copies)
    assert not copies[3].any()


def test_refusals() -> None:
    with pytest.raises(ValueError, match="the batch holds one"):
        small().loss(speech(9000))
    with pytest.raises(ValueError, match="front must be 'mel'"):
        small(front="wave")
