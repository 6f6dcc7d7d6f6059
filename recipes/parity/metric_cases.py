"""Are our metrics the known ones? Each beside an independent implementation, on random cases."""

from __future__ import annotations

from mynah.recipes.parity import (
    metric_cases_audio,
    metric_cases_scores,
    metric_cases_text,
    metric_cases_time,
)
from mynah.recipes.parity.metric_pair import MetricPair

__all__ = ["PAIRS"]

PAIRS: tuple[MetricPair, ...] = (
    *metric_cases_scores.PAIRS,
    *metric_cases_text.PAIRS,
    *metric_cases_audio.PAIRS,
    *metric_cases_time.PAIRS,
)
