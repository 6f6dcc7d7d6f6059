"""Accuracy, of utterances and of frames, what is attainable of it, its mean over folds, unweighted average recall, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from mynah.tasks.metrics.metric import Floats, Metric, ratio


def _correct(references: Sequence[str], predictions: Sequence[str]) -> Floats:
    pairs = zip(references, predictions, strict=True)
    return np.array([float(a == b) for a, b in pairs])


def accuracy() -> Metric:
    """Share of utterances whose predicted class is the reference, over all folds together."""

    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        right = _correct(refs, hyps)
        return np.stack([right, np.ones_like(right)], axis=1)

    return Metric(
        name="accuracy",
        signature="accuracy|average:micro|folds:pooled|v1",
        higher_is_better=True,
        counts=counts,
        value=lambda sums: ratio(sums[..., 0], sums[..., 1]),
    )


def frame_accuracy() -> Metric:
    """Share of frames whose predicted class is the reference, over all folds together.

    References and predictions are the classes of an utterance's frames, separated by spaces.
    Scoring raises ``ValueError`` where an utterance has not one prediction for each frame.
    """

    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        pairs = [(ref.split(), hyp.split()) for ref, hyp in zip(refs, hyps, strict=True)]
        for row, (ref, hyp) in enumerate(pairs):
            if len(ref) != len(hyp):
                raise ValueError(
                    f"utterance {row} has {len(ref)} frames and {len(hyp)} predictions: give one "
                    "for each"
                )
        return np.array([(_correct(ref, hyp).sum(), len(ref)) for ref, hyp in pairs])

    return Metric(
        name="frame_accuracy",
        signature="accuracy|average:frames|folds:pooled|v1",
        higher_is_better=True,
        counts=counts,
        value=lambda sums: ratio(sums[..., 0], sums[..., 1]),
    )


def part_accuracy(part: int, name: str) -> Metric:
    """Share of utterances of which one part of a class, written ``a|b|c``, is the reference's.

    Args:
        part: which, from 0.
        name: of what it says; the metric is ``NAME_accuracy``.
    """

    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        right = _correct(*([text.split("|")[part] for text in texts] for texts in (refs, hyps)))
        return np.stack([right, np.ones_like(right)], axis=1)

    return Metric(
        name=f"{name}_accuracy",
        signature=f"accuracy|part:{name}|average:micro|folds:pooled|v1",
        higher_is_better=True,
        counts=counts,
        value=lambda sums: ratio(sums[..., 0], sums[..., 1]),
    )


def attainable(known: Sequence[Collection[str]]) -> Metric:
    """Share of utterances whose reference can be said at all: no accuracy is higher.

    Args:
        known: what can be said of each part of a class, written ``a|b|c``; of one part alone the
            whole text counts, whatever it holds.
    """

    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        split = ([ref] if len(known) == 1 else ref.split("|") for ref in refs)
        can = np.array(
            [
                float(all(part in own for part, own in zip(parts, known, strict=True)))
                for parts in split
            ]
        )
        return np.stack([can, np.ones_like(can)], axis=1)

    return Metric(
        name="attainable",
        signature="attainable|average:micro|folds:pooled|v1",
        higher_is_better=True,
        counts=counts,
        value=lambda sums: ratio(sums[..., 0], sums[..., 1]),
    )


def fold_accuracy(folds: Sequence[str], *, name: str = "accuracy") -> Metric:
    """Unweighted mean over folds of each fold's accuracy, as SUPERB's ER is reported.

    Args:
        folds: names of all folds; a resample in which a fold is empty averages the others.
        name: key in results.
    """
    index = {fold: i for i, fold in enumerate(folds)}
    size = len(index)

    def counts(refs: Sequence[str], hyps: Sequence[str], at: Sequence[str]) -> Floats:
        table = np.zeros((len(refs), 2 * size))
        rows = np.arange(len(refs))
        columns = np.array([index[fold] for fold in at], dtype=np.int64)
        table[rows, columns] = _correct(refs, hyps)
        table[rows, size + columns] = 1
        return table

    return Metric(
        name=name,
        signature=f"accuracy|average:micro|folds:mean-of-{size}|v1",
        higher_is_better=True,
        counts=counts,
        value=lambda sums: _mean_known(ratio(sums[..., :size], sums[..., size:])),
    )


def unweighted_recall(classes: Sequence[str]) -> Metric:
    """Mean over classes of recall (UAR, balanced accuracy); a class without references is left out.

    The same as ``sklearn.metrics.balanced_accuracy_score``.
    """
    index = {name: i for i, name in enumerate(classes)}
    size = len(index)

    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        table = np.zeros((len(refs), 2 * size))
        rows = np.arange(len(refs))
        columns = np.array([index[ref] for ref in refs], dtype=np.int64)
        table[rows, columns] = _correct(refs, hyps)
        table[rows, size + columns] = 1
        return table

    return Metric(
        name="uar",
        signature="uar|average:macro|absent:ignored|folds:pooled|v1",
        higher_is_better=True,
        counts=counts,
        value=lambda sums: _mean_known(ratio(sums[..., :size], sums[..., size:])),
    )


def _mean_known(values: Floats) -> Floats:
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return ratio(total, known.sum(axis=-1).astype(np.float64))


def confusion(
    references: Sequence[str], predictions: Sequence[str], classes: Sequence[str]
) -> NDArray[np.int64]:
    """Return counts (C, C): rows are references, columns predictions, in the order of ``classes``.

    Raises:
        KeyError: a label that is not a class.
    """
    index = {name: i for i, name in enumerate(classes)}
    table = np.zeros((len(classes), len(classes)), dtype=np.int64)
    rows = [index[ref] for ref in references]
    columns = [index[hyp] for hyp in predictions]
    np.add.at(table, (rows, columns), 1)
    return table
