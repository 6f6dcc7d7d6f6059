"""Mixing sounds: levels, noise below speech, sums that are exact, speakers by turns."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from voices import RATE, voice

from mynah.tasks.corpora import mixdown
from mynah.tasks.corpora.utterance import Interval


def test_levels_are_of_what_is_active() -> None:
    tone = np.sin(2 * np.pi * 100 * np.arange(RATE) / RATE).astype(np.float32)
    assert mixdown.active_level(tone, RATE) == pytest.approx(-3.01, abs=0.01)
    gaps = np.concatenate([tone, np.zeros(3 * RATE, np.float32), 0.001 * tone])
    assert mixdown.active_level(gaps, RATE) == pytest.approx(-3.01, abs=0.01)
    assert mixdown.active_level(mixdown.to_level(gaps, RATE, -25), RATE) == pytest.approx(-25)
    with pytest.raises(ValueError, match="digital silence"):
        mixdown.active_level(np.zeros(10, np.float32), RATE)


def test_noise_is_so_far_below_speech() -> None:
    speech, rng = voice(150, 1.0, 0), np.random.default_rng(0)
    noise = mixdown.under(mixdown.coloured(len(speech), rng), speech, RATE, 7.5)
    power = 10 * np.log10(np.mean(noise.astype(np.float64) ** 2))
    assert mixdown.active_level(speech, RATE) - power == pytest.approx(7.5, abs=1e-4)
    with pytest.raises(ValueError, match="noise is digital silence"):
        mixdown.under(np.zeros_like(speech), speech, RATE, 5)
    with pytest.raises(ValueError, match="10 samples of noise for"):
        mixdown.under(noise[:10], speech, RATE, 5)


def test_coloured_noise_is_white_to_brown() -> None:
    slopes = []
    for seed in range(30):
        noise = mixdown.coloured(RATE, np.random.default_rng(seed)).astype(np.float64)
        power = np.abs(np.fft.rfft(noise)) ** 2
        slopes.append(10 * np.log10(power[4000:8000].mean() / power[400:800].mean()))
    assert -22 < min(slopes) < -15
    assert -3 < max(slopes) < 2


def test_parts_side_by_side() -> None:
    a, b = np.arange(1, 4, dtype=np.float32), np.arange(1, 6, dtype=np.float32)
    assert [x.tolist() for x in mixdown.beside([a, b], "min")] == [[1, 2, 3], [1, 2, 3]]
    assert [x.tolist() for x in mixdown.beside([a, b], "max")] == [[1, 2, 3, 0, 0], [1, 2, 3, 4, 5]]


def test_a_sum_stays_below_full_scale_and_is_exact() -> None:
    rng = np.random.default_rng(0)
    parts = {"a": rng.uniform(-1, 1, 500).astype(np.float32),
             "b": rng.uniform(-1, 1, 500).astype(np.float32)}  # fmt: skip
    sound = mixdown.together(parts)
    assert np.abs(sound.mixture).max() == pytest.approx(mixdown.PEAK, abs=1e-4)
    assert np.array_equal(sound.mixture, sound.parts["a"] + sound.parts["b"])
    assert np.array_equal(sound.mixture * 2**15, np.round(sound.mixture * 2**15))
    np.testing.assert_allclose(
        sound.parts["a"] / sound.parts["b"], parts["a"] / parts["b"], rtol=0.2
    )
    quiet = {name: 0.1 * wav for name, wav in parts.items()}
    same = mixdown.together(quiet, bits=32)
    assert np.array_equal(same.parts["a"], quiet["a"])


def test_stretches_of_speech() -> None:
    words = [Interval("b", 1.0, 1.2), Interval("a", 0.1, 0.4), Interval("c", 1.45, 1.6), Interval("d", 2.0, 2.1)]  # fmt: skip
    silence = np.zeros(100, np.float32)
    assert mixdown.spoken(silence, RATE, words) == [(0.1, 0.4), (1.0, 1.6), (2.0, 2.1)]
    wav = np.zeros(RATE, np.float32)
    wav[3200:8000] = 0.5
    wav[6000:6100] = 0.0
    wav[12000:12010] = 0.001  # more than 40 dB below
    assert mixdown.spoken(wav, RATE) == [(0.2, 0.5)]
    with pytest.raises(ValueError, match="no speech"):
        mixdown.spoken(silence, RATE)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 1.0])
def test_speakers_by_turns(overlap: float) -> None:
    turns = [(name, np.full(8000 + 1600 * i, 0.1, np.float32), [(0.05, 0.4)])
             for i, name in enumerate("abacbcab")]  # fmt: skip
    early: list[bool] = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sound = mixdown.by_turns(turns, RATE, overlap=overlap, rng=rng)
        np.testing.assert_allclose(sound.mixture, sum(sound.parts.values()), atol=1e-6)
        heard = [sound.parts[name] != 0 for name in "abc"]
        assert sum(heard).max() <= 2  # three never talk at once
        for name, talks in zip("abc", heard, strict=True):  # nor anybody over himself
            samples = sum(len(wav) for who, wav, _ in turns if who == name)
            assert talks.sum() == samples
            assert float(sound.parts[name].max()) == np.float32(0.1)
        assert [t.symbol for t in sound.turns] == list("abacbcab")
        starts = [t.start - 0.05 for t in sound.turns]
        ends = [s + len(wav) / RATE for s, (_, wav, _) in zip(starts, turns, strict=True)]
        early += [b < a - 1e-6 for a, b in zip(ends[:-1], starts[1:], strict=True)]
        first = round(sound.turns[0].start * RATE)
        assert sound.parts["a"][first] == np.float32(0.1)
    assert np.mean(early) == pytest.approx(overlap, abs=0.15 if overlap == 0.5 else 0)
