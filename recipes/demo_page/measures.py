"""What is measured of one conversion: whose voice it is near, its pitch, what words are left.

With a trained head of speaker verification, nearness is the cosine of embeddings. Without one it is a
distance of long-term spectra, named as what it is: a converter that only equalises does well by it.

Shape suffixes: T frames, M mel bins, S samples, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mynah.recipes.listening import Listener
    from mynah.tasks.corpora.utterance import Utterance

SPEECH = 40.0
"""dB below the loudest frame at which a frame still counts as speech."""
HEARD = 5
"""Recordings of a voice that the verification hears."""
UNITS = {"per": "phone", "wer": "char", "cer": "char"}
"""Metric of a head -> what is counted of what it writes."""


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """How near a recording is to the target and to the source.

    Attributes:
        target: to the target.
        source: to the source.
        verified: cosines of embeddings, higher is nearer; else dB, lower is nearer.
    """

    target: float
    source: float
    verified: bool

    @property
    def leaks(self) -> bool:
        """Whether it is nearer to the source than to the target."""
        return (self.source - self.target) * (1 if self.verified else -1) > 0


@dataclass(frozen=True, kw_only=True)
class Errors:
    """What a recogniser makes of a recording.

    Attributes:
        rate: errors per unit of the reference.
        unit: ``phone`` or ``char``.
        heard: what it wrote.
        given: whether the reference is a text that was given, else what it wrote of the source.
    """

    rate: float
    unit: str
    heard: str
    given: bool


def spectral_distance(one_TM: NDArray[Any], other_TM: NDArray[Any]) -> float:
    """Return the distance of two recordings' log-mel statistics, in dB.

    It is the 2-Wasserstein distance of two Gaussians with diagonal covariance, as a root mean over mel
    bins: ``sqrt(mean((m1 - m2)^2 + (s1 - s2)^2))``, over the frames that hold speech; the level of a
    recording plays no part.

    Args:
        one_TM: natural-log mel spectrogram (of magnitudes).
        other_TM: likewise.
    """
    (mean_M, spread_M), (mean2_M, spread2_M) = _statistics(one_TM), _statistics(other_TM)
    return math.sqrt(float(np.mean((mean_M - mean2_M) ** 2 + (spread_M - spread2_M) ** 2)))


def _statistics(mel_TM: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    decibel_TM = np.asarray(mel_TM, dtype=np.float64) * (20 / math.log(10))
    loud_T = decibel_TM.max(axis=1)
    speech_TM = decibel_TM[loud_T >= loud_T.max() - SPEECH]
    mean_M = speech_TM.mean(axis=0)
    return mean_M - mean_M.mean(), speech_TM.std(axis=0)


def median_f0(f0_T: NDArray[Any]) -> float | None:
    """Return the median of an F0 curve in Hz, None where nothing is voiced."""
    voiced = np.asarray(f0_T)[np.asarray(f0_T) > 0]
    return float(np.median(voiced)) if len(voiced) else None


def semitones(hertz: float | None, reference: float | None) -> float | None:
    """Return how far a frequency is above another, None where one of them is not known."""
    return None if hertz is None or reference is None else 12 * math.log2(hertz / reference)


@dataclass(kw_only=True)
class Ears:
    """Trained heads that listen to conversions, where there are any.

    Attributes:
        asr: writes phones or characters.
        asv: compares speakers.
    """

    asr: Listener | None = None
    asv: Listener | None = None
    _kept: dict[tuple[str, float], NDArray[np.float64]] = field(default_factory=dict, repr=False)

    def nearness(self, made: Path, target: Sequence[Utterance], source: Path) -> Nearness | None:
        """Return cosines of a conversion with its target's recordings (their mean) and its source.

        None without a head of speaker verification.

        Raises:
            BadAudioError, ValueError: audio that the head cannot use.
        """
        from mynah.tasks.vc import cosines

        if self.asv is None:
            return None
        vectors = [self._embedding(u) for u in target[:HEARD]]
        made_D = self._embedding(_whole(made))
        return Nearness(
            target=float(np.mean(cosines(made_D, vectors))),
            source=float(cosines(made_D, [self._embedding(_whole(source))])[0]),
            verified=True,
        )

    def _embedding(self, u: Utterance) -> NDArray[np.float64]:
        assert self.asv is not None
        key = (u.path, u.start)
        if key not in self._kept:
            found = np.asarray(self.asv.decoded(u), dtype=np.float64)
            if not u.id.startswith(OURS):
                self._kept[key] = found
            return found
        return self._kept[key]

    def errors(self, made: Path, source: Path, said: str) -> Errors | None:
        """Return the error rate of what is heard of a conversion.

        Args:
            made: the conversion.
            source: what was converted.
            said: what is said in it, in the head's units; empty where that is not known, and then
                what the head writes of the source is the reference.

        None without a head that writes, and where nothing is heard of a source without a text.

        Raises:
            BadAudioError, ValueError: audio that the head cannot use.
        """
        from mynah.tasks.metrics.error_rate import error_rate
        from mynah.tasks.vc import plain_words

        if self.asr is None:
            return None
        unit = self.unit
        plain = str if unit == "phone" else plain_words
        heard = plain(str(self.asr.decoded(_whole(made))))
        reference = plain(said or str(self.asr.decoded(_whole(source))))
        if not reference:
            return None
        metric = error_rate("phone" if unit == "phone" else "char")
        return Errors(
            rate=metric.score([reference], [heard]), unit=unit, heard=heard, given=bool(said)
        )

    @property
    def unit(self) -> str:
        """What the head that writes is scored in: ``phone`` or ``char``; empty without one."""
        return "" if self.asr is None else UNITS[self.asr.task.SPEC.metric]


OURS = "page:"


def _whole(path: Path) -> Utterance:
    from mynah.recipes.listening import utterance_of

    return utterance_of(path, name=f"{OURS}{path.name}")


def open_ears(asr: Path | None, asv: Path | None, *, upstream: str | None, device: str) -> Ears:
    """Open the heads that listen.

    Raises:
        FileNotFoundError, ValueError: no such head or upstream, or a head of another kind.
    """
    from mynah.recipes.listening import open_listener

    ears = Ears()
    if asr is not None:
        ears.asr = open_listener(asr, upstream=upstream, device=device)
        if ears.asr.task.SPEC.metric not in UNITS:
            raise ValueError(
                f"{asr} is a head of {ears.asr.card.task}: --asr needs one that writes phones or "
                f"letters, scored by {', '.join(UNITS)}"
            )
    if asv is not None:
        ears.asv = open_listener(asv, upstream=upstream, device=device, beside=ears.asr)
        if ears.asv.task.SPEC.metric != "eer":
            raise ValueError(
                f"{asv} is a head of {ears.asv.card.task}: --asv needs one of speaker verification"
            )
    return ears
