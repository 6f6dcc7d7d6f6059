"""SID, speaker identification: which of the training speakers is speaking.

Official corpus: VoxCeleb1 with its identification split, 1251 speakers, sessions (videos) disjoint.
A closed set: all parts have the same speakers, and what they must not share is the session (label
``session``, else ``chapter``; the utterance where neither is known). Label: ``speaker``.

The parts are those of the label ``sid_split`` where there is one, else those of ``split`` if their
speakers are the same (a corpus that is split by speaker for other tasks cannot be used as it is),
else they are made: for each speaker about 70, 10 and 20 % of its sessions. Speakers with fewer than
three units cannot be in all parts and are skipped and counted; where some speaker has fewer than
three sessions, the unit is the utterance.

``superb`` repeats s3prl's recipe (``downstream/voxceleb1``): 200 000 steps of batch 8 x 4, training
on random crops of at most 8 s, dev and test whole. s3prl draws a crop anew at each access; here 8
crops of each longer utterance are enumerated, so that they can be extracted once.

``fixed`` differs in: training utterances are whole, as dev and test are, because the head sees a
mean over time and a mismatch in length between training and test helps nobody; training stops when
dev no longer improves, at most 20 000 steps of batch 32; ties on dev are told apart by dev loss.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import ClassVar

from mynah.tasks.core.classification import Classification
from mynah.tasks.core.contract import Data, DataError, Protocol, Spec
from mynah.tasks.core.splits import (
    PARTS,
    Parts,
    Unit,
    as_splits,
    check_classes,
    check_disjoint,
    first_few,
    given,
    labelled,
    order,
)
from mynah.tasks.corpora.utterance import Utterance

SPEC = Spec(
    name="sid",
    problem="which speaker of a closed set is speaking",
    resolution="utterance",
    labels=("speaker",),
    metric="accuracy",
    higher_is_better=True,
    split_unit="session",
    version=1,
    licence="VoxCeleb1: CC-BY 4.0 (metadata)",
    citation="Nagrani et al. 2017, arXiv:1706.08612; SUPERB: Yang et al. 2021, arXiv:2105.01051",
)


def session(utterance: Utterance) -> str | None:
    """Return the recording session of an utterance, unique over speakers, None where unknown."""
    name = utterance.label("session") or utterance.label("chapter")
    return f"{utterance.speaker}/{name}" if name else None


def known_unit(utterances: Sequence[Utterance]) -> tuple[Unit, str]:
    """Return the session as unit where every utterance has one, else the utterance."""
    if all(session(u) for u in utterances):
        return (lambda u: str(session(u))), "session"
    return (lambda u: u.id), "utterance"


def unit_to_split(utterances: Sequence[Utterance], parts: int) -> tuple[Unit, str]:
    """Return the session as unit if every speaker has one for each part, else the utterance."""
    unit, name = known_unit(utterances)
    own: dict[str, set[str]] = defaultdict(set)
    for u in utterances:
        own[str(u.speaker)].add(unit(u))
    if name == "session" and min(len(units) for units in own.values()) < parts:
        return (lambda u: u.id), "utterance"
    return unit, name


def make_closed(
    utterances: Sequence[Utterance], unit: Unit, shares: Mapping[str, float], seed: int
) -> tuple[Parts, list[str]]:
    """Give each speaker's units to the parts: ``shares`` of them, at least one, the rest to train.

    Returns:
        the parts, and the speakers that have too few units to be in all of them.
    """
    own: dict[str, list[Utterance]] = defaultdict(list)
    for u in utterances:
        own[str(u.speaker)].append(u)
    parts: Parts = {part: [] for part in PARTS}
    few = []
    for speaker, spoken in sorted(own.items()):
        names = order((unit(u) for u in spoken), f"sid-{seed}-{speaker}")
        if len(names) <= len(shares):
            few.append(speaker)
            continue
        where: dict[str, str] = {}
        for part, share in shares.items():
            size = max(1, round(share * len(names)))
            where |= dict.fromkeys(names[len(where) : len(where) + size], part)
        for u in spoken:
            parts[where.get(unit(u), "train")].append(u)
    return parts, few


class SpeakerIdentification(Classification):
    """Speaker identification under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": Protocol(
            batch_size=32, accumulate=1, clip=1.0, steps=20_000, eval_every=100, patience=20
        ),
        "superb": Protocol(
            batch_size=8, accumulate=4, clip=1.0, steps=200_000, eval_every=5_000,
            crop_seconds=8.0, crops=8, ties="first",
        ),
    }  # fmt: skip

    def reference(self, utterance: Utterance) -> str:
        """Return the speaker."""
        return utterance.speaker or ""

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split by session and check; see :meth:`~mynah.tasks.core.contract.Task.load`."""
        marked = [u for u in utterances if u.label("sid_split")]
        parts: Parts | None = None
        if self.splits == "corpus" and marked:
            kept = labelled(marked, lambda u: u.speaker, task="sid", name="speaker")
            parts, source = given(kept, "sid_split"), "sid_split"
            if parts is None:
                raise DataError("the label sid_split names no train or no test part")
        else:
            kept = labelled(utterances, lambda u: u.speaker, task="sid", name="speaker")
            parts, source = None, "split"
            if self.splits == "corpus" and all(u.split for u in kept):
                parts = self._usable(given(kept))
        few: list[str] = []
        if parts is None:
            unit, unit_name = unit_to_split(kept, 3)
            parts, few = make_closed(kept, unit, {"test": 0.2, "dev": 0.1}, seed)
            note = f"splits were made here, disjoint by {unit_name}"
        elif not parts["dev"]:
            unit, unit_name = unit_to_split(parts["train"], 2)
            carved, few = make_closed(parts["train"], unit, {"dev": 0.1}, seed)
            parts = {**carved, "test": [u for u in parts["test"] if u.speaker not in few]}
            note = f"test is the corpus's own, dev was carved out of its train by {unit_name}"
        else:
            unit, unit_name = known_unit(kept)
            note = f"splits are the corpus's own ({source})"
        skipped = {
            u.id: f"speaker {u.speaker} has too few {unit_name}s to be in all parts"
            for u in kept
            if u.speaker in few
        }
        if len({u.speaker for u in parts["train"]}) < 2:
            raise DataError(
                f"fewer than two speakers have enough {unit_name}s to be in all parts, so there "
                f"is nothing to tell apart; skipped: {first_few(skipped)}"
            )
        check_disjoint(parts, unit, unit_name=unit_name)
        classes = check_classes(parts, self.reference)
        self.data = Data(
            folds={"": as_splits(parts)}, classes=classes, skipped=skipped, notes=(note,)
        )
        return self.data

    @staticmethod
    def _usable(parts: Parts | None) -> Parts | None:
        """Return the corpus's parts if they share their speakers, None if they share none.

        Raises:
            DataError: they share some only.
        """
        if parts is None:
            return None
        train = {u.speaker for u in parts["train"]}
        test = {u.speaker for u in parts["test"]}
        if not train & test:
            return None
        strange = sorted(str(s) for s in test - train)
        if strange:
            raise DataError(
                f"test has speakers that train has not: {first_few(strange)}; speaker "
                "identification needs the same speakers in all parts: mend the corpus's splits, "
                "or let them be made (--splits made)"
            )
        return parts


TASK = SpeakerIdentification
