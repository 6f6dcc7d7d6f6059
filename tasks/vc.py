"""VC, voice conversion: what was said, in the voice of another speaker.

Official corpus: Voice Conversion Challenge 2020, task 1: four targets, and 25 sentences of each of
four sources that are converted to every one of them. A converter is a model that makes audio, not a
head: it is trained elsewhere, and what it made is scored here, from any system (``mynah judge vc
LIST.tsv``).

Scores, of conversions:

- ``mcd`` (dB), ``f0_rmse`` (Hz), ``f0_corr``, ``ddur`` (s): distances to the target's own recording of
  the sentence (``mynah.tasks.metrics.conversion``), of those conversions for which there is one;
- ``wer`` and ``cer`` of a recogniser's transcripts against what was said, over the whole list, both in
  upper case and without punctuation (apostrophes and hyphens included);
- ``accept``: the share that a speaker verification takes for the target: the cosine of the conversion
  and the target's recording of the sentence is above the threshold at the EER of *real trials*, the
  pairs of real recordings. Where there is no such recording, it is the share of the target's other
  recordings for which that holds.

``superb`` repeats s3prl's recipe (``downstream/a2o-vc-vcc2020``): alignment by ``fastdtw``; real trials
are all ordered pairs, those of a recording and itself included. F0 is looked for in the target's range
of s3prl's ``data/f0.yaml``. Not repeated: the recogniser (wav2vec2-large-960h-lv60-self) and the
verification (Resemblyzer, threshold 0.74056) are trained heads of ours or whatever is given, so that
the last three scores can be compared under one judge only; signatures name it. Nor is the choice of
a converter's checkpoint by the MCD of the test sentences themselves, which is the business of who
trains it.

``fixed`` differs in: the alignment is exact; a real trial is a pair of two recordings, once, because a
recording is like itself under any verification and the threshold rises for it.

MCD says nothing by itself: judge the unconverted sources and other recordings of the target in the
same way. Where F0 is not defined (nothing voiced) a conversion is left out of that score, which its
``n`` does not show but its signature does.

Shape suffixes: S samples, D width, N recordings.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mynah.tasks.core.contract import Data, DataError, Protocol, ProtocolName, Spec, Task
from mynah.tasks.core.splits import first_few
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.bootstrap import Interval, bootstrap
from mynah.tasks.metrics.conversion import (
    Conversion,
    duration_metric,
    f0_corr_metric,
    f0_rmse_metric,
    mcd_metric,
)
from mynah.tasks.metrics.detection import accept_rate
from mynah.tasks.metrics.error_rate import error_rate
from mynah.tasks.metrics.mean import UNDEFINED, as_text, mean_metric
from mynah.tasks.metrics.metric import Floats, Metric

SPEC = Spec(
    name="vc",
    problem="what was said, in the voice of another speaker",
    resolution="frame",
    labels=("role",),
    metric="mcd",
    higher_is_better=False,
    split_unit="sentence",
    version=1,
    licence="VCC 2020: ODbL 1.0 (recalled, not checked)",
    citation="Zhao et al. 2020, doi:10.21437/VCC_BC.2020-14; S3PRL-VC: arXiv:2110.06280",
)

F0_RANGES = {
    "TEF1": (127.0, 405.0),
    "TEF2": (108.0, 361.0),
    "TEM1": (71.0, 227.0),
    "TEM2": (57.0, 182.0),
}
"""Hz, of the targets of VCC 2020's task 1, as s3prl has them."""

ELSEWHERE = (
    "a voice converter is not a head that a probe trains: train it elsewhere, convert the test "
    "sentences, and score them with 'mynah judge vc LIST.tsv'"
)


def plain_words(text: str) -> str:
    """Return a text in upper case without punctuation, single spaces between words."""
    kept = (c for c in text.upper() if not unicodedata.category(c).startswith("P"))
    return " ".join("".join(kept).split())


def cosines(vector_D: ArrayLike, others_ND: Sequence[ArrayLike]) -> Floats:
    """Return the cosine of an embedding and each of others, (N,).

    Raises:
        ValueError: an embedding that is zero or not finite.
    """
    rows_ND = np.asarray([vector_D, *others_ND], dtype=np.float64)
    norms_N = np.linalg.norm(rows_ND, axis=1)
    if not (np.isfinite(norms_N).all() and (norms_N > 0).all()):
        raise ValueError("an embedding is zero or not finite: it has no direction to compare")
    found: Floats = (rows_ND[1:] @ rows_ND[0]) / (norms_N[1:] * norms_N[0])
    return found


def real_trials(
    vectors_ND: Sequence[ArrayLike], speakers: Sequence[str], protocol: ProtocolName = "fixed"
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the score of every pair of real recordings, and whether it is of one speaker.

    Args:
        vectors_ND: embedding of each recording.
        speakers: its speaker.
        protocol: ``fixed``: each pair of two once; ``superb``: both ways, and each with itself.

    Raises:
        DataError: no speaker has two recordings, or there is only one speaker.
    """
    counts = Counter(speakers)
    if len(counts) < 2 or max(counts.values()) < 2:
        raise DataError(
            "real trials need two recordings of one speaker and one of another, there are "
            + (first_few(f"{n} of {name}" for name, n in counts.items()) or "none")
        )
    scores_NN = np.stack([cosines(vector, vectors_ND) for vector in vectors_ND])
    names_N = np.asarray(speakers)
    targets_NN = names_N[:, None] == names_N[None]
    first = 1 if protocol == "fixed" else -len(names_N)
    kept = np.triu(np.ones_like(targets_NN), k=first)
    return scores_NN[kept], targets_NN[kept]


def acceptance(vector_D: ArrayLike, real_ND: Sequence[ArrayLike], threshold: float) -> float:
    """Return the share of the target's recordings that a conversion is taken to share a voice with.

    Args:
        vector_D: embedding of the conversion.
        real_ND: embeddings of the target's recording of the sentence, or of all its others.
        threshold: that a cosine must exceed.

    Raises:
        ValueError: no recording, or an embedding that is zero or not finite.
    """
    return accept_rate(cosines(vector_D, real_ND) if len(real_ND) else [], threshold)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What was found of one conversion; None where it was not asked or cannot be known.

    Attributes:
        id: unique.
        source: speaker that was converted.
        target: speaker that it should sound like.
        distance: to the target's own recording.
        text: what was said.
        transcript: what a recogniser heard.
        accepted: as :func:`acceptance` says.
    """

    id: str
    source: str
    target: str
    distance: Conversion | None = None
    text: str | None = None
    transcript: str | None = None
    accepted: float | None = None


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Who judged, for signatures.

    Attributes:
        protocol: ``fixed`` or ``superb``.
        recogniser: of ``wer`` and ``cer``.
        verifier: of ``accept``.
        threshold: likewise.
    """

    protocol: ProtocolName = "fixed"
    recogniser: str = ""
    verifier: str = ""
    threshold: float | None = None


def scores(judged: Sequence[Judged], judges: Judges) -> dict[str, Interval]:
    """Return each score that the conversions define, with its interval by source speaker.

    Raises:
        DataError: no conversions, two of one id, or a text without a word.
    """
    out = {}
    for metric, cells in columns(judged, judges):
        rows = [(j.source, *cell) for j in judged if (cell := cells(j)) is not None]
        if all(prediction == UNDEFINED for _, _, prediction in rows):
            continue
        units, references, predictions = zip(*rows, strict=True)
        out[metric.name] = bootstrap(metric, references, predictions, units, unit="source speaker")
    return out


def by_target(judged: Sequence[Judged], judges: Judges) -> dict[str, dict[str, float]]:
    """Return target -> score -> value.

    Raises:
        DataError: as :func:`scores`.
    """
    found = columns(judged, judges)
    out: dict[str, dict[str, float]] = {}
    for target in sorted({j.target for j in judged}):
        out[target] = {}
        for metric, cells in found:
            rows = [cell for j in judged if j.target == target and (cell := cells(j)) is not None]
            if any(prediction != UNDEFINED for _, prediction in rows):
                references, predictions = zip(*rows, strict=True)
                out[target][metric.name] = metric.score(references, predictions)
    return out


Cells = Callable[[Judged], tuple[str, str] | None]


def columns(judged: Sequence[Judged], judges: Judges) -> list[tuple[Metric, Cells]]:
    """Return every metric, and what its reference and prediction of a conversion are, if any.

    Raises:
        DataError: see :func:`scores`.
    """
    if not judged:
        raise DataError("there are no conversions to score")
    twice = sorted(name for name, n in Counter(j.id for j in judged).items() if n > 1)
    if twice:
        raise DataError(f"conversions must have ids of their own, given twice: {first_few(twice)}")
    mute = [j.id for j in judged if j.text is not None and not plain_words(j.text)]
    if mute:
        raise DataError(f"what was said has no words: {first_few(mute)}")
    exact = judges.protocol == "fixed"

    def distance(pick: Callable[[Conversion], float | None]) -> Cells:
        return lambda j: None if j.distance is None else (j.id, as_text(pick(j.distance)))

    def words(j: Judged) -> tuple[str, str] | None:
        if j.text is None or j.transcript is None:
            return None
        return plain_words(j.text), plain_words(j.transcript)

    def accepted(j: Judged) -> tuple[str, str] | None:
        return None if j.accepted is None else (j.id, as_text(j.accepted))

    threshold = "none" if judges.threshold is None else f"{judges.threshold:.6g}"
    accept = mean_metric(
        "accept",
        higher_is_better=True,
        options=f"asv:{judges.verifier}|threshold:{threshold}",
        scale=100.0,
    )
    norm = "upper,no-punctuation"
    return [
        (mcd_metric(exact=exact), distance(lambda c: c.mcd)),
        (f0_rmse_metric(exact=exact), distance(lambda c: c.f0_rmse)),
        (f0_corr_metric(exact=exact), distance(lambda c: c.f0_corr)),
        (duration_metric(), distance(lambda c: c.duration_difference)),
        (_by(error_rate("word", norm=norm), judges.recogniser), words),
        (_by(error_rate("char", norm=norm), judges.recogniser), words),
        (accept, accepted),
    ]


def _by(metric: Metric, recogniser: str) -> Metric:
    signature = metric.signature.replace("|v1", f"|asr:{recogniser}|v1")
    return dataclasses.replace(metric, signature=signature)


class VoiceConversion(Task):
    """Voice conversion: its facts, and why a probe cannot train it."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = dict.fromkeys(
        ("fixed", "superb"),
        Protocol(batch_size=1, accumulate=1, clip=1.0, steps=0, eval_every=1, learning_rates=()),
    )
    PROBED = False
    TRAINED = False

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Refuse.

        Raises:
            DataError: always; it says what to do instead.
        """
        raise DataError(ELSEWHERE)

    def head(self, dim: int) -> nn.Module:
        """Refuse: there is no head.

        Raises:
            DataError: always.
        """
        raise DataError(ELSEWHERE)

    def losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Refuse: there is no head.

        Raises:
            DataError: always.
        """
        raise DataError(ELSEWHERE)

    def decode(
        self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> Sequence[str]:
        """Refuse: there is no head.

        Raises:
            DataError: always.
        """
        raise DataError(ELSEWHERE)

    def reference(self, utterance: Utterance) -> str:
        """Return the sentence, by which sources and targets are compared."""
        return utterance.label("parallel") or ""

    def metrics(self) -> tuple[Metric, ...]:
        """Return every score, without the names of judges."""
        nobody = [Judged(id="", source="", target="")]
        judges = Judges(protocol=self.protocol_name)
        return tuple(metric for metric, _ in columns(nobody, judges))


TASK = VoiceConversion
