"""Scores of converters on the same pairs, as ``mynah judge vc`` computes them, with what it has not.

Beside its scores there are here

- ``mcd_c1``: MCD without c(0), the level: converted speech is as loud as its source, and the target's
  recording may have been made at another level, which is nothing of a voice;
- ``eer``: of a verification that is to tell the target's recordings from conversions: trials of one
  speaker are pairs of real recordings of the target, trials of two are a conversion and a real
  recording. 50 % cannot be told apart (Baas et al. 2023, arXiv:2305.18975);
- ``margin``: cosine to the target's recordings minus cosine to the source's. Of the verification's
  embeddings; without one, of the mean and deviation over loud frames of mel-cepstra c(1) to c(24),
  in deviations of the real recordings. That is no model of a speaker, but none that converters
  learnt from either. Recordings that a conversion was made of do not take part;
- ``rtf``: CPU seconds per second of the source, the measuring of references included.

Shape suffixes: n recordings, D width of a voice's vector, T frames, M coefficients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mynah.recipes import judge
from mynah.recipes.conversion.pair_intervals import Speakers, interval
from mynah.recipes.conversion.pairs import Pair
from mynah.recipes.conversion.systems import RATE, Recordings, System
from mynah.recipes.conversion_list import Row
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics import detection
from mynah.tasks.metrics.bootstrap import Interval
from mynah.tasks.metrics.conversion import GATE, Voice, compare, mcd_metric
from mynah.tasks.metrics.mean import UNDEFINED, as_text, mean_metric
from mynah.tasks.metrics.metric import Floats, Metric
from mynah.tasks.vc import (
    F0_RANGES,
    Judged,
    Judges,
    columns,
    cosines,
    plain_words,
    real_trials,
)

COEFFICIENTS = 24
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


class Ears(judge.Ears):
    """As :class:`mynah.recipes.judge.Ears`; analyses of everything are kept until forgotten."""

    def __init__(self, rate: int | None) -> None:
        super().__init__(rate)
        self._voices: dict[tuple[Path, tuple[float, float]], Voice] = {}

    def voice(self, path: Path, f0_range: tuple[float, float]) -> Voice:
        """Return the analysis of a file.

        Raises:
            BadAudioError: it cannot be read or analysed.
        """
        key = (path, f0_range)
        if key not in self._voices:
            self._voices[key] = super().voice(path, f0_range)
        return self._voices[key]

    def forget(self, files: Sequence[Path]) -> None:
        """Drop analyses of files that nobody asks of again."""
        gone = set(files)
        self._voices = {key: v for key, v in self._voices.items() if key[0] not in gone}


class Panel:
    """Judges of every system on the same pairs.

    Args:
        pairs: that were converted.
        real: their recordings.
        rate: Hz at which distances are measured.
        witnesses: further recordings of the same speakers, for margin and EER.
        asr: trained head that writes words, or None.
        asv: trained head of speaker verification, or None.

    Raises:
        FileNotFoundError, LookupError, ValueError: heads or upstreams that cannot be.
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
        self.ears = Ears(rate)
        self.how: dict[str, Any] = {}
        self.recordings = {
            real.file(u): u for pair in pairs for u in (pair.source, pair.target)
        }  # each once
        self.known = {**self.recordings, **{real.file(u): u for u in witnesses}}
        self.measure = judge.name_of(asv) if asv else f"mel-cepstra-{COEFFICIENTS}"
        self._scale: tuple[Floats, Floats] | None = None

    def score(self, system: System) -> Scored:
        """Score what a system made.

        Raises:
            DataError: too few real recordings for a threshold, or a text without a word.
            BadAudioError, ValueError: audio that cannot be used.
        """
        there = [(p, f) for p, f in zip(self.pairs, system.files, strict=True) if f is not None]
        rows = [self._row(pair, file, distances=not system.itself) for pair, file in there]
        accepted: list[float | None] = [None] * len(rows)
        if self.asv is not None and not system.itself:
            accepted, self.how = judge.accepted(self.args, rows, self.asv, self.ears)
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
        margins = [self._margin(pair, file) for pair, file in there]
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
        if self.asv is not None and (eer := self._eer(there)) is not None:
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
        vectors = [self.vector(files[path]) for path in paths]
        repeated = len(set(speakers)) < len(speakers)
        if repeated and len(set(speakers)) > 1:
            scores, targets = real_trials(vectors, speakers)
            first, second = np.triu_indices(len(paths), k=1)
            out["eer"] = interval(
                detection.eer(),
                [detection.TARGET if t else detection.NONTARGET for t in targets],
                [repr(float(s)) for s in scores],
                [(speakers[i], speakers[j]) for i, j in zip(first, second, strict=True)],
            )
        return out

    def vector(self, path: Path) -> Floats:
        """Return the voice (D,) of a file, as the verification or mel-cepstra know it.

        Raises:
            BadAudioError, ValueError: audio that cannot be used.
        """
        if self.asv is not None:
            return np.asarray(self.ears.said(self.asv, path), dtype=np.float64)
        if self._scale is None:
            all_nD = np.stack([self._plain(one) for one in self.known])
            self._scale = all_nD.mean(0), np.maximum(all_nD.std(0), 1e-6)
        centre_D, spread_D = self._scale
        scaled: Floats = (self._plain(path) - centre_D) / spread_D
        return scaled

    def _plain(self, path: Path) -> Floats:
        voice = self.ears.voice(path, judge.FALLBACK)
        loud_TM = voice.cepstra_TM[voice.power_T > GATE, 1 : COEFFICIENTS + 1]
        return np.concatenate([loud_TM.mean(0), loud_TM.std(0)])

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

    def _of(self, speaker: str | None, but: Sequence[Path]) -> list[Floats]:
        """Return the voices of a speaker's real recordings, without some."""
        return [
            self.vector(path)
            for path, u in self.known.items()
            if u.speaker == speaker and path not in but
        ]

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

    def _margin(self, pair: Pair, file: Path) -> float | None:
        """Return how much nearer a conversion is to its target than to its source."""
        heard = [self.real.file(u) for u in (pair.source, *pair.references, *pair.own)]
        but = [*heard, file]
        target, source = (self._of(u.speaker, but) for u in (pair.target, pair.source))
        if not target or not source:
            return None
        vector = self.vector(file)
        return float(cosines(vector, target).mean() - cosines(vector, source).mean())

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

    def _eer(self, there: Sequence[tuple[Pair, Path]]) -> Interval | None:
        """Return how badly conversions are told from the target's recordings, None without trials."""
        labels: list[str] = []
        scores: list[float] = []
        speakers: list[Speakers] = []
        for name in sorted({str(pair.target.speaker) for pair, _ in there}):
            own = self._of(name, ())
            for place, vector in enumerate(own[:-1]):
                found = cosines(vector, own[place + 1 :])
                labels += [detection.TARGET] * len(found)
                scores += found.tolist()
                speakers += [(name, name)] * len(found)
        if not labels:
            return None
        for pair, file in there:
            real = self._of(pair.target.speaker, (file,))
            if not real:
                continue
            found = cosines(self.vector(file), real)
            labels += [detection.NONTARGET] * len(found)
            scores += found.tolist()
            speakers += [(str(pair.source.speaker), str(pair.target.speaker))] * len(found)
        if detection.NONTARGET not in labels:
            return None
        return interval(detection.eer(), labels, [repr(s) for s in scores], speakers)
