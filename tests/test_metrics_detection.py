"""EER, minDCF and accept rate: by hand, against scikit-learn with brentq, and under the bootstrap."""

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from mynah.tasks.metrics import metric as metric_module
from mynah.tasks.metrics.bootstrap import bootstrap
from mynah.tasks.metrics.detection import (
    accept_rate,
    eer,
    equal_error_rate,
    error_curves,
    min_dcf,
    threshold_at_eer,
)


def trials(seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return random scores, every other time with many ties, and labels of both kinds."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 80))
    targets = rng.random(n) < rng.uniform(0.1, 0.9)
    targets[:2] = True, False
    scores = rng.normal(targets * rng.uniform(-2, 3), 1.0)
    return (np.round(scores * 2) / 2 if seed % 2 else scores), targets


def curve(
    scores: NDArray[np.float64],
    targets: NDArray[np.bool_],
    weights: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    false, true, _ = roc_curve(targets.astype(int), scores, pos_label=1, sample_weight=weights)
    return false, true


def protocol_eer(*args: object) -> float:
    """SUPERB's definition."""
    false, true = curve(*args)  # type: ignore[arg-type]
    return float(brentq(lambda x: 1.0 - x - interp1d(false, true)(x), 0.0, 1.0))


def protocol_dcf(*args: object, p: float = 0.01, miss: float = 1, fa: float = 1) -> float:
    false, true = curve(*args)  # type: ignore[arg-type]
    costs = [miss * (1 - t) * p + fa * f * (1 - p) for f, t in zip(false, true, strict=True)]
    return float(min(costs) / min(miss * p, fa * (1 - p)))


def text(scores: NDArray[np.float64], targets: NDArray[np.bool_]) -> tuple[list[str], list[str]]:
    refs = ["target" if target else "nontarget" for target in targets]
    return refs, [repr(float(score)) for score in scores]


def minimum_cost(scores: ArrayLike, targets: ArrayLike, **options: float) -> float:
    """Return the metric of trials that are not text yet."""
    return min_dcf(**options).score(*text(np.asarray(scores, float), np.asarray(targets, bool)))


def test_by_hand() -> None:
    scores, targets = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 1, 0, 1, 0, 0]
    # accepting the best 3: miss 1/3, false alarm 1/3
    assert equal_error_rate(scores, targets) == pytest.approx(1 / 3)
    # accepting the best 2: miss 1/3 without false alarms; at 0.01 nothing is cheaper
    assert minimum_cost(scores, targets) == pytest.approx(1 / 3)
    # at equal costs and priors: 1/3 miss and no false alarm, or 1/3 false alarm and no miss
    assert minimum_cost(scores, targets, p_target=0.5) == pytest.approx(1 / 3)
    # a false alarm of 1/3 costs 1/3 * 0.5, a miss of 1/3 ten times as much
    assert minimum_cost(scores, targets, p_target=0.5, c_miss=10) == pytest.approx(1 / 3)


def test_extremes() -> None:
    assert equal_error_rate([3, 2, 1, 0], [1, 1, 0, 0]) == 0
    assert equal_error_rate([0, 1, 2, 3], [1, 1, 0, 0]) == 1
    assert equal_error_rate([5, 5, 5], [1, 0, 0]) == pytest.approx(0.5)  # one threshold: the chord
    assert minimum_cost([3, 2, 1, 0], [1, 1, 0, 0]) == 0
    assert minimum_cost([0, 1, 2, 3], [1, 1, 0, 0]) == pytest.approx(1)  # accepting nothing
    # the crossing lies on a slope: from (miss 1, false 0) to (1/3, 1/2)
    assert equal_error_rate([2, 2, 2, 1, 1], [1, 1, 0, 1, 0]) == pytest.approx(3 / 7)


def test_equals_the_protocol() -> None:
    for seed in range(100):
        scores, targets = trials(seed)
        assert equal_error_rate(scores, targets) == pytest.approx(
            protocol_eer(scores, targets), abs=1e-9
        ), seed
        assert minimum_cost(scores, targets) == pytest.approx(protocol_dcf(scores, targets)), seed
        options = {"p": 0.3, "miss": 2.0, "fa": 5.0}
        assert minimum_cost(scores, targets, p_target=0.3, c_miss=2, c_fa=5) == pytest.approx(
            protocol_dcf(scores, targets, **options)
        ), seed


def test_metrics_read_text() -> None:
    scores, targets = trials(7)
    refs, hyps = text(scores, targets)
    assert eer().score(refs, hyps) == equal_error_rate(scores, targets)
    assert min_dcf().score(refs, hyps) == pytest.approx(protocol_dcf(scores, targets))
    assert not eer().higher_is_better
    assert not min_dcf().higher_is_better
    assert min_dcf().signature == "min_dcf|p_target:0.01|c_miss:1|c_fa:1|normalised|v1"
    assert min_dcf(p_target=0.05).signature != min_dcf().signature


def test_weights_are_repetitions() -> None:
    """Whole weights against trials that are repeated and, for zero, absent."""
    for seed in range(40):
        scores, targets = trials(seed)
        refs, hyps = text(scores, targets)
        weights = np.random.default_rng(seed + 1000).integers(0, 4, (5, len(scores))).astype(float)
        found = eer().ranked(refs, hyps, [])(weights)
        costs = min_dcf().ranked(refs, hyps, [])(weights)
        for row, times in enumerate(weights.astype(int)):
            kept = np.repeat(targets, times)
            if kept.all() or not kept.any():
                assert np.isnan(found[row])
                assert np.isnan(costs[row])
                continue
            many = np.repeat(scores, times)
            assert found[row] == pytest.approx(protocol_eer(many, kept), abs=1e-9)
            assert costs[row] == pytest.approx(protocol_dcf(many, kept))


def test_bootstrap_equals_resampling_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    targets = rng.random(90) < 0.3
    scores = rng.normal(targets * 1.0, 1.0)
    refs, hyps = text(scores, targets)
    units = [f"s{i % 9}" for i in range(90)]
    found = bootstrap(eer(), refs, hyps, units, unit="speaker", resamples=100, seed=5)
    drawn = np.random.default_rng(5).multinomial(9, np.full(9, 1 / 9), size=100)
    values = []
    for counts in drawn:
        times = np.array([counts[int(unit[1:])] for unit in units])
        values.append(protocol_eer(np.repeat(scores, times), np.repeat(targets, times)))
    low, high = np.quantile(values, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.value == pytest.approx(protocol_eer(scores, targets))
    assert (found.n, found.units, found.unit) == (90, 9, "speaker")
    assert found.signature == "eer|curve:linear|ties:together|v1|ci:speaker-bootstrap-100"
    monkeypatch.setattr(metric_module, "BLOCK", 270)  # three draws at a time
    assert bootstrap(eer(), refs, hyps, units, unit="speaker", resamples=100, seed=5) == found


def test_memory_is_bounded() -> None:
    """No call sees more weights than a block, whatever the number of draws."""
    seen = []
    weigh = metric_module.in_blocks(
        lambda weights: (seen.append(weights.shape), weights.sum(axis=1))[1], 400_000
    )
    np.testing.assert_array_equal(weigh(np.ones((7, 3))), np.full(7, 3.0))
    assert seen == [(2, 3), (2, 3), (2, 3), (1, 3)]


def test_too_few_units_resample_trials() -> None:
    scores, targets = trials(20)
    refs, hyps = text(scores, targets)
    found = bootstrap(eer(), refs, hyps, ["one"] * len(refs), unit="speaker", resamples=50)
    assert (found.unit, found.units) == ("utterance", len(refs))
    assert found.low <= found.value <= found.high


def test_bad_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="all 2 trials are target trials"):
        equal_error_rate([0.1, 0.2], [1, 1])
    with pytest.raises(ValueError, match="all 2 trials are nontarget trials"):
        eer().score(["nontarget", "nontarget"], ["0.1", "0.2"])
    with pytest.raises(ValueError, match="no trials"):
        equal_error_rate([], [])
    with pytest.raises(ValueError, match="no utterances"):
        eer().score([], [])
    with pytest.raises(ValueError, match="1 of 3 scores are not finite.* score 1: nan"):
        min_dcf().score(["target", "nontarget", "target"], ["0.1", "nan", "1"])
    with pytest.raises(ValueError, match="not finite"):
        equal_error_rate([0.1, np.inf], [0, 1])
    with pytest.raises(ValueError, match="trial 1: a score is a decimal number, got 'yes'"):
        eer().score(["target", "nontarget"], ["0.1", "yes"])
    with pytest.raises(ValueError, match="trial 0: a label is target or nontarget, got '1'"):
        eer().score(["1", "nontarget"], ["0.1", "0.2"])
    with pytest.raises(ValueError, match="a score and a label for each trial"):
        error_curves([0.1, 0.2, 0.3], [0, 1])
    with pytest.raises(ValueError, match="labels must be"):
        error_curves([0.1, 0.2, 0.3], [0, 1, 2])
    with pytest.raises(ValueError, match="differ in number"):
        eer().score(["target"], ["0.1", "0.2"])
    with pytest.raises(ValueError, match="p_target must be between"):
        min_dcf(p_target=1).score(*text(np.array([0.0, 1.0]), np.array([False, True])))


def test_threshold_at_eer() -> None:
    # told apart: halfway between 0.4 and 0.8
    eer_, threshold = threshold_at_eer([0.9, 0.8, 0.4, 0.1], [1, 1, 0, 0])
    assert (eer_, threshold) == (0, pytest.approx(0.6))
    # one of two each is wrong: between 0.7 and 0.5
    eer_, threshold = threshold_at_eer([0.9, 0.5, 0.7, 0.1], [1, 1, 0, 0])
    assert (eer_, threshold) == (0.5, pytest.approx(0.6))
    assert threshold_at_eer([0.5, 0.5], [1, 0]) == (0.5, 0.5)
    rng = np.random.default_rng(0)
    for _ in range(50):
        count = int(rng.integers(4, 200))
        targets = rng.permutation(np.arange(count) < rng.integers(1, count))
        scores = rng.normal(size=count) + targets
        eer_, threshold = threshold_at_eer(scores, targets)
        assert eer_ == pytest.approx(equal_error_rate(scores, targets))
        miss = 1 - accept_rate(scores[targets], threshold)
        alarm = accept_rate(scores[~targets], threshold)
        least = min(targets.sum(), count - targets.sum())
        assert max(abs(miss - eer_), abs(alarm - eer_)) <= 1 / least + 1e-9
        shifted = threshold_at_eer(3 * scores + 1, targets)
        assert shifted == (pytest.approx(eer_), pytest.approx(3 * threshold + 1))
    with pytest.raises(ValueError, match="all 2 trials are target"):
        threshold_at_eer([0.1, 0.2], [1, 1])


def test_accept_rate() -> None:
    assert accept_rate([0.7, 0.74056, 0.75, 0.9], 0.74056) == 0.5  # equal is not above
    assert accept_rate([0.1], 0.5) == 0
    with pytest.raises(ValueError, match="no similarities"):
        accept_rate([], 0.5)
    with pytest.raises(ValueError, match="not finite"):
        accept_rate([0.1, float("nan")], 0.5)
    with pytest.raises(ValueError, match="threshold must be a finite number"):
        accept_rate([0.1], float("nan"))
