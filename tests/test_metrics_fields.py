"""Several numbers of an utterance in one text, and estimates of silence."""

import numpy as np
import pytest

from mynah.tasks.metrics.mean import UNDEFINED, as_fields, mean_metric, of_field
from mynah.tasks.metrics.separation import LOWEST, separation, si_sdri_metric
from mynah.tasks.metrics.speech_quality import pesq_metric, stoi_metric


def test_each_metric_reads_its_own_number() -> None:
    rows = [as_fields({"a": 0.1 + 0.2, "b": 2.0}), as_fields({"a": 1.0, "b": None})]
    assert rows == ["a=0.30000000000000004 b=2.0", f"a=1.0 b={UNDEFINED}"]
    a = of_field(mean_metric("a", higher_is_better=True))
    b = of_field(mean_metric("b", higher_is_better=True, skip_undefined=True))
    assert a.score(["", ""], rows) == (0.1 + 0.2 + 1.0) / 2
    assert b.score(["", ""], rows) == 2.0
    assert a.signature == "a|average:utterance|v1"
    strict = of_field(mean_metric("b", higher_is_better=True))
    with pytest.raises(ValueError, match="b of utterance 1 must be a finite number"):
        strict.score(["", ""], rows)


@pytest.mark.parametrize("text", ["b=1", "", "a=1 a=2", "aa=1"])
def test_a_field_must_be_there_once(text: str) -> None:
    metric = of_field(mean_metric("a", higher_is_better=True))
    with pytest.raises(ValueError, match="expected one field a=..., got"):
        metric.score([""], [text])


def test_what_cannot_be_a_field_is_refused() -> None:
    for name in ("a b", "a=b", ""):
        with pytest.raises(ValueError, match="without white space and '='"):
            as_fields({name: 1.0})
    with pytest.raises(ValueError, match="finite"):
        as_fields({"a": float("nan")})


def test_signatures_say_that_undefined_is_skipped() -> None:
    for metric in (pesq_metric, stoi_metric, si_sdri_metric):
        assert "undefined" not in metric().signature
        assert metric(skip_undefined=True).signature.endswith(
            "|undefined:skipped|average:utterance|v1"
        )


def test_a_silent_estimate_has_the_lowest_value_where_it_may_be() -> None:
    rng = np.random.RandomState(0)
    first, second = rng.standard_normal((2, 400))
    silence = np.zeros(400)
    with pytest.raises(ValueError, match="estimate 0 is silence"):
        separation([silence], [first], first + second)
    found = separation([silence], [first], first + second, silent_allowed=True)
    assert found.si_sdr == LOWEST == pytest.approx(-313.07, abs=0.01)
    pair = separation([silence, first], [first, second], first + second, silent_allowed=True)
    assert pair.order == (1, 0)
    assert pair.si_sdr == pytest.approx((LOWEST + 313.07) / 2, abs=1.0)
    with pytest.raises(ValueError, match="reference 0 is silence"):
        separation([first], [silence], first, silent_allowed=True)
