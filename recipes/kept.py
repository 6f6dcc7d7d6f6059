"""Predictions kept beside a result: scored again, and on any draw of speakers.

A result holds values and intervals, not what made them; that is in its table of predictions (id,
fold, unit, reference, prediction), from which every metric, and every resampling of it, can be had
again. The metric is found by its name and signature, and must give the value that the result has.

Shape suffixes: n rows, U units, D draws.
"""

from __future__ import annotations

import csv
import hashlib
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mynah.recipes import results
from mynah.recipes.results import Result
from mynah.tasks.metrics.bootstrap import MIN_UNITS
from mynah.tasks.metrics.metric import Floats, Measure, Weigh

COLUMNS = ("id", "fold", "unit", "reference", "prediction")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What was scored, column by column.

    Attributes:
        ids: of the rows.
        folds: fold of each, "" without cross-validation.
        units: what makes rows alike: speaker, query.
        references: what is true.
        predictions: what was said.
    """

    ids: tuple[str, ...]
    folds: tuple[str, ...]
    units: tuple[str, ...]
    references: tuple[str, ...]
    predictions: tuple[str, ...]

    def digest(self) -> str:
        """Return a hash of what was scored: ids, folds and references."""
        text = "\n".join(map("\t".join, zip(self.ids, self.folds, self.references, strict=True)))
        return hashlib.sha256(text.encode()).hexdigest()

    def chance(self) -> float:
        """Return the share of the commonest reference: the accuracy of always saying it."""
        counts = np.unique(np.asarray(self.references), return_counts=True)[1]
        return float(counts.max() / counts.sum())


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One metric of one result, as a function of how often each unit is drawn.

    Attributes:
        value: of all rows.
        weigh: (D, U) numbers of times -> (D,) values, NaN where they define none.
        names: of the units U.
        unit: what they are; ``utterance`` where there are fewer than 5 others.
    """

    value: float
    weigh: Weigh
    names: tuple[str, ...]
    unit: str


def read(path: Path, result: Result) -> Rows:
    """Read the predictions of a result.

    Args:
        path: file of the result.
        result: what it holds.

    Raises:
        FileNotFoundError: they are gone.
        ValueError: another table.
    """
    file = path.with_name(result.predictions)
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is gone: without its predictions {path.name} cannot be resampled; run the "
            "probe again with --rerun always"
        )
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{file}: expected the columns {', '.join(COLUMNS)}")
        cells = [[row[name] or "" for name in COLUMNS] for row in reader]
    if not cells:
        raise ValueError(f"{file} holds no predictions")
    columns = [tuple(column) for column in zip(*cells, strict=True)]
    return Rows(
        **dict(zip(("ids", "folds", "units", "references", "predictions"), columns, strict=True))
    )


def scored(
    path: Path, result: Result, name: str | None = None, *, rows: Rows | None = None
) -> Scored:
    """Score a result's predictions again.

    Args:
        path: file of the result.
        result: what it holds.
        name: of the metric; the one that ranks by default.
        rows: what :func:`read` returned, where the caller has it.

    Raises:
        FileNotFoundError: the predictions are gone.
        ValueError: a metric that predictions do not give, or another value than the result's.
    """
    rows = rows or read(path, result)
    name = name or result.metric
    metric = measure_of(result, name, rows)
    names_U, unit_n = np.unique(np.asarray(rows.units), return_inverse=True)
    names, unit = tuple(map(str, names_U)), result.metrics[name].unit
    if len(names) < MIN_UNITS:
        names, unit_n, unit = rows.ids, np.arange(len(rows.ids)), "utterance"
    value, weigh = metric.by_unit(rows.references, rows.predictions, rows.folds, unit_n, len(names))
    kept = result.metrics[name].value
    if not math.isclose(value, kept, rel_tol=1e-9, abs_tol=1e-12):
        raise ValueError(
            f"{path.with_name(result.predictions)} gives {name} {value:.6g} where the result says "
            f"{kept:.6g}: they are not of one run, or the text alone does not give this metric; run "
            "the probe again with --rerun always"
        )
    return Scored(value=value, weigh=weigh, names=names, unit=unit)


def draws(names: Sequence[str], count: int) -> Floats:
    """Return how often each unit is drawn, (D, U); the same for the same names.

    So tasks that are scored on the same speakers (PR and ASR on one test set) go up and down
    together, and tasks on others do not.
    """
    generator = np.random.default_rng(zlib.crc32("\n".join(names).encode()))
    return generator.multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=count
    ).astype(np.float64)


def measure_of(result: Result, name: str, rows: Rows) -> Measure:
    """Return the metric of a result that bears a name.

    Raises:
        ValueError: the result has no such metric, or predictions do not give it.
    """
    if name not in result.metrics:
        raise ValueError(
            f"{result.task} has no metric {name!r}; it has: {', '.join(result.metrics)}"
        )
    made = _makers().get(name)
    if made is None:
        raise ValueError(f"{name} of {result.task} cannot be computed of its predictions")
    return made(result.metrics[name].signature, rows)


Maker = Callable[[str, Rows], Measure]


def _makers() -> dict[str, Maker]:
    """Return by name how a metric is made of its signature and the rows it is for."""
    from mynah.tasks.metrics import (
        accuracy,
        detection,
        diarization,
        error_rate,
        separation,
        slots,
        speech_quality,
        term_detection,
        translation,
    )
    from mynah.tasks.metrics.mean import of_field

    def classes(signature: str, rows: Rows) -> Measure:
        if "folds:mean-of" in signature:
            return accuracy.fold_accuracy(sorted(set(rows.folds)))
        return accuracy.accuracy()

    def rate(signature: str, rows: Rows) -> Measure:
        units: tuple[error_rate.Unit, ...] = ("phone", "char", "word")
        return error_rate.error_rate(next(u for u in units if f"unit:{u}" in signature))

    def equal(signature: str, rows: Rows) -> Measure:
        if "pairs:pooled" in signature:
            return term_detection.pair_eer(_documents(rows))
        return detection.eer()

    makers: dict[str, Maker] = {
        "accuracy": classes,
        "per": rate,
        "wer": rate,
        "cer": rate,
        "error_rate": rate,
        "eer": equal,
        "min_dcf": lambda _s, _r: detection.min_dcf(),
        "mtwv": lambda _s, rows: term_detection.mtwv(_documents(rows)),
        "map": lambda _s, rows: term_detection.average_precision(_documents(rows)),
        "slot_type_f1": lambda _s, _r: slots.slot_type_f1(),
        "slot_value_cer": lambda _s, _r: slots.slot_value_cer(),
        "slot_value_wer": lambda _s, _r: slots.slot_value_wer(),
        "der": lambda _s, _r: diarization.der(),
        "bleu": lambda signature, _r: translation.bleu("zh" if "tok:zh" in signature else "13a"),
        "chrf": lambda _s, _r: translation.chrf(),
    }
    for field in (
        speech_quality.pesq_metric,
        speech_quality.stoi_metric,
        separation.si_sdr_metric,
        separation.si_sdri_metric,
    ):
        metric = of_field(field(skip_undefined=True))
        makers[metric.name] = lambda _s, _r, found=metric: found  # type: ignore[misc]
    return makers


def _documents(rows: Rows) -> list[str]:
    from mynah.tasks.metrics.term_search import decode_scores

    return sorted({doc for text in rows.predictions for doc in decode_scores(text)})


def pairs(folder: Path) -> list[tuple[Path, Result]]:
    """Return every result under a folder with its file.

    Raises:
        FileNotFoundError: the folder is missing or holds no result.
        ValueError: a damaged result.
    """
    found = results.load_all(folder)
    return list(zip(results.walk(folder), found, strict=True))
