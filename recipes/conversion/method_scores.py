"""Scores of converters on the same pairs, as ``mynah judge vc`` computes them, with what it has not.

Beside its scores there are here

- ``mcd_c1``: MCD without c(0), the level: converted speech is as loud as its source, and the target's
  recording may have been made at another level, which is nothing of a voice;
- ``margin`` and ``eer``: whom it sounds like, see ``likeness``;
- ``rtf``: CPU seconds per second of the source. The pitch of a recording is measured once, which the
  first method pays that asks for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mynah.recipes import judge
from mynah.recipes.conversion.likeness import COEFFICIENTS, Likeness
from mynah.recipes.conversion.pair_intervals import interval
from mynah.recipes.conversion.pairs import Pair
from mynah.recipes.conversion.systems import RATE, Recordings, System
from mynah.recipes.conversion_list import Row
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.bootstrap import Interval
from mynah.tasks.metrics.conversion import compare, mcd_metric
from mynah.tasks.metrics.mean import UNDEFINED, as_text, mean_metric
from mynah.tasks.metrics.metric import Metric
from mynah.tasks.vc import (
    F0_RANGES,
    Judged,
    Judges,
    columns,
    plain_words,
)

GROUPS = ("within", "across")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What was found of one system.

    Attributes:
        metrics: score -> interval.
        by_genders: ``within`` and ``across`` -> score -> interval, where speakers have a gender.
        perplexity: of the content codes, None where they are not discrete.
        conversions: a row per pair, in their order; those without audio have an id alone.
    """

    metrics: Mapping[str, Interval]
    by_genders: Mapping[str, Mapping[str, Interval]]
    perplexity: float | None
    conversions: Sequence[dict[str, Any]]


def perplexity(counts: Sequence[int]) -> float | None:
    """Return the exponential of the entropy of a histogram, None of nothing."""
    import torch

    from mynah.downstream.conversion.core import bottleneck

    if not sum(counts):
        return None
    return float(bottleneck.perplexity(torch.tensor(counts, dtype=torch.float64)))


def _mean(name: str, options: str, *, higher_is_better: bool) -> Metric:
    return mean_metric(name, higher_is_better=higher_is_better, options=options)


class Panel:
    """Judges of every system on the same pairs.

    Args:
        pairs: that were converted.
        real: their recordings.
        rate: Hz at which distances are measured.
        witnesses: further recordings of the same speakers, for margin and EER.
        asr: trained head that writes words, or None.
        asv: trained head of speaker verification, or None. Its threshold is that at the EER of the
            pairs' recordings, one for all systems.

    Raises:
        FileNotFoundError, LookupError, ValueError: heads or upstreams that cannot be.
        DataError: too few recordings for a threshold.
        BadAudioError: a recording that cannot be heard.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        real: Recordings,
        *,
        rate: int = RATE,
        witnesses: Sequence[Utterance] = (),
        asr: Path | None = None,
        asv: Path | None = None,
    ) -> None:
        self.pairs, self.real = pairs, real
        nowhere = Path()  # judge's arguments name files that are not asked for here
        self.args = judge.Args(what="vc", list=nowhere, out=nowhere, asr=asr, asv=asv, rate=rate)
        self.asr = judge.open_judge(self.args, asr, ("wer", "cer"), None, "--asr")
        self.asv = judge.open_judge(self.args, asv, ("eer",), self.asr, "--asv")
        self.ears = judge.Ears(rate)
        self.how: dict[str, Any] = {}
        self.recordings = {
            real.file(u): u for pair in pairs for u in (pair.source, pair.target)
        }  # each once
        self.known = {**self.recordings, **{real.file(u): u for u in witnesses}}
        if self.asv is not None:
            vectors = [np.asarray(self.ears.said(self.asv, path)) for path in self.recordings]
            names = [str(u.speaker) for u in self.recordings.values()]
            self.how = judge.threshold_of(vectors, names, self.args.protocol)
            self.args = dataclasses.replace(self.args, threshold=self.how["threshold"])
        self.measure = judge.name_of(asv) if asv else f"mel-cepstra-{COEFFICIENTS}"
        self.likeness = Likeness(self.ears, real, self.known, self.asv)

    def score(self, system: System) -> Scored:
        """Score what a system made.

        Raises:
            DataError: a text without a word.
            BadAudioError, ValueError: audio that cannot be used.
        """
        there = [(p, f) for p, f in zip(self.pairs, system.files, strict=True) if f is not None]
        rows = [self._row(pair, file, distances=not system.itself) for pair, file in there]
        accepted: list[float | None] = [None] * len(rows)
        if self.asv is not None and not system.itself:
            accepted, _ = judge.accepted(self.args, rows, self.asv, self.ears)
        judged = [
            Judged(
                id=row.id,
                source=row.source,
                target=row.target,
                distance=judge.distance(row, self.ears, exact=True),
                text=row.text,
                transcript=str(self.ears.said(self.asr, row.converted)) if self.asr else None,
                accepted=voice,
            )
            for row, voice in zip(rows, accepted, strict=True)
        ]
        shapes = [self._shape(row) for row in rows]
        margins = [self.likeness.margin(pair, file) for pair, file in there]
        factors: list[float | None] = [None] * len(there)
        if system.seconds:
            factors = [
                s / p.source.duration
                for s, p, f in zip(system.seconds, self.pairs, system.files, strict=True)
                if f is not None
            ]
        found = [
            {**asdict(one), "mcd_c1": shape, "margin": margin, "rtf": factor}
            for one, shape, margin, factor in zip(judged, shapes, margins, factors, strict=True)
        ]
        by_id = {one["id"]: one for one in found}
        groups = {
            name: [i for i, (pair, _) in enumerate(there) if pair.genders == name]
            for name in GROUPS
        }
        values = (shapes, margins, factors)
        metrics = self._metrics(judged, values)
        if self.asv is not None and (eer := self.likeness.eer(there)) is not None:
            metrics["eer"] = eer
        self.ears.forget([file for _, file in there if file not in self.known])
        return Scored(
            metrics=metrics,
            by_genders={
                name: self._metrics(
                    [judged[i] for i in kept], [[one[i] for i in kept] for one in values]
                )
                for name, kept in groups.items()
                if kept
            },
            perplexity=perplexity(list(system.codes.values())),
            conversions=[by_id.get(pair.id, {"id": pair.id}) for pair in self.pairs],
        )

    def accuracy(self, files: Mapping[Path, Path]) -> dict[str, Interval]:
        """Return the judges' own errors on real speech, or on other files of the same recordings.

        Args:
            files: of each real recording, the file that is judged.

        Raises:
            BadAudioError, ValueError: audio that cannot be used.
        """
        paths = list(self.recordings)
        speakers = [str(self.recordings[path].speaker) for path in paths]
        out = {}
        if self.asr is not None:
            told = [p for p in paths if self.recordings[p].text]
            judged = [
                Judged(
                    id=self.recordings[p].id,
                    source=str(self.recordings[p].speaker),
                    target=str(self.recordings[p].speaker),
                    text=self.recordings[p].text,
                    transcript=str(self.ears.said(self.asr, files[p])),
                )
                for p in told
            ]
            if judged:
                out["cer"] = self._metrics(judged, ())["cer"]
        eer = self.likeness.own_eer([files[path] for path in paths], speakers)
        if eer is not None:
            out["eer"] = eer
        return out

    def _row(self, pair: Pair, file: Path, *, distances: bool) -> Row:
        text = pair.source.text
        return Row(
            id=pair.id,
            converted=file,
            source=str(pair.source.speaker),
            target=str(pair.target.speaker),
            reference=self.real.file(pair.target) if distances else None,
            text=text if text and plain_words(text) else None,
            source_audio=self.real.file(pair.source),
            transcript=None,
            f0_range=None,
        )

    def _shape(self, row: Row) -> float | None:
        """Return MCD without c(0), None where there is nothing to compare with."""
        if row.reference is None:
            return None
        f0_range = F0_RANGES.get(row.target, judge.FALLBACK)
        voices = (
            self.ears.voice(row.converted, f0_range),
            self.ears.voice(row.reference, f0_range),
        )
        return compare(*voices, with_c0=False).mcd

    def _metrics(
        self,
        judged: Sequence[Judged],
        values: Sequence[Sequence[float | None]],
    ) -> dict[str, Interval]:
        """Return ``mynah judge vc``'s scores, and those of values of our own, as far as there are.

        Args:
            judged: conversions.
            values: of each: MCD without c(0), margin, real-time factor; or nothing.
        """
        judges = Judges(
            recogniser=judge.name_of(self.args.asr) if self.args.asr else "",
            verifier=judge.name_of(self.args.asv) if self.args.asv else "",
            threshold=self.how.get("threshold"),
        )
        out = {}
        for metric, cells in columns(judged, judges):
            given = [(cell, (j.source, j.target)) for j in judged if (cell := cells(j)) is not None]
            if any(cell[1] != UNDEFINED for cell, _ in given):
                references, predictions = zip(*(cell for cell, _ in given), strict=True)
                speakers = [both for _, both in given]
                out[metric.name] = interval(metric, references, predictions, speakers)
        extra = (
            dataclasses.replace(mcd_metric(with_c0=False), name="mcd_c1"),
            _mean("margin", f"voice:{self.measure}|of:target-source", higher_is_better=True),
            _mean("rtf", "unit:cpu-s/s", higher_is_better=False),
        )
        for own, theirs in zip(extra, values, strict=False):
            known = [(j, as_text(v)) for j, v in zip(judged, theirs, strict=True) if v is not None]
            if known:
                both = [(j.source, j.target) for j, _ in known]
                out[own.name] = interval(own, [j.id for j, _ in known], [v for _, v in known], both)
        return out
