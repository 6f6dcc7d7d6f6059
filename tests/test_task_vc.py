"""VC: words, trials and scores of conversions by hand; why a probe cannot train it."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from utterances import utterance

from mynah.recipes import judge
from mynah.recipes.conversion import method_report
from mynah.tasks.core.contract import DataError
from mynah.tasks.metrics.conversion import Conversion
from mynah.tasks.metrics.detection import equal_error_rate
from mynah.tasks.vc import (
    F0_RANGES,
    Judged,
    Judges,
    acceptance,
    by_target,
    cosines,
    plain_words,
    real_trials,
    scores,
)
from mynah.tasks.vc import TASK as VC


def conversion(mcd: float, f0: float | None = 10.0, corr: float | None = 0.5) -> Conversion:
    return Conversion(mcd=mcd, f0_rmse=f0, f0_corr=corr, duration_difference=0.25)


def test_plain_words() -> None:
    assert plain_words(" Don't  stop-now, “ok”!\n") == "DONT STOPNOW OK"
    assert plain_words("¿¡ … –") == ""
    assert plain_words("straße 3 €") == "STRASSE 3 €"


def test_cosines() -> None:
    found = cosines([3.0, 4.0], [[3.0, 4.0], [-4.0, 3.0], [-6.0, -8.0], [1.0, 0.0]])
    np.testing.assert_allclose(found, [1, 0, -1, 0.6])
    for vectors in ([[0.0, 0.0]], [[np.nan, 1.0]]):
        with pytest.raises(ValueError, match="zero or not finite"):
            cosines([1.0, 0.0], vectors)


def test_real_trials_by_hand() -> None:
    vectors = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    speakers = ["a", "a", "b"]
    trials, targets = real_trials(vectors, speakers)
    np.testing.assert_allclose(trials, [0, np.sqrt(0.5), np.sqrt(0.5)])
    assert targets.tolist() == [True, False, False]
    trials, targets = real_trials(vectors, speakers, "superb")
    assert len(trials) == 9
    assert targets.sum() == 5  # three with themselves, two of the pair
    np.testing.assert_allclose(sorted(trials[targets]), [0, 0, 1, 1, 1])


def test_a_recording_with_itself_lowers_the_eer() -> None:
    rng = np.random.default_rng(0)
    speakers = [f"s{i // 3}" for i in range(12)]
    vectors = [rng.normal(size=4) for _ in speakers]
    fixed, superb = (real_trials(vectors, speakers, p) for p in ("fixed", "superb"))  # type: ignore[arg-type]
    assert equal_error_rate(*superb) < equal_error_rate(*fixed)
    # s3prl's loops, spelled out
    labels, expected = [], []
    for i, a in enumerate(speakers):
        for j, b in enumerate(speakers):
            expected.append(cosines(vectors[i], [vectors[j]])[0])
            labels.append(a == b)
    assert equal_error_rate(expected, labels) == pytest.approx(equal_error_rate(*superb))


@pytest.mark.parametrize(
    ("speakers", "message"),
    [(["a", "b"], "1 of a, 1 of b"), (["a", "a"], "2 of a"), ([], "none")],
)
def test_too_few_real_recordings(speakers: list[str], message: str) -> None:
    with pytest.raises(DataError, match=f"two recordings of one speaker.*there are {message}"):
        real_trials([[1.0, float(i)] for i, _ in enumerate(speakers)], speakers)


def test_acceptance() -> None:
    own, other = [1.0, 0.0], [0.0, 1.0]
    assert acceptance([2.0, 0.1], [own], 0.9) == 1.0
    assert acceptance([2.0, 0.1], [other], 0.9) == 0.0
    assert acceptance([2.0, 0.1], [own, other, own, other], 0.9) == 0.5
    assert acceptance(own, [own], 1.0) == 0.0  # above, not at
    with pytest.raises(ValueError, match="no similarities"):
        acceptance(own, [], 0.5)


def judged() -> list[Judged]:
    return [
        Judged(id="a", source="s1", target="t1", distance=conversion(6.0), text="One two, three!",
               transcript="one two", accepted=1.0),
        Judged(id="b", source="s1", target="t2", distance=conversion(8.0, None, None),
               text="four", transcript="FOUR FIVE", accepted=0.0),
        Judged(id="c", source="s2", target="t2", text="six"),
    ]  # fmt: skip


def test_scores_by_hand() -> None:
    judges = Judges(recogniser="asr-1", verifier="asv-2", threshold=0.25)
    found = scores(judged(), judges)
    values = {name: (score.value, score.n) for name, score in found.items()}
    assert values == {
        "mcd": (7.0, 2),
        "f0_rmse": (10.0, 2),
        "f0_corr": (0.5, 2),
        "ddur": (0.25, 2),
        "wer": (pytest.approx(2 / 4), 2),
        "cer": (pytest.approx((6 + 5) / (13 + 4)), 2),  # " THREE" lost, " FIVE" added
        "accept": (0.5, 2),
    }
    assert "undefined:skipped" in found["f0_rmse"].signature
    assert "dtw:exact" in found["mcd"].signature
    assert "asr:asr-1" in found["wer"].signature
    assert "norm:upper,no-punctuation" in found["cer"].signature
    assert "asv:asv-2|threshold:0.25" in found["accept"].signature
    assert found["mcd"].unit == "utterance"  # too few sources for an interval by source
    superb = scores(judged(), Judges(protocol="superb"))
    assert "dtw:fastdtw-1" in superb["mcd"].signature
    assert by_target(judged(), judges) == {
        "t1": {"mcd": 6.0, "f0_rmse": 10.0, "f0_corr": 0.5, "ddur": 0.25,
               "wer": pytest.approx(1 / 3), "cer": pytest.approx(6 / 13), "accept": 1.0},
        "t2": {"mcd": 8.0, "ddur": 0.25, "wer": 1.0, "cer": pytest.approx(5 / 4), "accept": 0.0},
    }  # fmt: skip


def test_what_cannot_be_known_is_left_out() -> None:
    bare = [Judged(id="a", source="s", target="t", distance=conversion(5.0, None, None))]
    assert set(scores(bare, Judges())) == {"mcd", "ddur"}
    assert scores([Judged(id="a", source="s", target="t", text="x")], Judges()) == {}


def test_intervals_are_by_source_speaker() -> None:
    """All conversions of one source are alike: the interval is that of six numbers, not of 60."""
    rows = [
        Judged(id=f"{s}-{i}", source=f"s{s}", target="t", distance=conversion(float(s)))
        for s in range(6)
        for i in range(10)
    ]
    found = scores(rows, Judges())["mcd"]
    assert (found.unit, found.units, found.n) == ("source speaker", 6, 60)
    draws = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), size=1000)
    low, high = np.quantile(draws @ np.arange(6) / 6, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no conversions"),
        ([*judged(), judged()[1]], "given twice: b"),
        ([*judged(), Judged(id="m", source="s", target="t", text="...")], "no words: m"),
    ],
)
def test_bad_rows_are_named(rows: list[Judged], message: str) -> None:
    for score in (scores, by_target):
        with pytest.raises(DataError, match=message):
            score(rows, Judges())


def test_a_probe_cannot_train_it() -> None:
    for task in (VC(), VC("superb")):
        assert not task.TRAINED
        with pytest.raises(DataError, match="mynah judge vc"):
            task.load([utterance("u", role="source")])
        with pytest.raises(DataError, match="mynah judge vc"):
            task.head(4)
        for refuse in (task.losses, task.decode):
            with pytest.raises(DataError, match="mynah judge vc"):
                refuse(torch.zeros(1), torch.ones(1), [])
        names = [metric.name for metric in task.metrics()]
        assert names == ["mcd", "f0_rmse", "f0_corr", "ddur", "wer", "cer", "accept"]
        assert task.reference(utterance("u", parallel="E30001")) == "E30001"
    assert "dtw:fastdtw-1" in VC("superb").metrics()[0].signature
    assert set(F0_RANGES) == {"TEF1", "TEF2", "TEM1", "TEM2"}


def test_one_scale_for_all_who_show_a_score() -> None:
    assert {m.name for m in VC().metrics() if m.scale == 100} == {"wer", "cer", "accept"}
    found = scores([Judged(id="x", source="s", target="t", accepted=0.5)], Judges())
    assert judge.lines(found) == ["accept     50.000 [50.000, 50.000]  n 1, 1 utterances"]
    assert method_report.cell("accept", found["accept"]) == "50.0 [50.0, 50.0]"
    own = dataclasses.replace(found["accept"], scale=1.0)  # whatever the name
    assert judge.lines({"accept": own})[0].startswith("accept      0.500 [0.500")
    assert method_report.cell("accept", own) == "0.50 [0.50, 0.50]"
