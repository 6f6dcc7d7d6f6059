"""Judges of converters on the same pairs: words or phones, voices, distances, pitch.

What the scores are is said in ``method_lines``; ``eer`` is of all conversions together, see
``likeness``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mynah.recipes import judge
from mynah.recipes.conversion.likeness import COEFFICIENTS, Likeness
from mynah.recipes.conversion.melody import Melody, range_of
from mynah.recipes.conversion.method_lines import Line, Scorer
from mynah.recipes.conversion.pairs import Pair
from mynah.recipes.conversion.recogniser import METRICS, Recogniser
from mynah.recipes.conversion.systems import RATE, Recordings, System
from mynah.recipes.conversion_list import Row
from mynah.recipes.ears import Ears
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.bootstrap import Interval
from mynah.tasks.metrics.conversion import Conversion, compare
from mynah.tasks.vc import Judged, Judges, plain_words

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


class Panel:
    """Judges of every system on the same pairs.

    Args:
        pairs: that were converted.
        real: their recordings.
        rate: Hz at which distances are measured.
        witnesses: further recordings of the same speakers, for margin and EER.
        tried: those of them on which the judges are tried, beside the recordings of pairs.
        asr: trained head that writes words or phones, or None.
        asv: trained head of speaker verification, or None. Its threshold is that at the EER of the
            pairs' recordings and of ``tried``, one for all systems.

    Raises:
        FileNotFoundError, LookupError, ValueError: heads or upstreams that cannot be.
        DataError: too few recordings for a threshold, or nothing that the recogniser could be
            compared with.
        BadAudioError: a recording that cannot be heard.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        real: Recordings,
        *,
        rate: int = RATE,
        witnesses: Sequence[Utterance] = (),
        tried: Sequence[Utterance] = (),
        asr: Path | None = None,
        asv: Path | None = None,
    ) -> None:
        self.pairs, self.real = pairs, real
        self.parallel = all(pair.parallel for pair in pairs)
        nowhere = Path()  # judge's arguments name files that are not asked for here
        self.args = judge.Args(what="vc", list=nowhere, out=nowhere, asr=asr, asv=asv, rate=rate)
        self.ears = Ears(rate)
        listener = judge.open_judge(self.args, asr, METRICS, None, "--asr")
        self.asr = Recogniser(asr, listener, self.ears) if asr and listener else None
        if self.asr is not None:
            self.asr.check([pair.source for pair in pairs])
        self.asv = judge.open_judge(self.args, asv, ("eer",), listener, "--asv")
        self.how: dict[str, Any] = {}
        both = [u for pair in pairs for u in (pair.source, pair.target)]
        self.recordings = {real.file(u): u for u in (*both, *tried)}  # each once
        self.known = {**self.recordings, **{real.file(u): u for u in witnesses}}
        if self.asv is not None:
            vectors = [np.asarray(self.ears.said(self.asv, path)) for path in self.recordings]
            names = [str(u.speaker) for u in self.recordings.values()]
            self.how = judge.threshold_of(vectors, names, self.args.protocol)
            self.args = dataclasses.replace(self.args, threshold=self.how["threshold"])
        self.measure = judge.name_of(asv) if asv else f"mel-cepstra-{COEFFICIENTS}"
        self.likeness = Likeness(self.ears, real, self.known, self.asv)
        self.melody = Melody(self.ears, real)
        words = self.asr is not None and self.asr.writes == "words"
        self.metrics = Scorer(
            judges=Judges(
                recogniser=judge.name_of(asr) if asr and words else "",
                verifier=judge.name_of(asv) if asv else "",
                threshold=self.how.get("threshold"),
            ),
            voice=self.measure,
            phones=self.asr.phone_errors() if self.asr and not words else None,
        )

    def score(self, system: System) -> Scored:
        """Score what a system made.

        Raises:
            BadAudioError, DataError, ValueError: audio that cannot be used.
        """
        there: list[tuple[Pair, Path]] = []
        lines: list[Line] = []
        for place, (pair, file) in enumerate(zip(self.pairs, system.files, strict=True)):
            if file is None:
                continue
            there.append((pair, file))
            said = (system.said[place] if system.said else None) or pair.source
            row = self._row(pair, file, distances=self.parallel and not system.itself)
            seconds = system.seconds[place] if system.seconds else None
            values = {
                "mcd_c1": self._shape(row, pair),
                "f0_corr_source": None if system.said else self.melody.kept(pair, file),
                "f0_off": self.melody.off(pair, file),
                "margin": self.likeness.margin(pair, file),
                "rtf": None if seconds is None else seconds / said.duration,
            }
            judged = self._judged(
                pair.id,
                said,
                file,
                speakers=(row.source, row.target),
                distance=judge.distance(row, self.ears, exact=True),
                accepted=self._accepted(pair, file),
            )
            phones = self.asr.phones(said, file) if self.asr else None
            lines.append(Line(judged=judged, values=values, phones=phones))
        metrics = self.metrics(lines)
        if self.asv is not None and (eer := self.likeness.eer(there)) is not None:
            metrics["eer"] = eer
        heard = [self.real.file(u) for pair in self.pairs for u in pair.references]
        gone = [file for file in (*(made for _, made in there), *heard) if file not in self.known]
        self.ears.forget(gone)
        groups = {
            name: [
                line for line, (pair, _) in zip(lines, there, strict=True) if pair.genders == name
            ]
            for name in GROUPS
        }
        by_id = {line.judged.id: line.as_row() for line in lines}
        return Scored(
            metrics=metrics,
            by_genders={name: self.metrics(kept) for name, kept in groups.items() if kept},
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
        out = {}
        speakers = [str(u.speaker) for u in self.recordings.values()]
        if self.asr is not None:
            lines = [
                Line(
                    judged=self._judged(u.id, u, files[path], speakers=(speaker, speaker)),
                    phones=self.asr.phones(u, files[path]),
                )
                for (path, u), speaker in zip(self.recordings.items(), speakers, strict=True)
                if self.asr.reference(u) is not None
            ]
            found = self.metrics(lines) if lines else {}
            out = {name: one for name, one in found.items() if name in ("cer", "per")}
        eer = self.likeness.own_eer([files[path] for path in self.recordings], speakers)
        if eer is not None:
            out["eer"] = eer
        return out

    def _row(self, pair: Pair, file: Path, *, distances: bool) -> Row:
        return Row(
            id=pair.id,
            converted=file,
            source=str(pair.source.speaker),
            target=str(pair.target.speaker),
            reference=self.real.file(pair.target) if distances else None,
            text=None,  # what is said may not be the source's words
            source_audio=self.real.file(pair.source),
            transcript=None,
            f0_range=None,
        )

    def _judged(
        self,
        name: str,
        said: Utterance,
        file: Path,
        *,
        speakers: tuple[str, str],
        distance: Conversion | None = None,
        accepted: float | None = None,
    ) -> Judged:
        text = said.text
        return Judged(
            id=name,
            source=speakers[0],
            target=speakers[1],
            distance=distance,
            text=text if text and plain_words(text) else None,
            transcript=self.asr.transcript(file) if self.asr else None,
            accepted=accepted,
        )

    def _accepted(self, pair: Pair, file: Path) -> float | None:
        """Return acceptance by the target's recordings that no converter heard."""
        if self.asv is None:
            return None
        return self.likeness.accepted(pair, file, self.how["threshold"])

    def _shape(self, row: Row, pair: Pair) -> float | None:
        """Return MCD without c(0), None where there is nothing to compare with."""
        if row.reference is None:
            return None
        voices = [self.ears.voice(path, range_of(pair)) for path in (row.converted, row.reference)]
        return compare(*voices, with_c0=False).mcd
