"""Slot filling: by hand, and equal to s3prl's functions on random decoded text."""

import random
import re
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from mynah.tasks.metrics.bootstrap import bootstrap
from mynah.tasks.metrics.metric import Metric
from mynah.tasks.metrics.slots import (
    slot_edit_f1,
    slot_type_f1,
    slot_value_cer,
    slot_value_wer,
    spans,
    values,
    without_markers,
)
from mynah.upstream.interop.s3prl_hub import ensure_importable

SLOTS = ["city", "city_name", "date", "artist", "n"]
WORDS = ["NEW", "YORK", "TEN", "A", "O'NEIL", "TAIPEI", "AT"]


def distance(a: Sequence[object], b: Sequence[object]) -> int:
    """Return the edit distance, as the package that s3prl imports would."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


@pytest.fixture(scope="module")
def s3prl() -> Iterator[Any]:
    """s3prl's module of these metrics."""
    ensure_importable()
    stand_in = types.ModuleType("editdistance")
    stand_in.__dict__["eval"] = distance
    with pytest.MonkeyPatch.context() as patch:
        if "editdistance" not in sys.modules:
            patch.setitem(sys.modules, "editdistance", stand_in)
        from s3prl.downstream.ctc import metric

        yield metric


def sentence(rng: random.Random) -> str:
    """Return text with spans, as a reference has it."""
    parts = []
    for _ in range(rng.randint(0, 5)):
        value = " ".join(rng.choices(WORDS, k=rng.randint(1, 3)))
        slot = rng.choice(SLOTS)
        parts.append(f"B-{slot} {value} E-{slot}" if rng.random() < 0.6 else value)
    return " ".join(parts)


def decoded(text: str, rng: random.Random) -> str:
    """Return what a decoder might make of it: lost, moved and foreign markers, words, spaces."""
    if rng.random() < 0.15:
        return sentence(rng)
    tokens = []
    for token in text.split():
        chance = rng.random()
        if chance < 0.08:
            continue
        if chance < 0.16:
            token = rng.choice(WORDS)
        elif chance < 0.22:
            token = rng.choice(["B-", "E-"]) + rng.choice(SLOTS)
        tokens += [token] * (2 if chance > 0.95 else 1)
    return rng.choice([" ", "  "]).join(tokens)


def corpora(count: int) -> Iterator[tuple[list[str], list[str]]]:
    for seed in range(count):
        rng = random.Random(seed)
        refs = [sentence(rng) for _ in range(rng.randint(1, 8))]
        yield refs, [decoded(ref, rng) for ref in refs]


@pytest.mark.parametrize(
    ("metric", "name", "scale"),
    [
        (slot_type_f1(), "slot_type_f1", 1),
        (slot_value_cer(), "slot_value_cer", 1),
        (slot_value_wer(), "slot_value_wer", 1),
        (slot_edit_f1("full"), "slot_edit_f1_full", 100),
        (slot_edit_f1("part"), "slot_edit_f1_part", 100),
    ],
)
def test_equals_s3prl(s3prl: Any, metric: Metric, name: str, scale: int) -> None:
    assert metric.name == name
    compared, between = 0, 0
    for refs, hyps in corpora(260):
        try:
            theirs = getattr(s3prl, name)(hyps, refs)
        except ZeroDivisionError:  # no slots: ours says so
            with pytest.raises(ValueError, match="not defined"):
                metric.score(refs, hyps)
            continue
        assert scale * metric.score(refs, hyps) == pytest.approx(theirs), (refs, hyps)
        compared += 1
        between += 0 < theirs < scale
    assert compared >= 200
    assert between >= 100  # most are neither perfect nor hopeless


def test_spans_equal_s3prl(s3prl: Any) -> None:
    for refs, hyps in corpora(100):
        for ref, hyp in zip(refs, hyps, strict=True):
            _, text, in_ref, in_hyp = s3prl.parse(hyp, ref)
            assert ";".join(f"{value}:{slot}" for slot, value in spans(ref)) == in_ref
            cleaned = [f"{without_markers(value)}:{slot}" for slot, value in spans(hyp)]
            assert ";".join(cleaned) == in_hyp
            assert without_markers(re.sub(" +", " ", hyp)) == text


REFS = ["FLY TO B-city NEW YORK E-city ON B-date TEN E-date", "PLAY", "B-n A E-n B-n O E-n"]
HYPS = ["FLY B-city NEW YOR E-city B-artist A E-artist", "PLAY", "B-n O E-n"]


def test_by_hand() -> None:
    # sets {city, date} and {city, artist}: P = R = 1/2; both empty: 1; the same set: 1
    assert slot_type_f1().score(REFS, HYPS) == pytest.approx((0.5 + 1 + 1) / 3)
    # NEW YORK/NEW YOR 1, TEN/nothing 3, A/O 1, O/O 0, of 8 + 3 + 1 + 1 characters
    assert slot_value_cer().score(REFS, HYPS) == pytest.approx(5 / 13)
    # words: 1 of 2, 1 of 1, 1 of 1, 0 of 1
    assert slot_value_wer().score(REFS, HYPS) == pytest.approx(3 / 5)
    # O right; date missed; city and A wrong (one of each error); artist is extra
    assert slot_edit_f1("part").score(REFS, HYPS) == pytest.approx(2 / (2 + 3 + 2))
    assert slot_edit_f1("full").score(REFS, HYPS) == pytest.approx(2 / (2 + 3 + 3))


def test_one_side_without_slots() -> None:
    assert slot_type_f1().score(["B-n A E-n"], ["A"]) == 0
    assert slot_type_f1().score(["A"], ["B-n A E-n"]) == 0
    assert slot_value_cer().score(["B-n AB E-n"], [""]) == 1
    assert slot_edit_f1("full").score(["A"], ["B-n A E-n"]) == 0
    with pytest.raises(ValueError, match="slot_value_cer is not defined"):
        slot_value_cer().score(["A"], ["B-n A E-n"])
    with pytest.raises(ValueError, match="slot_edit_f1_part is not defined"):
        slot_edit_f1("part").score(["A"], ["B-n A E-n"])


def test_values_may_have_colons_and_semicolons() -> None:
    ref, hyp = "AT B-time 10:30; E-time B-url A:B E-url", "AT B-time 10:30 E-time B-url A:B E-url"
    assert values(ref) == {"time": ["10:30;"], "url": ["A:B"]}
    assert slot_type_f1().score([ref], [hyp]) == 1
    assert slot_value_cer().score([ref], [hyp]) == pytest.approx(1 / 9)
    assert slot_value_wer().score([ref], [hyp]) == pytest.approx(1 / 2)
    assert slot_edit_f1("full").score([ref], [hyp]) == pytest.approx(2 / 4)


def test_a_hopeless_candidate_is_as_none(s3prl: Any) -> None:
    """A value a hundred times too long is not taken, so its insertions do not count."""
    ref, hyp = "B-n A E-n", f"B-n {'X' * 101} E-n"
    assert slot_value_cer().score([ref], [hyp]) == 1 == s3prl.slot_value_cer([hyp], [ref])
    shorter = f"B-n {'X' * 99} E-n"
    assert slot_value_cer().score([ref], [shorter]) == 99
    assert s3prl.slot_value_cer([shorter], [ref]) == 99


def test_markers() -> None:
    assert spans("B-a X  Y E-a B-b Z E-b") == [("a", "X Y"), ("b", "Z")]
    assert spans("B-a X E-b") == []
    assert spans("B-city X E-city_name") == [("city", "X")]
    assert spans("B-a E-a") == []  # an empty value is no span
    assert values("B-a X E-a B-a Y E-a") == {"a": ["X", "Y"]}
    nested = "B-a X B-b Y E-b E-a"
    assert values(nested) == {"a": ["X B-b Y E-b"]}
    assert values(nested, predicted=True) == {"a": ["X Y"]}


def test_intervals_and_directions() -> None:
    refs, hyps = REFS * 4, HYPS * 4
    for metric, higher in (
        (slot_type_f1(), True),
        (slot_value_cer(), False),
        (slot_value_wer(), False),
        (slot_edit_f1("full"), True),
    ):
        assert metric.higher_is_better is higher
        units = [f"u{i}" for i in range(12)]
        found = bootstrap(metric, refs, hyps, units, unit="utterance", resamples=50)
        assert found.low < found.value < found.high
        assert np.isfinite([found.low, found.high]).all()
