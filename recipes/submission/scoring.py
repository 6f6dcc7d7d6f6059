"""Scores of a submission that was checked, by the same metrics as results have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mynah.recipes.kept import Rows, measure_of
from mynah.recipes.submission.activity import RATE
from mynah.recipes.submission.against import Truth, claimant
from mynah.recipes.submission.checks import Checked
from mynah.recipes.submission.layout import MEANS
from mynah.tasks.metrics.bootstrap import Interval, bootstrap

CLAIMED = ("se", "ss")


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of one task.

    Attributes:
        task: which.
        lm: decoded with a language model.
        metric: its name.
        value: in the units of publication.
        interval: the same with its limits; None for a mean that is only claimed, where no result has
            it.
        scale: what the metric was multiplied by.
    """

    task: str
    lm: bool
    metric: str
    value: float
    interval: Interval | None
    scale: float


def scores(checked: Checked, truths: Mapping[str, Truth]) -> list[Score]:
    """Return every metric that the test sets' results have, of what the submission says.

    Args:
        checked: without problems.
        truths: of each task.

    Raises:
        ValueError: a metric that these predictions do not define.
    """
    out = []
    for (task, lm), by_fold in sorted(checked.predictions.items()):
        out += _of(task, lm, _rows(by_fold, truths[task]), truths[task])
    if checked.activities and checked.shift is not None:
        truth = truths["sd"]
        out += _of("sd", False, _turns(checked, truth, checked.shift), truth)
    for task in CLAIMED:
        if own := claimant(truths[task], checked.means[task]) if task in checked.means else None:
            path, result, rows = own
            out += _of(
                task, False, rows, replace(truths[task], path=path, result=result, rows=rows)
            )
            continue
        for name, value in checked.means.get(task, {}).items():
            ours = truths[task].result.metrics.get(MEANS[name])
            scale = ours.scale if ours else 1.0
            out.append(
                Score(
                    task=task,
                    lm=False,
                    metric=MEANS[name],
                    value=scale * value,
                    interval=None,
                    scale=scale,
                )
            )
    return out


def _rows(by_fold: Mapping[str, Mapping[str, str]], truth: Truth) -> Rows:
    """Return the truth's rows with what the submission says."""
    single = by_fold.get("") if set(by_fold) == {""} else None
    said = [
        (single if single is not None else by_fold[fold])[name]
        for name, fold in zip(truth.rows.ids, truth.rows.folds, strict=True)
    ]
    return _with(truth, said)


def _with(truth: Truth, said: Sequence[str]) -> Rows:
    rows = truth.rows
    return Rows(
        ids=rows.ids,
        folds=rows.folds,
        units=rows.units,
        references=rows.references,
        predictions=tuple(said),
    )


def _turns(checked: Checked, truth: Truth, shift: int) -> Rows:
    """Return turns by the threshold and median filter with the lowest error, as the server does."""
    from mynah.tasks.core.activities import lowest_setting
    from mynah.tasks.core.turns import Grid, Setting, to_hundredths, to_turns
    from mynah.tasks.metrics.diarization import decode, encode
    from mynah.tasks.sd import MEDIAN_FRAMES, THRESHOLDS

    grid = Grid(shift, RATE)
    activities = [checked.activities[name] for name in truth.rows.ids]
    settings = [Setting(t, m) for m in MEDIAN_FRAMES for t in THRESHOLDS]
    setting = lowest_setting(
        activities, [decode(true) for true in truth.rows.references], settings, grid
    )
    turns = [to_turns(a, setting, grid) for a in activities]
    if truth.result.protocol == "superb":  # as the server's RTTM has them
        turns = [to_hundredths(some) for some in turns]
    return _with(truth, [encode(some) for some in turns])


def _of(task: str, lm: bool, rows: Rows, truth: Truth) -> list[Score]:
    out = []
    folds = rows.folds if any(rows.folds) else None
    for name, kept in truth.result.metrics.items():
        try:
            measure = measure_of(truth.result, name, rows)
        except ValueError:
            continue  # a metric that needs audio
        found = bootstrap(
            measure, rows.references, rows.predictions, rows.units, unit=kept.unit, folds=folds
        )
        out.append(
            Score(
                task=task,
                lm=lm,
                metric=name,
                value=kept.scale * found.value,
                interval=found,
                scale=kept.scale,
            )
        )
    return out
