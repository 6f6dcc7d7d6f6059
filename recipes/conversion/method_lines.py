"""What was found of one conversion, and the scores of many with their intervals.

Scores that ``mynah judge vc`` has are computed as it computes them. Beside them there are

- ``mcd_c1``: MCD without c(0), the level: converted speech is as loud as its source, and the target's
  recording may have been made at another level, which is nothing of a voice;
- ``f0_corr_source`` and ``f0_off``: see ``tasks.metrics.intonation``;
- ``per``: phone error rate, where the recogniser writes phones;
- ``margin``: whom it sounds like, see ``likeness``;
- ``rtf``: CPU seconds per second of what was converted. The pitch of a recording is measured once,
  which the first method pays that asks for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mynah.recipes.conversion.pair_intervals import interval
from mynah.tasks.metrics.bootstrap import Interval
from mynah.tasks.metrics.conversion import mcd_metric
from mynah.tasks.metrics.intonation import f0_off_metric, f0_to_source_metric
from mynah.tasks.metrics.mean import UNDEFINED, as_text, mean_metric
from mynah.tasks.metrics.metric import Metric
from mynah.tasks.vc import Judged, Judges, columns

NEED_SENTENCE = ("mcd", "mcd_c1", "f0_rmse", "f0_corr", "ddur")
"""Scores that need the target's own recording of the sentence."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What was found of one conversion; None where it was not asked or cannot be known.

    Attributes:
        judged: what ``mynah judge vc`` finds.
        values: ``mcd_c1``, ``f0_corr_source``, ``f0_off``, ``margin``, ``rtf``.
        phones: those that should have been heard, and those that were.
    """

    judged: Judged
    values: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    phones: tuple[str, str] | None = None

    def as_row(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        spelled = {}
        if self.phones is not None:
            spelled = {"phones": self.phones[0], "phones_heard": self.phones[1]}
        return {**asdict(self.judged), **self.values, **spelled}


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores of conversions, and who judged.

    Attributes:
        judges: of words and of voices, for signatures.
        voice: by which the margin is measured, likewise.
        phones: the metric of phones, where the recogniser writes them.
    """

    judges: Judges
    voice: str
    phones: Metric | None = None

    def __call__(self, lines: Sequence[Line]) -> dict[str, Interval]:
        """Return score -> interval, as far as the conversions define them.

        Raises:
            DataError: no conversions, two of one id, or a text without a word.
        """
        out = {}
        judged = [line.judged for line in lines]
        for metric, cells in columns(judged, self.judges):
            given = [(cell, j) for j in judged if (cell := cells(j)) is not None]
            if any(prediction != UNDEFINED for (_, prediction), _ in given):
                out[metric.name] = _interval(self._signed(metric), given)
        if self.phones is not None:
            spelled = [(line.phones, line.judged) for line in lines if line.phones is not None]
            if spelled:
                out[self.phones.name] = _interval(self.phones, spelled)
        for metric in self._means():
            known = [
                ((line.judged.id, as_text(value)), line.judged)
                for line in lines
                if (value := line.values.get(metric.name)) is not None
            ]
            if known:
                out[metric.name] = _interval(metric, known)
        return out

    def _signed(self, metric: Metric) -> Metric:
        """Return a metric whose signature says what acceptance is by: not by the sentence itself."""
        if metric.name != "accept":
            return metric
        signature = metric.signature.replace("|threshold", "|of:others|threshold")
        return dataclasses.replace(metric, signature=signature)

    def _means(self) -> tuple[Metric, ...]:
        margin = f"voice:{self.voice}|of:target-source"
        return (
            dataclasses.replace(mcd_metric(with_c0=False), name="mcd_c1"),
            f0_to_source_metric(),
            f0_off_metric(),
            mean_metric("margin", higher_is_better=True, options=margin),
            mean_metric("rtf", higher_is_better=False, options="unit:cpu-s/s"),
        )


def _interval(metric: Metric, given: Sequence[tuple[tuple[str, str], Judged]]) -> Interval:
    """Return a score of rows, each reference and prediction and of which conversion."""
    references, predictions = zip(*(cell for cell, _ in given), strict=True)
    return interval(metric, references, predictions, [(j.source, j.target) for _, j in given])
