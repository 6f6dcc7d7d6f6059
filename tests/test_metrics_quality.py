"""PESQ and STOI: the packages' values, and errors instead of numbers that mean nothing."""

import builtins
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mynah.tasks.metrics.mean import as_text
from mynah.tasks.metrics.speech_quality import pesq, pesq_metric, stoi, stoi_metric

RATE = 16000


def voice(seconds: float, *, pauses: bool = False) -> np.ndarray:
    """Harmonics that come and go like syllables."""
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = 120 + 20 * np.sin(2 * np.pi * 3 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    x = sum(np.sin(k * phase) / k for k in (1, 2, 4, 8, 16, 24))
    loud = np.sin(2 * np.pi * 2 * time) > 0 if pauses else 0.3 + np.abs(np.sin(4 * np.pi * time))
    return np.asarray(0.1 * x * loud)


def noisy(clean: np.ndarray, level: float) -> np.ndarray:
    return clean + level * np.random.default_rng(0).normal(size=len(clean))


def test_pesq_is_the_package_wide_band() -> None:
    package = pytest.importorskip("pesq")
    clean = voice(1.5)
    for level in (0.0005, 0.001, 0.002):
        bad = noisy(clean, level)
        theirs = package.pesq(RATE, clean, bad, "wb")
        assert pesq(bad, clean, sample_rate=RATE) == pytest.approx(theirs)
        assert package.pesq(RATE, clean, bad, "nb") != pytest.approx(theirs, abs=0.01)
    assert pesq(clean, clean, sample_rate=RATE) == pytest.approx(4.644, abs=0.001)
    scores = [pesq(noisy(clean, level), clean, sample_rate=RATE) for level in (0.0005, 0.002, 0.01)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1] + 0.5


def test_stoi_is_the_package_not_extended() -> None:
    package = pytest.importorskip("pystoi")
    clean = voice(1.5)
    for rate in (RATE, 10000):
        bad = noisy(clean, 0.05)
        theirs = package.stoi(clean, bad, rate, extended=False)
        assert stoi(bad, clean, sample_rate=rate) == pytest.approx(theirs)
        assert package.stoi(clean, bad, rate, extended=True) != pytest.approx(theirs, abs=0.01)
    assert stoi(clean, clean, sample_rate=RATE) == pytest.approx(1)
    scores = [stoi(noisy(clean, level), clean, sample_rate=RATE) for level in (0.01, 0.1, 1)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1] + 0.2


@pytest.mark.parametrize(("score", "package"), [(pesq, "pesq"), (stoi, "pystoi")])
def test_missing_extra(
    monkeypatch: pytest.MonkeyPatch, score: Callable[..., float], package: str
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    message = f"package {package}, which is not installed: pip install 'mynah\\[audio\\]'"
    with pytest.raises(ValueError, match=message):
        score(voice(1), voice(1), sample_rate=RATE)


@pytest.mark.parametrize("score", [pesq, stoi])
def test_bad_signals_are_refused(score: Callable[..., float]) -> None:
    good = voice(1)
    broken = good.copy()
    broken[7] = np.nan
    for estimate, reference, message in (
        (good * 0, good, "the estimate is silence"),
        (good, good * 0 + 0.5, r"the reference is silence \(constant 0.5\)"),
        (broken, good, "the estimate has samples that are NaN"),
        (good, broken, "the reference has samples that are NaN"),
        (good[:-1], good, "the estimate has 15999 samples but the reference 16000"),
        (good[None], good[None], "one channel of samples, got shape"),
        (good[:0], good[:0], "no samples"),
    ):
        with pytest.raises(ValueError, match=message):
            score(estimate, reference, sample_rate=RATE)


def test_rates() -> None:
    with pytest.raises(ValueError, match="16000 Hz, got 8000: resample"):
        pesq(voice(1), voice(1), sample_rate=8000)
    with pytest.raises(ValueError, match="10000 Hz at least, got 8000"):
        stoi(voice(1), voice(1), sample_rate=8000)


def test_pesq_lengths() -> None:
    pytest.importorskip("pesq")
    with pytest.raises(ValueError, match="0.25 to 19 s, got 0.250 s"):
        pesq(voice(1)[:3999], voice(1)[:3999], sample_rate=RATE)
    assert pesq(voice(0.25), voice(0.25), sample_rate=RATE) > 4
    # 50 stretches of speech or more make the package write past its arrays
    with pytest.raises(ValueError, match="0.25 to 19 s, got 19.5"):
        pesq(voice(19.5), voice(19.5), sample_rate=RATE)
    x = voice(19, pauses=True)
    assert 1 < pesq(noisy(x, 0.01), x, sample_rate=RATE) < 4.7


def test_pesq_without_speech() -> None:
    pytest.importorskip("pesq")
    blip = np.zeros(RATE)
    blip[5000:5400] = voice(1)[5000:5400]  # 25 ms
    for reference in (blip, voice(1) * 1e-30):
        with pytest.raises(ValueError, match="no speech in the reference"):
            pesq(voice(1), reference, sample_rate=RATE)


def test_stoi_of_too_little_speech() -> None:
    """The package's answer is 1e-5, or an error of numpy's."""
    pytest.importorskip("pystoi")
    for short in (voice(0.3), voice(0.001)):
        with pytest.raises(ValueError, match="too little speech for STOI"):
            stoi(short, short, sample_rate=RATE)
    mostly_silent = np.concatenate([voice(0.2), np.zeros(2 * RATE)])
    with pytest.raises(ValueError, match="too little speech for STOI: 2.200 s"):
        stoi(mostly_silent, mostly_silent, sample_rate=RATE)


def test_metrics_are_means() -> None:
    for metric, values in ((pesq_metric(), [1.5, 4.5]), (stoi_metric(), [0.25, 0.75])):
        texts = [as_text(value) for value in values]
        assert metric.score(["a", "b"], texts) == pytest.approx(np.mean(values))
        assert metric.higher_is_better
    assert pesq_metric().signature == "pesq|band:wide|rate:16000|average:utterance|v1"
    assert stoi_metric().signature == "stoi|extended:no|average:utterance|v1"
