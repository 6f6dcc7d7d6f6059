"""SE, speech enhancement: the speech of a noisy recording without the noise.

Official corpus: VoiceBank-DEMAND, 28 speakers, 16 kHz; dev are the speakers p226 and p287 of its
training set, test has 824 utterances (``mynah prepare voicebank_demand``; ``mynah mix enhancement``
makes noisy copies of any corpus). Label: ``clean``, path of the clean recording, with the rate and
length of the noisy one. Splits share no speaker. PESQ and STOI come with the extra ``audio``; PESQ
is of 16 kHz, and of 0.25 to 19 s, so dev and test utterances must be.

The head, frames of the transform and the loss are those of :mod:`mynah.tasks.core.masking`.

``superb`` repeats s3prl's first recipe (``downstream/enhancement_stft``, read in version 0.4.18):

- window of 512 samples, hop of the upstream's stride, zeros beyond the ends of a signal (as librosa
  has it since 0.10; before, ends were mirrored); 3 bidirectional LSTM layers of 896 units,
  dropout 0.5, ReLU masks; squares of masked magnitude less NPSM;
- a private AdamW without weight decay whose eps is 1e-7 in the code (1e-6 in its text; it is added
  before the bias is corrected, in torch's after), batches of 8, gradients clipped at 1, 150 000
  updates, dev every 1 250; the checkpoint with the best PESQ on all of dev is chosen;
- the inverse transform divides by the sum of squared windows as it is, which gives bursts at the ends
  of signals; those louder than all before are set to zero.

``fixed`` is like s3prl's second recipe (``enhancement_stft2``), whose author found that the ReLU mask
on magnitudes was the wrong choice: models differ by less than 0.2 PESQ with it. It differs in:

- sigmoid masks on ``log1p`` of the magnitude and absolute differences from that of the clean one,
  whose phase plays no part: close to loudness, where squares of magnitudes hear the loudest bins only;
- 256 units and dropout 0.1: a tenth of the parameters. (The second recipe's window of 400 samples and
  its hop of 160 for all upstreams are not taken: the hop stays the upstream's stride, and the window
  is 1024 samples where two hops do not fit into 512, as at a stride of 320.)
- ends of signals fade out, nothing is set to zero;
- PESQ on dev is of at most 100 utterances, the same ones always, since it costs more than all the
  rest of an evaluation; every utterance is seen once per epoch, in batches of 8 of like duration;
  training stops when dev no longer improves, at most 20 000 updates; ties on dev are told apart by
  dev loss.

Small head: 1 bidirectional LSTM layer of 128 units.

Score: PESQ (wide band), STOI (not extended) and the improvement of SI-SDR, means over utterances.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from typing import ClassVar

from mynah.tasks.core.contract import Data, DataError, Facts, Spec
from mynah.tasks.core.masking import FIXED, SUPERB, Masking, Scores, Wave, separated
from mynah.tasks.core.sources import check_sources
from mynah.tasks.core.splits import (
    check_disjoint,
    first_few,
    given_or_made,
    labelled,
    speaker_unit,
)
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.extra import missing
from mynah.tasks.metrics.mean import of_field
from mynah.tasks.metrics.metric import Metric
from mynah.tasks.metrics.separation import si_sdri_metric
from mynah.tasks.metrics.speech_quality import (
    PESQ_LONGEST,
    PESQ_RATE,
    PESQ_SHORTEST,
    pesq,
    pesq_metric,
    stoi,
    stoi_metric,
)

SPEC = Spec(
    name="se",
    problem="the speech of a noisy recording without the noise",
    resolution="frame",
    labels=("clean",),
    metric="pesq",
    higher_is_better=True,
    split_unit="speaker",
    version=1,
    licence="VoiceBank-DEMAND: CC-BY 4.0",
    citation="Valentini-Botinhao 2017, doi:10.7488/ds/2117; SUPERB-SG: arXiv:2203.06849",
)

CLEAN = "clean"
PACKAGES = {"PESQ": "pesq", "STOI": "pystoi"}


class Enhancement(Masking):
    """Speech enhancement under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": FIXED,
        "superb": dataclasses.replace(SUPERB, eval_every=1_250),
    }
    DISTANCE = "absolute"
    DEV_AT_MOST = 100
    PHASE = False

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split by speaker and check; see :meth:`~mynah.tasks.core.contract.Task.load`.

        Raises:
            DataError: as above, or a clean recording is missing or of another length, or PESQ cannot
                score an utterance of dev or test.
            ValueError: the packages that compute PESQ and STOI are not installed.
        """
        for what, package in PACKAGES.items():
            if importlib.util.find_spec(package) is None:
                raise missing(what, package)
        kept = labelled(utterances, lambda u: u.label(CLEAN), task="se", name=CLEAN)
        check_sources(kept, (CLEAN,))
        unit, unit_name = speaker_unit(kept)
        parts, note = given_or_made(
            kept, unit, unit_name=unit_name, seed=seed, take_given=self.splits == "corpus"
        )
        check_disjoint(parts, unit, unit_name=unit_name)
        wrong = [
            f"{u.id} ({u.duration:.2f} s)"
            for u in (*parts["dev"], *parts["test"])
            if not PESQ_SHORTEST <= u.duration <= PESQ_LONGEST
        ]
        if wrong:
            raise DataError(
                f"PESQ can score {PESQ_SHORTEST} to {PESQ_LONGEST:g} s; dev and test have "
                f"{first_few(wrong)}: leave them out of the corpus, or cut them"
            )
        return self.split_up(parts, sources=(CLEAN,), notes=[note], named="utterances")

    def bind(self, facts: Facts) -> None:
        """Take the upstream's stride and rate.

        Raises:
            DataError: another rate than PESQ's, or a stride that cannot be a hop.
        """
        if facts.sample_rate != PESQ_RATE:
            raise DataError(f"PESQ is of {PESQ_RATE} Hz, this upstream of {facts.sample_rate}")
        super().bind(facts)

    def measured(
        self, estimates: Wave, references: Sequence[Wave], mixture: Wave, wanted: Sequence[str]
    ) -> Scores:
        """Return PESQ, STOI and the improvement of SI-SDR, those that are wanted."""
        (estimate,), (clean,) = estimates, references
        rate = self.facts.sample_rate
        values: dict[str, float | None] = {}
        if "pesq" in wanted:
            values["pesq"] = scored(
                lambda x: pesq(x, clean, sample_rate=rate), estimate, clean, 1.0
            )
        if "stoi" in wanted:
            values["stoi"] = scored(
                lambda x: stoi(x, clean, sample_rate=rate), estimate, clean, 0.0
            )
        if "si_sdri" in wanted:
            found = separated(estimates, references, mixture)
            values["si_sdri"] = None if found is None else found.si_sdri
        return values

    def metrics(self) -> tuple[Metric, ...]:
        """Return PESQ, STOI and the improvement of SI-SDR."""
        return (
            of_field(pesq_metric(skip_undefined=True)),
            of_field(stoi_metric(skip_undefined=True)),
            of_field(si_sdri_metric(skip_undefined=True)),
        )


def scored(
    measure: Callable[[Wave], float], estimate: Wave, reference: Wave, lowest: float
) -> float | None:
    """Return a measure of an estimate, None where it is not defined even for the reference itself.

    Args:
        measure: raises ValueError where it is not defined.
        estimate: (samples,).
        reference: likewise.
        lowest: of an estimate that it cannot score: one of silence.
    """
    try:
        return measure(estimate)
    except ValueError:
        try:
            measure(reference)
        except ValueError:
            return None
        return lowest


TASK = Enhancement
