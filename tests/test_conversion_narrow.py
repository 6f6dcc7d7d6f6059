"""Converters that measure spectra, on speech of a narrower band than the target's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mynah.downstream import conversion
from mynah.downstream.conversion.core.contract import Converter, Heard, Sizes
from mynah.downstream.conversion.core.statistics import active, empty_bins, filled
from mynah.downstream.core.melspec import MelSpec

SPEC = MelSpec()
EMPTY = 18  # bins above 4 kHz


def spectrogram(seed: int, frames: int = 200, *, narrow: bool = False) -> Tensor:
    """Return frames (T, M) that rise and fall; a narrow one has a blip in one frame above its band."""
    rng = np.random.default_rng(seed)
    loudness_T = 1.5 * np.sin(np.arange(frames) / 9)
    mel_TM = -3 + loudness_T[:, None] + rng.standard_normal((frames, SPEC.num_mels))
    mel_TM[: frames // 5] -= 6  # a pause
    if narrow:
        mel_TM[:, -EMPTY:] = SPEC.silence * SPEC.nepers
        mel_TM[frames // 2, -EMPTY:] += 3
    return torch.from_numpy(mel_TM / SPEC.nepers).float()


def heard(mel_TM: Tensor) -> Heard:
    return Heard(x_TD=mel_TM, mel_TM=mel_TM)


def built(name: str) -> Converter:
    module = conversion.get(name)
    made: Converter = module.CONVERTER(
        module.CONFIGS[name], Sizes(dim=SPEC.num_mels, spec=SPEC, speakers=0)
    )
    return made


def test_empty_bins_are_those_without_signal() -> None:
    wide, narrow = (empty_bins(spectrogram(1, narrow=n), nepers=SPEC.nepers) for n in (False, True))
    assert not wide.any()
    assert narrow.nonzero().flatten().tolist() == list(range(SPEC.num_mels - EMPTY, SPEC.num_mels))


def test_empty_bins_follow_the_loudness_of_the_others() -> None:
    mel_TM = spectrogram(1, narrow=True)
    empty_M = empty_bins(mel_TM, nepers=SPEC.nepers)
    out_TM = filled(mel_TM, empty_M)
    assert torch.equal(out_TM[:, ~empty_M], mel_TM[:, ~empty_M])
    loudness_T = mel_TM[:, ~empty_M].mean(1)
    together = torch.corrcoef(torch.stack([out_TM[:, -1], loudness_T]))[0, 1]
    assert together > 0.99
    for none in (torch.zeros_like(empty_M), torch.ones_like(empty_M)):
        assert torch.equal(filled(mel_TM, none), mel_TM)


@pytest.mark.parametrize("name", ["mkl", "stats"])
def test_a_narrow_source_is_not_blown_up(name: str) -> None:
    source, target = spectrogram(1, narrow=True), spectrogram(2)
    out_TM = built(name).convert(heard(source), [heard(target)])
    speech_TM = target[active(target)]
    ceiling_M = speech_TM.amax(0) + speech_TM.std(0, correction=0)
    assert bool((out_TM <= ceiling_M + 1e-4).all())
    above_T = out_TM[:, -EMPTY:].mean(1)
    blip = len(source) // 2
    assert abs(above_T[blip] - above_T[blip - 3 : blip + 4].median()) * SPEC.nepers < 2
    spoken_T = active(source)
    assert (above_T[spoken_T].mean() - above_T[~spoken_T].mean()) * SPEC.nepers > 2  # pauses stay
    assert (out_TM[spoken_T].mean(0) - speech_TM.mean(0)).abs().mean() * SPEC.nepers < 0.3


@pytest.mark.parametrize("name", ["mkl", "stats"])
def test_a_wide_source_is_converted_as_ever(name: str) -> None:
    source, target = spectrogram(1), spectrogram(2)
    converter = built(name)
    out_TM = converter.convert(heard(source), [heard(target)])
    kept = active(source)
    speech_TM, made_TM = target[active(target)], out_TM[kept]
    assert torch.allclose(made_TM.mean(0), speech_TM.mean(0), atol=0.05)
    assert torch.allclose(made_TM.std(0), speech_TM.std(0), rtol=0.05)
