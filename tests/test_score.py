"""SUPERB's score and rank against the leaderboard's rows, the cost of models against published totals."""

from __future__ import annotations

import pytest

from mynah.recipes import aggregate, compare
from mynah.recipes.costs import published
from mynah.recipes.costs.superb import LENGTHS
from mynah.recipes.published import rows

PAPER = {
    "FBANK": (0, 1.55),
    "PASE+": (149, 2.45),
    "APC": (392, 5.70),
    "VQ-APC": (377, 5.65),
    "Mockingjay": (54, 1.15),
    "modified CPC": (278, 5.30),
    "vq-wav2vec": (422, 7.00),
    "wav2vec 2.0 Base": (818, 10.55),
    "HuBERT Large": (919, 12.80),
}
"""Score and rank that the leaderboard's own code gives its fifteen rows."""


@pytest.mark.parametrize("name", PAPER)
def test_the_published_rows_have_their_score_and_rank(name: str) -> None:
    ranked = rows.ranked()
    assert len(ranked) == rows.RANKED
    score = aggregate.superb_s(ranked[name], "paper")
    others = [values for other, values in ranked.items() if other != name]
    assert score is not None
    assert (round(score), round(aggregate.superb_r(ranked[name], others, "paper"), 2)) == PAPER[
        name
    ]


def test_a_missing_task_leaves_no_score_but_a_centred_mean() -> None:
    values = {("pr", "per"): 40.0, ("ks", "accuracy"): 55.0}
    assert aggregate.superb_s(values, "paper") is None
    assert "asr" in aggregate.missing(values, "paper")
    # (40 - 100) / (0 - 100) = 0.6 and (55 - 10) / (100 - 10) = 0.5
    assert aggregate.centred_mean(values, {"ks": 10.0}) == pytest.approx(0.55)


def test_holm_is_the_textbook_s() -> None:
    # ordered 0.01, 0.03, 0.04: 3 * 0.01, 2 * 0.03, and no less than the one before
    assert compare.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


@pytest.mark.parametrize(
    ("name", "params", "giga"),
    [
        ("HuBERT Base", 94_697_600, 1669.2),
        ("APC", 4_105_296, 501.7),
        ("Mockingjay", 85_118_208, 2076.4),
    ],
)
def test_published_sizes_come_out_within_half_a_per_cent(
    name: str, params: int, giga: float
) -> None:
    known = next(each for each in published.KNOWN if each.model == name)
    found = published.as_published(known)
    assert found.params == pytest.approx(params, rel=0.005)
    assert found.as_published["all"] / 1e9 == pytest.approx(giga, rel=0.005)
    assert len(LENGTHS) == 32
