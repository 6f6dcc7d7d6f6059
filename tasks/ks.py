"""KS, keyword spotting: which word of a small set was said.

Official corpus: Speech Commands v0.01 with its own test set; 12 classes: yes, no, up, down, left,
right, on, off, stop, go, ``_unknown_`` (every other word) and ``_silence_``. Where a corpus has the
ten words, its other words become ``_unknown_``; any other corpus (digits, the embedded one) is
taken with its own words as classes. Label: ``keyword``, else ``label``.

``superb`` repeats s3prl's recipe (``downstream/speech_commands``): class-balanced training batches
drawn with replacement (the last partial batch of an epoch dropped), 200 000 steps of batch 32, dev
scored every 5 000 steps on one class-balanced draw with replacement (seed 1337), as many as dev
has utterances; all silence of train and dev is in both. s3prl draws a second of each long recording
of noise anew at each access; here its seconds are utterances (as ``mynah prepare speech_commands``
makes them), or, of a recording that is one long utterance, 16 crops of a second in training, so
that they can be extracted once. So the epoch and the draw are longer than s3prl's by these seconds.
Audio is heard 3 dB softer (``gain -3``, ``tasks.corpora.hearing``).

``fixed`` differs in: audio is heard as it was recorded; dev is the true dev set, each utterance
once, because the balanced draw is another set on every machine and makes unlikely classes count
double; train and dev share no speaker and no second of silence (they may share its recordings:
``mynah prepare`` gives the last tenth of each to dev, because there are only six, of six kinds of
noise); training stops when dev no longer improves, at most 20 000 steps, because the head has
converged long before 200 000; equal dev accuracies are told apart by dev loss.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

from mynah.tasks.core.classification import Classification
from mynah.tasks.core.contract import Data, DataError, Protocol, Spec
from mynah.tasks.core.crops import random_crops
from mynah.tasks.core.splits import (
    Parts,
    as_splits,
    check_classes,
    check_disjoint,
    first_few,
    given_or_made,
    labelled,
    speaker_unit,
)
from mynah.tasks.corpora.utterance import Utterance

SPEC = Spec(
    name="ks",
    problem="which keyword was said",
    resolution="utterance",
    labels=("keyword|label",),
    metric="accuracy",
    higher_is_better=True,
    split_unit="speaker",
    version=3,
    licence="Speech Commands v0.01: CC-BY 4.0",
    citation="Warden 2018, arXiv:1804.03209; SUPERB: Yang et al. 2021, arXiv:2105.01051",
)

COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE = "_unknown_", "_silence_"
SILENCE_SECONDS, SILENCE_CROPS = 1.0, 16
CLOSE = 1e-3  # seconds; stretches that overlap by less only touch


def keyword(utterance: Utterance) -> str | None:
    """Return the raw keyword of an utterance."""
    return utterance.label("keyword") or utterance.label("label")


class KeywordSpotting(Classification):
    """Keyword spotting under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": Protocol(
            batch_size=32, accumulate=1, clip=1.0, steps=20_000, eval_every=100, patience=20,
            sampler="balanced",
        ),
        "superb": Protocol(
            batch_size=32, accumulate=1, clip=1.0, steps=200_000, eval_every=5_000,
            sampler="balanced", dev_sampler="balanced", ties="first", hearing="softer",
        ),
    }  # fmt: skip

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._commands = False

    def reference(self, utterance: Utterance) -> str:
        """Return the class of an utterance."""
        word = keyword(utterance) or ""
        if self._commands and word not in (*COMMANDS, SILENCE):
            return UNKNOWN
        return word

    def views(self, utterance: Utterance) -> tuple[Utterance, ...]:
        """Return the utterance, or one-second crops of a longer recording of silence."""
        if self.reference(utterance) == SILENCE and utterance.duration > SILENCE_SECONDS:
            return random_crops(utterance, SILENCE_SECONDS, SILENCE_CROPS)
        return (utterance,)

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split by speaker and check; see :meth:`~mynah.tasks.core.contract.Task.load`."""
        kept = labelled(self.heard(utterances), keyword, task="ks", name="keyword (or label)")
        self._commands = set(COMMANDS) <= {str(keyword(u)) for u in kept}
        unit, unit_name = speaker_unit([u for u in kept if self.reference(u) != SILENCE])

        def group(u: Utterance) -> str:
            return u.speaker or u.id if self.reference(u) == SILENCE else unit(u)

        parts, note = given_or_made(
            kept,
            group,
            unit_name=unit_name,
            seed=seed,
            take_given=self.splits == "corpus",
            classes=self.reference,
        )
        superb = self.protocol_name == "superb"
        shared = (lambda u: self.reference(u) == SILENCE) if superb else None
        check_disjoint(parts, group, unit_name=unit_name, exempt=shared)
        if superb:
            parts = self._share_silence(parts)
        else:
            self._check_silence(parts)
        classes = check_classes(parts, self.reference)
        if self._commands:
            classes = tuple(c for c in (*COMMANDS, UNKNOWN, SILENCE) if c in classes)
        self.data = Data(folds={"": as_splits(parts)}, classes=classes, notes=(note,))
        return self.data

    def _share_silence(self, parts: Parts) -> Parts:
        """Return the parts with all silence of train and dev in both."""
        silence = [u for n in ("train", "dev") for u in parts[n] if self.reference(u) == SILENCE]
        words = {n: [u for u in parts[n] if self.reference(u) != SILENCE] for n in ("train", "dev")}
        return {**parts, **{name: own + silence for name, own in words.items()}}

    def _check_silence(self, parts: Parts) -> None:
        """Refuse parts that share a stretch of a recording of silence, under whatever ids.

        Raises:
            DataError: as above.
        """
        stretches = defaultdict(list)
        for name, utterances in parts.items():
            for u in utterances:
                if self.reference(u) == SILENCE:
                    stretches[u.path, u.channel].append((u.start, u.start + u.duration, name, u.id))
        shared = [
            f"{one} of {part} and {other} of {another}"
            for own in stretches.values()
            for (start, end, part, one), (begin, stop, another, other) in combinations(own, 2)
            if part != another and max(start, begin) + CLOSE < min(end, stop)
        ]
        if shared:
            raise DataError(f"parts share seconds of silence: {first_few(shared)}")


TASK = KeywordSpotting
