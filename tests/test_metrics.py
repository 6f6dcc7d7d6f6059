"""Metrics: values worked by hand, and agreement with sklearn, jiwer and torchmetrics."""

import random

import jiwer
import numpy as np
import pytest
from sklearn import metrics as sk

from mynah.tasks.metrics.accuracy import (
    accuracy,
    confusion,
    fold_accuracy,
    frame_accuracy,
    unweighted_recall,
)
from mynah.tasks.metrics.bootstrap import bootstrap
from mynah.tasks.metrics.error_rate import error_counts, error_rate


def labels(n: int, seed: int) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    refs = [rng.choice("aaabbc") for _ in range(n)]
    return refs, [r if rng.random() < 0.6 else rng.choice("abc") for r in refs]


def phones(n: int, seed: int) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    refs = [" ".join(rng.choices("ptkaiu", k=rng.randint(1, 12))) for _ in range(n)]
    hyps = [" ".join(rng.choices("ptkaiu", k=rng.randint(0, 12))) for _ in range(n)]
    return refs, hyps


def test_accuracies_by_hand() -> None:
    refs, hyps, folds = list("aabbb"), list("abbbb"), list("xxyyy")
    assert accuracy().score(refs, hyps, folds) == pytest.approx(4 / 5)
    assert fold_accuracy(["x", "y"]).score(refs, hyps, folds) == pytest.approx((1 / 2 + 1) / 2)
    assert unweighted_recall("ab").score(refs, hyps) == pytest.approx((1 / 2 + 1) / 2)
    assert unweighted_recall("abc").score(refs, hyps) == pytest.approx(3 / 4)  # c has no reference
    assert confusion(refs, hyps, "ab").tolist() == [[1, 1], [0, 3]]


def test_frames_count_alike_whatever_their_utterance() -> None:
    assert frame_accuracy().score(["a b b", "c", ""], ["a b a", "c", ""]) == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="utterance 1 has 1 frames and 2 predictions"):
        frame_accuracy().score(["a b", "c"], ["a b", "c c"])
    by_unit = bootstrap(
        frame_accuracy(), ["a a a", "b"] * 3, ["a a a", "a"] * 3, list("uvwxyz"), unit="speaker"
    )
    assert (by_unit.value, by_unit.units, by_unit.n) == (3 / 4, 6, 6)
    assert by_unit.low < 3 / 4 < by_unit.high


def test_accuracies_agree_with_sklearn() -> None:
    refs, hyps = labels(200, 1)
    assert accuracy().score(refs, hyps) == pytest.approx(sk.accuracy_score(refs, hyps))
    assert unweighted_recall("abc").score(refs, hyps) == pytest.approx(
        sk.balanced_accuracy_score(refs, hyps)
    )
    np.testing.assert_array_equal(
        confusion(refs, hyps, "abc"), sk.confusion_matrix(refs, hyps, labels=list("abc"))
    )


def test_error_counts_by_hand() -> None:
    table = error_counts(["a b c", "", "x y", "p q"], ["a x c d", "q q", "", "p q"], "phone")
    assert table.tolist() == [[1, 0, 1, 3], [0, 0, 2, 0], [0, 2, 0, 2], [0, 0, 0, 2]]
    assert error_rate("phone").score(["a b c", ""], ["a b", "z"]) == pytest.approx(2 / 3)
    assert error_rate("char").score(["ab c"], ["ab  c"]) == pytest.approx(1 / 4)


@pytest.mark.parametrize("unit", ["phone", "char"])
def test_error_rates_agree_with_jiwer_and_torchmetrics(unit: str) -> None:
    from torchmetrics.functional.text import char_error_rate, word_error_rate

    refs, hyps = phones(120, 2)
    ours = error_rate(unit).score(refs, hyps)  # type: ignore[arg-type]
    theirs, torch_s = (
        (jiwer.wer, word_error_rate) if unit == "phone" else (jiwer.cer, char_error_rate)
    )
    assert ours == pytest.approx(theirs(refs, hyps))
    assert ours == pytest.approx(float(torch_s(hyps, refs)), rel=1e-6)


def test_all_references_empty_is_an_error() -> None:
    with pytest.raises(ValueError, match="not defined"):
        error_rate("word").score([""], ["a"])


def test_bad_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in number"):
        accuracy().score(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="no utterances"):
        accuracy().score([], [])
    with pytest.raises(ValueError, match="1 references but 2"):
        error_counts(["a"], ["a", "b"], "word")


def test_signatures_name_the_options() -> None:
    assert error_rate("phone").signature == "per|norm:none|unit:phone|v1"
    assert accuracy().signature != fold_accuracy(["x", "y"]).signature


def test_bootstrap_equals_resampling_by_hand() -> None:
    """The vectorised interval against a loop that picks utterances by unit."""
    refs, hyps = phones(60, 3)
    units = [f"s{i % 7}" for i in range(60)]
    metric = error_rate("phone")
    found = bootstrap(metric, refs, hyps, units, unit="speaker", resamples=200, seed=5)
    names = sorted(set(units))
    drawn = np.random.default_rng(5).multinomial(7, np.full(7, 1 / 7), size=200)
    values = []
    for counts in drawn:
        rows = [
            i for name, times in zip(names, counts, strict=True) for _ in range(times)
            for i in range(60) if units[i] == name
        ]  # fmt: skip
        values.append(jiwer.wer([refs[i] for i in rows], [hyps[i] for i in rows]))
    low, high = np.quantile(values, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert (found.value, found.n, found.units) == (pytest.approx(jiwer.wer(refs, hyps)), 60, 7)
    assert found.signature.endswith("|ci:speaker-bootstrap-200")


def test_units_matter() -> None:
    """Speakers that are all right or all wrong give a wider interval than utterances do."""
    refs = ["a"] * 200
    hyps = ["a" if i // 20 % 2 else "b" for i in range(200)]
    by_speaker = bootstrap(
        accuracy(), refs, hyps, [f"{i // 20}" for i in range(200)], unit="speaker"
    )
    by_utterance = bootstrap(accuracy(), refs, hyps, [f"{i}" for i in range(200)], unit="utterance")
    assert by_speaker.high - by_speaker.low > 2 * (by_utterance.high - by_utterance.low)
    assert by_utterance.high - by_utterance.low == pytest.approx(
        2 * 1.96 * np.sqrt(0.25 / 200), rel=0.1
    )


def test_too_few_units_fall_back_and_say_so() -> None:
    refs, hyps = labels(40, 4)
    found = bootstrap(accuracy(), refs, hyps, ["only"] * 40, unit="speaker")
    assert (found.unit, found.units) == ("utterance", 40)
    assert "ci:utterance" in found.signature
    assert found.low < found.value < found.high


def test_fold_mean_interval_survives_empty_folds() -> None:
    folds = [f"{i % 6}" for i in range(30)]
    refs, hyps = labels(30, 6)
    metric = fold_accuracy(sorted(set(folds)))
    found = bootstrap(metric, refs, hyps, folds, unit="speaker", folds=folds)
    assert np.isfinite([found.low, found.high]).all()
    assert found.low <= found.value <= found.high
