"""SI-SDR, the best order of sources, and means of numbers: torchmetrics, and cases by hand."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from mynah.tasks.metrics.bootstrap import bootstrap
from mynah.tasks.metrics.mean import as_text, mean_metric
from mynah.tasks.metrics.separation import (
    best_order,
    separation,
    si_sdr,
    si_sdr_improvement,
    si_sdr_metric,
    si_sdri_metric,
)

CEILING = 20 * np.log10(2.0**52)  # 313 dB


def sources(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """References, a mixture, and shuffled estimates of any quality, scale and offset."""
    references = rng.normal(size=(count, int(rng.integers(20, 400)))) * rng.uniform(0.01, 10)
    references += rng.normal(size=(count, 1))
    noise = rng.normal(size=references.shape) * 10 ** rng.uniform(-3, 1)
    estimates = (references + noise)[rng.permutation(count)] * rng.uniform(-5, 5, size=(count, 1))
    return references, references.sum(0) + rng.normal(size=references.shape[1]), estimates


def test_by_hand() -> None:
    """An estimate of the reference plus an orthogonal signal of a tenth of its size: 20 dB."""
    reference = np.array([1.0, -1, 1, -1])
    other = np.array([1.0, 1, -1, -1])
    assert si_sdr(reference + other / 10, reference) == pytest.approx(20)
    assert si_sdr(-7 * (reference + other / 10) + 3, reference * 0.01 - 5) == pytest.approx(20)
    assert si_sdr(reference + other, reference) == pytest.approx(0, abs=1e-9)
    assert si_sdr(reference + 10 * other, reference) == pytest.approx(-20)
    # the same against a mixture of equal parts, which has 0 dB
    assert si_sdr_improvement(
        reference + other / 10, reference, reference + other
    ) == pytest.approx(20)


def test_values_stay_finite_at_both_ends() -> None:
    reference = np.array([1.0, -1, 1, -1])
    other = np.array([1.0, 1, -1, -1])
    assert si_sdr(reference, reference) == pytest.approx(CEILING)
    assert si_sdr(other, reference) == pytest.approx(-CEILING)
    noise = np.random.default_rng(0).normal(size=1000)
    assert 290 < si_sdr(noise * 3, noise) <= CEILING + 1e-9
    assert si_sdr(noise * 1e-200, noise * 1e200) > 290


def test_order_by_hand() -> None:
    """Three sources, estimates in another order, one of them noisy."""
    a, b, c = np.array([1.0, -1, 1, -1]), np.array([1.0, 1, -1, -1]), np.array([1.0, -1, -1, 1])
    value, order = best_order([c + a / 10, a + b / 10, b + a / 10], [a, b, c])
    assert order == (1, 2, 0)
    assert value == pytest.approx(20)
    found = separation([c + a / 10, a + b / 10, b + a / 10], [a, b, c], a + b + c)
    assert found.order == order
    assert found.si_sdri == pytest.approx(20 + 10 * np.log10(2))  # the others are twice its energy


def test_si_sdr_equals_torchmetrics() -> None:
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

    rng = np.random.default_rng(1)
    for _ in range(220):
        references, mixture, estimates = sources(rng, 1)
        theirs = [
            scale_invariant_signal_distortion_ratio(
                torch.from_numpy(x), torch.from_numpy(references[0]), zero_mean=True
            ).item()
            for x in (estimates[0], mixture)
        ]
        assert si_sdr(estimates[0], references[0]) == pytest.approx(theirs[0], abs=1e-6)
        assert si_sdr_improvement(estimates[0], references[0], mixture) == pytest.approx(
            theirs[0] - theirs[1], abs=1e-6
        )


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_order_equals_torchmetrics(count: int) -> None:
    from torchmetrics.functional.audio import (
        permutation_invariant_training,
        scale_invariant_signal_distortion_ratio,
    )

    rng = np.random.default_rng(count)
    orders = set()
    for _ in range(60):
        references, mixture, estimates = sources(rng, count)
        value, order = permutation_invariant_training(
            torch.from_numpy(estimates)[None],
            torch.from_numpy(references)[None],
            scale_invariant_signal_distortion_ratio,
            zero_mean=True,
        )
        ours = separation(estimates, references, mixture)
        assert ours.si_sdr == pytest.approx(value.item(), abs=1e-6)
        assert ours.order == tuple(order[0].tolist())
        assert best_order(estimates, references) == (ours.si_sdr, ours.order)
        before = np.mean([si_sdr(mixture, reference) for reference in references])
        assert ours.si_sdri == pytest.approx(ours.si_sdr - before)
        orders.add(ours.order)
    assert len(orders) > min(count, 2) - 1


def test_order_is_the_best_of_all() -> None:
    rng = np.random.default_rng(9)
    references, _, estimates = sources(rng, 4)
    best = max(
        np.mean([si_sdr(estimates[e], references[r]) for r, e in enumerate(order)])
        for order in itertools.permutations(range(4))
    )
    assert best_order(estimates, references)[0] == pytest.approx(best)


def test_bad_signals_are_refused() -> None:
    good = np.array([0.1, -0.3, 0.2, 0.5])
    for estimate, reference, message in (
        (good * 0, good, "the estimate is silence"),
        (good, good * 0 + 0.1, "the reference is silence"),
        (good[:3], good, "the estimate has 3 samples but the reference has 4: cut or pad"),
        (good[:2], good[:2], "the estimate has 2 samples: SI-SDR needs 3"),
        (good, [0.1, np.nan, 0.2, 0.5], "the reference has samples that are NaN"),
        ([0.1, np.inf, 0.2, 0.5], good, "the estimate has samples that are NaN"),
        (good[None], good, "the estimate must be one channel of samples, got shape"),
        ([], [], "the estimate has 0 samples"),
    ):
        given: Any = estimate
        with pytest.raises(ValueError, match=message):
            si_sdr(given, reference)
    with pytest.raises(ValueError, match="the mixture is silence"):
        separation([good], [good], good * 0)
    with pytest.raises(ValueError, match="the mixture has 3 samples"):
        separation([good], [good], good[:3])
    with pytest.raises(ValueError, match="reference 1 is silence"):
        best_order([good, good], [good, good * 0])
    with pytest.raises(ValueError, match="estimate 1 has 3 samples but reference 0 has 4"):
        best_order([good, good[:3]], [good, good])
    with pytest.raises(ValueError, match="1 estimates but 2 references"):
        best_order([good], [good, good])
    with pytest.raises(ValueError, match="1 to 4 sources can be ordered, got 5"):
        best_order([good] * 5, [good] * 5)
    with pytest.raises(ValueError, match="1 to 4 sources can be ordered, got 0"):
        best_order([], [])


def test_means_of_numbers_as_text() -> None:
    metric = si_sdr_metric()
    values = [11.25, -3.5, 0.1]
    texts = [as_text(value) for value in values]
    assert [float(text) for text in texts] == values
    assert metric.score(["a", "b", "c"], texts) == pytest.approx(np.mean(values))
    assert metric.higher_is_better
    assert metric.signature == "si_sdr|mean:removed|order:best|unit:dB|average:utterance|v1"
    assert si_sdri_metric().name == "si_sdri"
    found = bootstrap(
        metric,
        ["x"] * 40,
        [str(i % 7) for i in range(40)],
        [str(i) for i in range(40)],
        unit="utterance",
    )
    assert found.low < found.value < found.high


def test_undefined_numbers() -> None:
    strict = mean_metric("f0_corr", higher_is_better=True)
    loose = mean_metric("f0_corr", higher_is_better=True, skip_undefined=True)
    texts = [as_text(0.5), as_text(None), as_text(0.75)]
    assert texts[1] == "undefined"
    assert loose.score(["", "", ""], texts) == pytest.approx(0.625)
    assert "undefined:skipped" in loose.signature
    assert strict.signature == "f0_corr|average:utterance|v1"
    with pytest.raises(
        ValueError, match="f0_corr of utterance 1 must be a finite number, got 'und"
    ):
        strict.score(["", "", ""], texts)
    with pytest.raises(ValueError, match="not defined"):
        loose.score([""], ["undefined"])
    for bad in ("nan", "inf", "", "loud"):
        with pytest.raises(ValueError, match="of utterance 0 must be a finite number"):
            loose.score([""], [bad])
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be finite"):
            as_text(value)
