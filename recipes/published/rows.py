"""The published rows: ``models.tsv`` (sizes) and ``scores.tsv`` (one number a line).

Values are in the units in which they were published: per cent for rates, accuracies, MTWV and STOI,
BLEU, PESQ and decibels as they are. Each line says how far it can be trusted: ``verified`` (read
in its source), ``rounded`` (read, with fewer digits) or ``recalled`` (from the literature, not read
again: check it before you quote it).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

Standing = Literal["verified", "rounded", "recalled"]

SOURCES = {
    "leaderboard": "the SUPERB leaderboard's own rows (superbbenchmark/website-react, "
    "backend/utils.py, cacb90e), of arXiv:2105.01051 and arXiv:2203.06849; FBANK's KS, IC, SID and "
    "ER without mean and variance normalisation",
    "leaderboard-hidden": "the same file, rows of the hidden set",
    "wavlm": "Chen et al. 2022, arXiv:2110.13900, table I",
    "s3prl-498": "the authors' answer in s3prl/s3prl#498",
    "data2vec": "Baevski et al. 2022, arXiv:2202.03555",
    "distilhubert": "Chang et al. 2022, arXiv:2110.01900",
    "usad": "the table of other models in the USAD paper",
    "armhubert": "the README of sungnyun/ARMHuBERT",
    "superb-sg": "Tsai et al. 2022, arXiv:2203.06849; voice conversion also S3PRL-VC, "
    "arXiv:2110.06280",
}
RANKED = 15
"""The leaderboard's first rows, among which a newcomer is ranked."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One published number.

    Attributes:
        model: whose.
        task: ours; ``asr+lm`` with a language model.
        metric: ours.
        value: in the unit of publication.
        standing: how far it can be trusted.
        source: key of :data:`SOURCES`.
    """

    model: str
    task: str
    metric: str
    value: float
    standing: Standing
    source: str


@dataclass(frozen=True, kw_only=True)
class Model:
    """A published model.

    Attributes:
        model: its name.
        params: parameters.
        macs: multiply-accumulates of SUPERB's 32 utterances; None where not published.
        buckets: the same by bucket, empty where not published.
        standing: how far this can be trusted.
        source: key of :data:`SOURCES`.
    """

    model: str
    params: int
    macs: int | None
    buckets: dict[str, int]
    standing: Standing
    source: str


@cache
def models() -> tuple[Model, ...]:
    """Return the published models, the leaderboard's fifteen first."""
    names = ("short", "medium", "long", "longer")
    return tuple(
        Model(
            model=row["model"],
            params=int(row["params"]),
            macs=int(row["macs"]) if row["macs"] else None,
            buckets={name: int(row[name]) for name in names if row[name]},
            standing=_standing(row["standing"]),
            source=row["source"],
        )
        for row in _read("models.tsv")
    )


@cache
def scores() -> tuple[Score, ...]:
    """Return every published score."""
    return tuple(
        Score(
            model=row["model"],
            task=row["task"],
            metric=row["metric"],
            value=float(row["value"]),
            standing=_standing(row["standing"]),
            source=row["source"],
        )
        for row in _read("scores.tsv")
    )


def of_model(model: str) -> dict[tuple[str, str], float]:
    """Return a model's published values by (task, metric)."""
    return {(s.task, s.metric): s.value for s in scores() if s.model == model}


def ranked() -> dict[str, dict[tuple[str, str], float]]:
    """Return the values of the leaderboard's own fifteen rows, by model."""
    return {m.model: of_model(m.model) for m in models()[:RANKED]}


def _standing(text: str) -> Standing:
    for known in get_args(Standing):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f"unknown standing {text!r}; there are: {', '.join(get_args(Standing))}")


def _read(name: str) -> Iterator[dict[str, str]]:
    with (Path(__file__).parent / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
