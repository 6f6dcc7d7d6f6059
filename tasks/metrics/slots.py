"""Slot filling: which slots were found in decoded text, and how well their values were read.

A slot is written into the text as ``B-city taipei E-city``. All are what s3prl's
``downstream/ctc/metric.py`` computes, quirks included, except that values may have ``:`` and ``;``
and that what is not defined is a ``ValueError``. SUPERB reports the first two.

* ``slot_type_f1``: for each utterance the F1 of the *sets* of slots (how often a slot is there and
  what it says do not matter), 1 if both are empty, 0 if one is; then the mean over utterances.
* ``slot_value_cer``, ``slot_value_wer``: each value of the reference against the value of the same
  slot in the prediction that is closest to it, nothing if there is none; all edits over all
  characters (words) of the references. A predicted value may serve several references, and slots
  that only the prediction has cost nothing.
* ``slot_edit_f1_full``, ``slot_edit_f1_part``: a value of the reference is a true positive if the
  prediction has exactly it under the same slot, a false negative if the slot is not there, and one
  of each error if it is there with other values only; F1 over the corpus. ``full`` counts the
  values of slots that only the prediction has as false positives too. s3prl gives these two in per
  cent; here every score is between 0 and 1.

A span ends at the first ``E-`` that its own slot follows, whatever comes after: ``E-city_name``
closes ``B-city``. Other markers within a value stay in it in references, and are dropped in
predictions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from mynah.tasks.metrics.error_rate import error_counts
from mynah.tasks.metrics.metric import Floats, Metric, ratio

_SPAN = re.compile(r"B-(?P<slot>\S+) (?P<value>.+?) E-(?P=slot)")
_BEGIN = re.compile(r"B-\S+ ")
_END = re.compile(r" E-\S+")

Values = Mapping[str, Sequence[str]]


def spans(text: str) -> list[tuple[str, str]]:
    """Return (slot, value) of each span, from left to right; several spaces count as one."""
    found = _SPAN.finditer(re.sub(" +", " ", text))
    return [(span["slot"], span["value"]) for span in found]


def without_markers(text: str) -> str:
    """Return the text without what opens and closes slots."""
    return _END.sub("", _BEGIN.sub("", text))


def values(text: str, *, predicted: bool = False) -> dict[str, list[str]]:
    """Return the values of each slot, in order of appearance.

    Args:
        text: with spans.
        predicted: whether to drop markers within values, as is done of predictions only.
    """
    slots: dict[str, list[str]] = {}
    for slot, value in spans(text):
        slots.setdefault(slot, []).append(without_markers(value) if predicted else value)
    return slots


def slot_type_f1() -> Metric:
    """Return the metric ``slot_type_f1``: mean over utterances of the F1 of sets of slots."""
    return _metric(
        "slot_type_f1",
        "average:utterances|empty:1|duplicates:ignored",
        _per_utterance(lambda ref, hyp: (_type_f1(ref, hyp), 1.0)),
        lambda sums: ratio(sums[..., 0], sums[..., 1]),
    )


def slot_value_cer() -> Metric:
    """Return the metric ``slot_value_cer``: character errors of slot values."""
    return _value_rate("slot_value_cer", "char")


def slot_value_wer() -> Metric:
    """Return the metric ``slot_value_wer``: word errors of slot values."""
    return _value_rate("slot_value_wer", "word")


def slot_edit_f1(which: Literal["full", "part"]) -> Metric:
    """Return the metric ``slot_edit_f1_full`` or ``slot_edit_f1_part``.

    Args:
        which: ``full`` counts slots that only the prediction has, ``part`` does not.
    """
    full = which == "full"
    return _metric(
        f"slot_edit_f1_{which}",
        f"average:corpus|extra-slots:{'counted' if full else 'ignored'}",
        _per_utterance(lambda ref, hyp: _edit_counts(ref, hyp, full=full)),
        lambda sums: ratio(2 * sums[..., 0], 2 * sums[..., 0] + sums[..., 1] + sums[..., 2]),
    )


def _metric(
    name: str,
    options: str,
    counts: Callable[[Sequence[str], Sequence[str], Sequence[str]], Floats],
    value: Callable[[Floats], Floats],
    *,
    higher: bool = True,
) -> Metric:
    return Metric(
        name=name,
        signature=f"{name}|{options}|v1",
        higher_is_better=higher,
        counts=counts,
        value=value,
    )


def _per_utterance(
    count: Callable[[Values, Values], tuple[float, ...]],
) -> Callable[[Sequence[str], Sequence[str], Sequence[str]], Floats]:
    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        pairs = zip(refs, hyps, strict=True)
        return np.array([count(values(ref), values(hyp, predicted=True)) for ref, hyp in pairs])

    return counts


def _type_f1(ref: Values, hyp: Values) -> float:
    if not ref and not hyp:
        return 1.0
    shared = len(ref.keys() & hyp.keys())
    return 2 * shared / (len(ref) + len(hyp))  # 2PR / (P + R)


def _edit_counts(ref: Values, hyp: Values, *, full: bool) -> tuple[float, float, float]:
    """Return true positives, false negatives and false positives of an utterance."""
    hits = missed = wrong = 0
    for slot, wanted in ref.items():
        found = hyp.get(slot, ())
        right = sum(value in found for value in wanted)
        hits += right
        missed += len(wanted) - right
        wrong += len(wanted) - right if found else 0
    if full:
        wrong += sum(len(found) for slot, found in hyp.items() if slot not in ref)
    return hits, missed, wrong


def _value_rate(name: str, unit: Literal["char", "word"]) -> Metric:
    return _metric(
        name,
        f"unit:{unit}|match:closest|extra-slots:ignored|average:corpus",
        lambda refs, hyps, _folds: _value_counts(refs, hyps, unit),
        lambda sums: ratio(sums[..., 0], sums[..., 1]),
        higher=False,
    )


def _value_counts(
    references: Sequence[str], predictions: Sequence[str], unit: Literal["char", "word"]
) -> Floats:
    """Return (n, 2) counts: edits of the closest values, and length of the references' values."""
    rows: list[int] = []  # utterance of each value of the references
    starts: list[int] = []  # where its candidates begin
    wanted: list[str] = []  # it, beside each of them
    found: list[str] = []
    for row, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        candidates = values(prediction, predicted=True)
        for slot, of_slot in values(reference).items():
            for value in of_slot:
                starts.append(len(wanted))
                rows.append(row)
                options = candidates.get(slot, [""])
                wanted += [value] * len(options)
                found += options
    table = np.zeros((len(references), 2))
    if not rows:
        return table
    counts = error_counts(wanted, found, unit)
    length = counts[starts, 3]
    edits = np.minimum.reduceat(counts[:, :3].sum(axis=1), starts)
    edits = np.where(edits < 100 * length, edits, length)  # s3prl takes none at a rate of 100
    np.add.at(table, rows, np.stack([edits, length], axis=1))
    return table
