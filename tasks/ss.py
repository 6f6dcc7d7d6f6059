"""SS, speech separation: the speakers of a mixture, each by itself.

Official corpus: Libri2Mix, 16 kHz, ``min``, without noise: 13 900 training mixtures, 1 000 of dev
(SUPERB's subset), 3 000 of test (``mynah prepare librimix --variant ss``; ``mynah mix separation``
makes mixtures of any corpus). Labels: ``s1``, ``s2`` (... ``s4`` where every mixture has as many),
paths of the sources, with the rate and length of the mixture. Splits share no speaker where mixtures
say who speaks (labels ``s1_speaker``, ``s2_speaker`` ...); Libri2Mix' own splits do not by the way
they are made.

The head, frames of the transform and the loss are those of :mod:`mynah.tasks.core.masking`, outputs
and sources in the order with the lowest loss of an utterance (uPIT).

``superb`` repeats s3prl's first recipe (``downstream/separation_stft``, read in version 0.4.18): that
of enhancement (see :mod:`mynah.tasks.se`) with two sources, dev every 2 000 updates, and the checkpoint
with the best improvement of SI-SDR on all of dev.

``fixed`` is like s3prl's second recipe (``separation_stft2``), and differs in:

- sigmoid masks on ``log1p`` of the magnitude, squares of differences from that of NPSM: the ReLU mask
  on magnitudes was found to be the wrong choice by the recipe's author;
- 256 units and dropout 0.1: a tenth of the parameters; the window is 1024 samples where two hops do
  not fit into 512, as at a stride of 320 (the second recipe has 1024 always);
- ends of signals fade out, nothing is set to zero;
- dev is at most 200 mixtures, the same ones always, whose waveforms of all heads are held at once;
  every mixture is seen once per epoch, in batches of 8 of like duration; training stops when dev no
  longer improves, at most 20 000 updates; ties on dev are told apart by dev loss.

Small head: 1 bidirectional LSTM layer of 128 units.

Score: the improvement of SI-SDR over the mixture, in the best order of the estimates, mean over
sources and mixtures; and SI-SDR itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from mynah.tasks.core.apart import parts_apart
from mynah.tasks.core.contract import Data, DataError, Spec
from mynah.tasks.core.masking import FIXED, SUPERB, Masking, Scores, Wave, separated
from mynah.tasks.core.sources import check_sources
from mynah.tasks.core.splits import (
    first_few,
    labelled,
)
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.mean import of_field
from mynah.tasks.metrics.metric import Metric
from mynah.tasks.metrics.separation import (
    MOST_SOURCES,
    si_sdr_metric,
    si_sdri_metric,
)

SPEC = Spec(
    name="ss",
    problem="the speakers of a mixture, each by itself",
    resolution="frame",
    labels=("s1", "s2"),
    metric="si_sdri",
    higher_is_better=True,
    split_unit="speaker",
    version=1,
    licence="Libri2Mix, of LibriSpeech: CC-BY 4.0",
    citation="Cosentino et al. 2020, arXiv:2005.11262; SUPERB-SG: Tsai et al. 2022, arXiv:2203.06849",
)


def source_labels(utterances: Sequence[Utterance]) -> tuple[str, ...]:
    """Return ``s1`` ... as many as the mixtures have.

    Raises:
        DataError: some have fewer, or there are too many.
    """
    known = [f"s{number}" for number in range(1, 100)]
    counts = {u.id: sum(1 for name in known if u.label(name)) for u in utterances}
    most = max(counts.values())
    names = known[:most]
    fewer = [u.id for u in utterances if not all(u.label(name) for name in names)]
    if fewer:
        raise DataError(
            f"some mixtures have the sources {', '.join(names)}, not {first_few(fewer)}"
        )
    if not 2 <= most <= MOST_SOURCES:
        raise DataError(f"2 to {MOST_SOURCES} sources can be separated, mixtures have {most}")
    return tuple(names)


class Separation(Masking):
    """Speech separation under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": FIXED,
        "superb": dataclasses.replace(SUPERB, eval_every=2_000),
    }
    DISTANCE = "squared"
    DEV_AT_MOST = 200
    PHASE = True

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split by speaker and check; see :meth:`~mynah.tasks.core.contract.Task.load`.

        Raises:
            DataError: as above, or a source is missing or of another length.
        """
        kept = labelled(utterances, lambda u: u.label("s1"), task="ss", name="s1")
        sources = source_labels(kept)
        check_sources(kept, sources)

        def speakers(u: Utterance) -> list[str]:
            own = [name for s in sources if (name := u.label(f"{s}_speaker"))]
            return own if len(own) == len(sources) else []

        known = all(speakers(u) for u in kept)
        parts, note = parts_apart(
            kept,
            speakers if known else lambda u: [u.speaker or u.id],
            seed=seed,
            take_given=self.splits == "corpus",
        )
        notes = [note, f"{len(sources)} sources"]
        return self.split_up(parts, sources=sources, notes=notes, named="mixtures")

    def measured(
        self, estimates: Wave, references: Sequence[Wave], mixture: Wave, wanted: Sequence[str]
    ) -> Scores:
        """Return SI-SDR and its improvement, those that are wanted."""
        found = separated(estimates, references, mixture)
        if found is None:
            return dict.fromkeys(wanted)
        values = {"si_sdr": found.si_sdr, "si_sdri": found.si_sdri}
        return {name: values[name] for name in wanted}

    def metrics(self) -> tuple[Metric, ...]:
        """Return the improvement of SI-SDR, and SI-SDR."""
        return (
            of_field(si_sdri_metric(skip_undefined=True)),
            of_field(si_sdr_metric(skip_undefined=True)),
        )


TASK = Separation
