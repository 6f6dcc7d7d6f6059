"""Correlation with the source's log F0, and how far a median is off: cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mynah.tasks.metrics.intonation import (
    LEAST,
    f0_off_metric,
    f0_to_source_metric,
    log_f0_correlation,
    median_f0,
    semitones_apart,
)


def test_what_is_moved_or_stretched_in_the_logarithm_correlates_fully() -> None:
    source_T = 120 * 2 ** (np.sin(np.arange(60) / 5) / 4)
    assert log_f0_correlation(2.1 * source_T, source_T) == pytest.approx(1)
    assert log_f0_correlation(30 * source_T**1.5 / 120, source_T) == pytest.approx(1)
    assert log_f0_correlation(1e4 / source_T, source_T) == pytest.approx(-1)


def test_correlation_is_of_frames_voiced_in_both() -> None:
    rng = np.random.default_rng(0)
    one_T, other_T = np.exp(rng.normal(5, 0.2, (2, 40)))
    by_hand = np.corrcoef(np.log(one_T[5:30]), np.log(other_T[5:30]))[0, 1]
    one_T[:5], other_T[30:] = 0, 0
    assert log_f0_correlation(one_T, other_T) == pytest.approx(by_hand)
    longer_T = np.concatenate([other_T, [100.0, 100.0]])
    assert log_f0_correlation(one_T, longer_T) == pytest.approx(by_hand)


def test_correlations_that_are_not_defined() -> None:
    rising_T = np.linspace(100.0, 200.0, LEAST)
    assert log_f0_correlation(rising_T, rising_T) is not None
    assert log_f0_correlation(rising_T[1:], rising_T[1:]) is None
    assert log_f0_correlation(np.zeros(50), np.ones(50)) is None
    assert log_f0_correlation(np.full(50, 100.0), np.linspace(100.0, 200.0, 50)) is None


def test_medians_and_intervals() -> None:
    contours = [np.array([0.0, 100.0, 110.0]), np.array([120.0, 0.0]), np.zeros(3)]
    assert median_f0(contours) == 110.0
    assert median_f0([np.zeros(3)]) is None
    assert median_f0([]) is None
    assert semitones_apart(200.0, 100.0) == semitones_apart(100.0, 200.0) == 12.0
    assert semitones_apart(100 * 2 ** (1 / 12), 100.0) == pytest.approx(1)
    with pytest.raises(ValueError, match="above 0 Hz, got 0.0 and 100.0"):
        semitones_apart(0.0, 100.0)


def test_metrics_are_means_that_say_what_of() -> None:
    assert f0_to_source_metric().score(["a", "b"], ["0.5", "1.0"]) == 0.75
    assert f0_off_metric().score(["a", "b"], ["1.0", "2.0"]) == 1.5
    assert f0_to_source_metric().higher_is_better
    assert not f0_off_metric().higher_is_better
    assert "unit:semitones" in f0_off_metric().signature
    assert "log" in f0_to_source_metric().signature
