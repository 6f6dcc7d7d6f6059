"""Mel-cepstra: series on the warped axis, a known one, there and back, bad spectra."""

import numpy as np
import pytest

from mynah.tasks.metrics.mel_cepstrum import alpha_of, mel_cepstrum, warped


def log_magnitude(c: np.ndarray, alpha: float, omega: np.ndarray) -> np.ndarray:
    """The series of a mel-cepstrum at frequencies of the unwarped axis."""
    z = np.exp(-1j * omega)
    warped_z = (z - alpha) / (1 - alpha * z)
    powers = warped_z[:, None] ** np.arange(len(c))
    return np.asarray((powers @ c).real)


def spectra(frames: int, seed: int) -> np.ndarray:
    """Smooth positive spectra over a range of 60 dB."""
    rng = np.random.default_rng(seed)
    omega = np.linspace(0, np.pi, 513)
    series = rng.normal(size=(frames, 20)) / (1 + np.arange(20))
    return np.asarray(np.exp(series @ np.cos(np.arange(20)[:, None] * omega)))


def test_alpha_zero_is_the_plain_cepstrum() -> None:
    power = spectra(4, seed=0)
    c = mel_cepstrum(power, order=512, alpha=0.0)
    omega = np.linspace(0, np.pi, 513)
    for row in range(4):
        np.testing.assert_allclose(
            log_magnitude(c[row], 0.0, omega), np.log(power[row]) / 2, atol=1e-10
        )
    np.testing.assert_array_equal(mel_cepstrum(power, order=39, alpha=0.0), c[:, :40])


@pytest.mark.parametrize("alpha", [0.31, 0.466, -0.3])
def test_one_pole_has_a_known_mel_cepstrum(alpha: float) -> None:
    """1 / (1 - a z^-1) becomes (1 + alpha x) / ((1 - a alpha) (1 - b x)), b = (a - alpha)/(1 - a alpha)."""
    omega = np.linspace(0, np.pi, 513)
    order = 30
    for pole in (0.9, 0.5, -0.7):
        power = 1 / np.abs(1 - pole * np.exp(-1j * omega)) ** 2
        found = mel_cepstrum(power[None], order=order, alpha=alpha)[0]
        moved = (pole - alpha) / (1 - pole * alpha)
        k = np.arange(1, order + 1)
        assert found[0] == pytest.approx(-np.log(1 - pole * alpha))
        np.testing.assert_allclose(found[1:], (moved**k - (-alpha) ** k) / k, atol=1e-12)
        gained = mel_cepstrum(9 * power[None], order=order, alpha=alpha)[0]
        np.testing.assert_allclose(gained - found, [np.log(3)] + [0] * order, atol=1e-12)


def test_series_on_the_warped_axis_is_the_spectrum() -> None:
    power = spectra(3, seed=1)
    c = mel_cepstrum(power, order=200, alpha=0.466)
    omega = np.linspace(0, np.pi, 513)
    for row in range(3):
        np.testing.assert_allclose(
            log_magnitude(c[row], 0.466, omega), np.log(power[row]) / 2, atol=1e-8
        )


def test_warping_back_returns_the_original() -> None:
    c = np.random.default_rng(2).normal(size=(5, 13))
    there = warped(c, order=150, alpha=0.41)
    assert np.abs(there[:, :13] - c).max() > 0.1
    np.testing.assert_allclose(warped(there, order=12, alpha=-0.41), c, atol=1e-9)
    np.testing.assert_array_equal(warped(c, order=12, alpha=0.0), c)
    assert warped(c, order=20, alpha=0.0)[:, 13:].max() == 0
    two = warped(warped(c, order=150, alpha=0.2), order=40, alpha=0.3)
    once = warped(c, order=40, alpha=(0.2 + 0.3) / (1 + 0.2 * 0.3))  # all-pass filters compose so
    np.testing.assert_allclose(two, once, atol=1e-9)


def test_bad_spectra() -> None:
    for power, order, alpha, message in (
        (np.zeros((2, 9)), 3, 0.1, "positive and finite"),
        (np.full((2, 9), np.nan), 3, 0.1, "positive and finite"),
        (np.ones((2, 1)), 3, 0.1, "2 at least"),
        (np.ones((2, 9)), -1, 0.1, "order must be at least 0"),
        (np.ones((2, 9)), 3, 1.0, "alpha must lie between -1 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            mel_cepstrum(power, order=order, alpha=alpha)
    assert alpha_of(24000) == 0.466
    with pytest.raises(ValueError, match="no usual alpha at 11025 Hz: give one"):
        alpha_of(11025)
