"""``mynah check metrics``: every pair on a few cases, broken metrics that are caught, the table."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from mynah.recipes import check, cli, errors
from mynah.recipes.parity import metric_cases
from mynah.recipes.parity.metric_cases import PAIRS
from mynah.recipes.parity.metric_cases_text import _bleu, levenshtein
from mynah.recipes.parity.metric_pair import MetricPair, Row, Value, gap, lines, measure
from mynah.tasks.core import dtw
from mynah.tasks.metrics import (
    accuracy,
    clusters,
    conversion,
    detection,
    diarization,
    error_rate,
    separation,
    slots,
    speech_quality,
    term_detection,
    term_search,
    translation,
)
from mynah.tasks.metrics.align import fast_align

CASES = 8


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.metric}, {pair.what}")
def test_a_metric_equals_its_reference(pair: MetricPair) -> None:
    assert not pair.missing
    row = measure(pair, cases=CASES, seed=1)
    assert row.ok, row
    assert row.cases == CASES
    assert row.low is not None
    assert row.high is not None
    assert row.high - row.low > 1000 * pair.allowed  # cases differ: equality says something


def test_every_pair_has_a_name_of_its_own_and_the_known_ones_are_there() -> None:
    assert len({(pair.metric, pair.packages, pair.what) for pair in PAIRS}) == len(PAIRS)
    names = {pair.name for pair in PAIRS}
    assert names >= {"accuracy", "per", "wer", "cer", "eer", "min_dcf", "mtwv", "map", "bleu"}
    assert names >= {"slot_type_f1", "slot_value_cer", "der", "si_sdr", "si_sdri", "pesq", "stoi"}
    assert names >= {"mcd", "qbe_dtw", "pnmi"}


# -- broken metrics -------------------------------------------------------------------------------


def nearest_threshold(miss_RK: np.ndarray, false_RK: np.ndarray) -> np.ndarray:
    """An EER without the line between two thresholds."""
    at = np.abs(miss_RK - false_RK).argmin(axis=1)[:, None]
    return np.asarray(np.take_along_axis(false_RK, at, axis=1)[:, 0])


def ties_by_place(found: term_search.Search) -> np.ndarray:
    """Average precision of documents of equal score one after the other."""
    values = np.zeros(len(found.queries))
    for row in np.flatnonzero(found.kept):
        true = found.true_QD[row][np.argsort(-found.scores_QD[row], kind="stable")]
        values[row] = (true.cumsum() / np.arange(1, len(true) + 1))[true].mean()
    return values


def pairs_by_name(talks_RK: np.ndarray, talks_HK: np.ndarray, seconds_K: np.ndarray) -> np.ndarray:
    """The first speaker is the first, the second the second."""
    both = min(len(talks_RK), len(talks_HK))
    return np.asarray((talks_RK[:both] & talks_HK[:both]).sum(axis=0))


def without_insertions(*args: Any) -> np.ndarray:
    return true_error_counts(*args) * [1, 1, 0, 1]


def duplicates_count(ref: slots.Values, hyp: slots.Values) -> float:
    wanted, found = (sum(map(len, side.values())) for side in (ref, hyp))
    shared = sum(min(len(ref[slot]), len(hyp[slot])) for slot in ref.keys() & hyp.keys())
    return 2 * shared / (wanted + found) if wanted + found else 1.0


def shared_of_cluster(table_PK: np.ndarray) -> np.ndarray:
    """Mutual information over the entropy of the clusters."""
    return true_pnmi(np.swapaxes(table_PK, -1, -2))


def without_brevity(correct: Any, total: Any, sys_len: int, ref_len: int, **options: Any) -> Any:
    return true_bleu(correct, total, max(sys_len, ref_len), ref_len, **options)


def narrow_band(estimate: Any, reference: Any, *, sample_rate: int) -> float:
    from pesq import pesq

    return float(pesq(sample_rate, reference, estimate, "nb"))


true_error_counts, true_pnmi = error_rate.error_counts, clusters._pnmi
true_bleu = BLEU.compute_bleu
BROKEN: list[tuple[str, object, str, object]] = [
    ("accuracy", accuracy, "_correct", lambda refs, hyps: np.ones(len(refs))),
    ("eer", detection, "crossing", nearest_threshold),
    ("min_dcf", detection, "lowest_cost", lambda miss, false, **_: (miss + false).min(axis=1)),
    ("mtwv", term_search, "BETA", 10.0),
    ("map", term_detection, "_precisions", ties_by_place),
    ("per", error_rate, "error_counts", without_insertions),
    ("slot_type_f1", slots, "_type_f1", duplicates_count),
    ("chrf", translation, "BETA", 1),
    ("bleu", BLEU, "compute_bleu", staticmethod(without_brevity)),  # the library's own
    ("si_sdr", separation, "_signal", lambda x, *_, **__: np.asarray(x)),
    ("pesq", speech_quality, "pesq", narrow_band),
    ("mcd", conversion, "_aligned", lambda x, y, exact: fast_align(x, y)),
    ("qbe_dtw", dtw, "unscaled", lambda found, distance: found),
    ("der", diarization, "_right", pairs_by_name),
    ("pnmi", clusters, "_pnmi", shared_of_cluster),
]


@pytest.mark.parametrize(("name", "module", "attribute", "value"), BROKEN)
def test_a_broken_metric_is_caught(
    name: str, module: object, attribute: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [pair for pair in PAIRS if pair.name == name]
    monkeypatch.setattr(module, attribute, value)
    rows = check.metric_rows(pairs, cases=12, seed=0)
    assert any(not row.ok for row in rows)
    assert all(row.difference is not None for row in rows)  # none by an error


# -- the references that are written out --------------------------------------------------------


def test_edit_distance_by_hand() -> None:
    assert levenshtein("kitten", "sitting") == 3
    assert levenshtein("abc", "") == levenshtein("", "abc") == 3
    assert levenshtein("", "") == 0
    assert levenshtein(["a", "b"], ["b", "a"]) == 2
    assert levenshtein("ab", "xxabxx") == 4


def test_bleu_by_hand() -> None:
    ref = ["a", "b", "c", "d", "e", "f", "g"]
    # 6 of 7 words, 4 of 6, 2 of 5 and 1 of 4 n-grams
    found = _bleu([ref], [["a", "b", "c", "d", "x", "f", "g"]])
    assert found == pytest.approx((6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25)
    # all right but short: exp(1 - 7 / 4)
    assert _bleu([ref], [ref[:4]]) == pytest.approx(np.exp(-0.75))
    # 5 of 5, 3 of 4, 1 of 3, and none of 2, which counts as a half
    mixed = ["a", "b", "c", "e", "d"]
    assert _bleu([mixed], [["b", "c", "e", "a", "d"]]) == pytest.approx(
        (2 / 4 * 1 / 3 * 1 / 4) ** 0.25
    )
    assert _bleu([ref], [["x"]]) == 0


# -- rows, the table and the exit status --------------------------------------------------------


def made(ours: Value, theirs: Value = 1.0, **changes: Any) -> MetricPair:
    def cases(count: int, seed: int) -> Iterator[tuple[Value, Value]]:
        yield from [(ours, theirs)] * count

    pair = MetricPair(
        metric="made (up)", packages=("numpy",), what="one", cases=cases, allowed=1e-3
    )
    return dataclasses.replace(pair, **changes)


def test_gap() -> None:
    assert gap(1.0, 1.5) == 0.5
    assert gap((1, 2.0), [1.0, 4]) == 2
    for ours, theirs, message in (
        ((1.0, 2.0), 1.0, r"shape \(2,\), the reference \(1,\)"),
        (float("nan"), 1.0, "not finite: ours nan"),
        (float("inf"), float("inf"), "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            gap(ours, theirs)


def test_the_same_seed_makes_the_same_cases() -> None:
    for pair in PAIRS:
        if pair.name in ("pesq", "stoi"):
            continue
        first, again, other = (list(pair.cases(3, seed)) for seed in (0, 0, 1))
        assert first == again
        assert first != other, pair


def test_rows_of_every_kind() -> None:
    def raising(count: int, seed: int) -> Iterator[tuple[Value, Value]]:
        yield 1.0, 1.0
        raise ZeroDivisionError("no | such\nargument")

    pairs = [
        made(1.0),
        made(1.0, 1.1),
        made(1.0, most=3),
        made(float("nan")),
        made(1.0, cases=lambda count, seed: iter([(1.0, 1.0)])),
        made(1.0, cases=raising, metric="other"),
        made(1.0, packages=("not_there", "numpy"), note="ours calls it"),
    ]
    rows = check.metric_rows(pairs, cases=5, seed=0)
    assert [row.ok for row in rows] == [True, False, True, False, False, False, False]
    assert [row.checked for row in rows] == [True] * 6 + [False]
    assert rows[1].difference == pytest.approx(0.1)
    assert [row.cases for row in rows] == [5, 5, 3, 0, 0, 0, 0]
    table = [[cell.strip() for cell in line.split(" | ")] for line in lines(rows, asked=5)]
    reference = f"numpy {np.__version__}: one"
    assert table[2] == ["| made (up)", reference, "5", "0.0e+00", "1e-03", "yes |"]
    assert table[3][2:] == ["5", "1.0e-01", "1e-03", "NO |"]
    assert table[4][2:] == ["3 of 5", "0.0e+00", "1e-03", "yes |"]
    assert table[5][2:4] == ["-", "-"]
    assert table[5][5].startswith("NO ValueError: a value is not finite: ours nan")
    assert table[6][5] == "NO ValueError: 1 cases were made, expected 5 |"
    assert table[7][5] == "NO ZeroDivisionError: no / such argument |"
    assert made(1.0, packages=()).reference == "written out: one"
    assert table[8][1] == f"not_there, numpy {np.__version__}: one (ours calls it)"
    assert table[8][2:] == ["-", "-", "1e-03", "not installed: not_there |"]


Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command on made-up pairs."""

    def command(pairs: list[MetricPair], *words: str) -> int:
        monkeypatch.setattr(metric_cases, "PAIRS", tuple(pairs))
        return cli.main(["check", "metrics", *words])

    return command


def test_exit_status(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = made(1.0, metric="good"), made(1.0, 1.1, metric="bad")
    absent = made(1.0, metric="absent", packages=("not_there",))
    assert run([good, absent]) == errors.DONE
    out = capsys.readouterr().out
    assert f"| good | numpy {np.__version__}: one | 200 | 0.0e+00 | 1e-03 | yes |" in out
    assert "1 within their limits, 0 not, 1 not checked" in out
    assert run([good, absent], "--strict") == 1
    assert run([good], "--strict") == errors.DONE
    assert run([good, bad]) == 1
    assert "1 within their limits, 1 not, 0 not checked" in capsys.readouterr().out
    assert run([good, bad, absent], "good", "--cases", "5") == errors.DONE
    assert "| 5 | 0.0e+00" in capsys.readouterr().out


def test_usage(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    good = made(1.0, metric="good")
    assert run([good], "god") == errors.USAGE
    assert "Closest: good" in capsys.readouterr().err
    assert run([good], "--cases", "0") == errors.USAGE
    assert "cases must be at least 1, got 0" in capsys.readouterr().err
    assert cli.main(["check", "parity", "apc", "npc"]) == errors.USAGE
    assert "check parity takes one name, got apc, npc" in capsys.readouterr().err


def test_json(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.json"
    bad = made(float("nan"), metric="bad")
    assert run([made(1.0), bad], "--seed", "4", "--cases", "3", "--json", str(path)) == 1
    record = json.loads(path.read_text())
    assert record["seed"] == 4
    first, second = record["rows"]
    assert (first["metric"], first["cases"], first["difference"]) == ("made (up)", 3, 0.0)
    assert (first["low"], first["high"], first["ok"]) == (1.0, 1.0, True)
    assert (second["difference"], second["ok"]) == (None, False)
    assert "not finite" in second["error"]


def test_a_row_without_a_difference_is_not_ok() -> None:
    row = Row(metric="made", reference="numpy", allowed=1.0)
    assert not row.ok
    assert row.checked
    assert dataclasses.replace(row, difference=1.0).ok
    assert not dataclasses.replace(row, difference=1.0001).ok
