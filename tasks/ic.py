"""IC, intent classification: what a spoken command asks for, as the values of a few slots.

Official corpus: Fluent Speech Commands with its own parts, whose speakers are disjoint. Labels:
``action`` (6 values), ``object`` (14) and ``location`` (4); a slot that is not said has the value
``none``. One head has an output for each value of each slot (24), slot after slot, values in
alphabetical order. A corpus without these labels is taken with all its labels named ``slot_...`` or,
as SF orders them, ``slot1_...`` (one that an utterance lacks is ``none``), or else with ``intent`` as
the only slot. Splits that are made here give train every value where any of 50 orders does, and
else as many as they can.

``superb`` repeats s3prl's recipe (``downstream/fluent_commands``): the sum of the slots'
cross-entropies, 200 000 steps of batch 32, Adam, clip 1, dev scored every 5 000 steps, the earliest
of the best kept. s3prl counts values in the order of the training table, which changes nothing but
which output is whose. It knows the values of train and stops at any other; such a corpus is refused.

``fixed`` differs in: training stops when dev no longer improves, at most 20 000 steps, because the
head has converged long before 200 000; equal dev accuracies, which are common near 100 %, are told
apart by dev loss. A value that dev or test has and train lacks is never predicted and counts as the
error that it is: ``attainable`` is then the share of test utterances of which train has every value,
which no accuracy exceeds; such slots are left out of dev loss.

Score: ``accuracy`` is the share of utterances of which every slot is right; where there are several
slots ``SLOT_accuracy`` is that of each by itself. A prediction is the values with ``|`` between them.

Shape suffixes: K heads, B batch, C outputs (the values of all slots).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mynah.tasks.core.classification import Classification
from mynah.tasks.core.contract import Data, DataError, Protocol, Spec
from mynah.tasks.core.splits import (
    Parts,
    as_splits,
    check_disjoint,
    first_few,
    given_or_made,
    labelled,
    speaker_unit,
)
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.accuracy import accuracy, attainable, part_accuracy
from mynah.tasks.metrics.metric import Metric

log = logging.getLogger(__name__)

SPEC = Spec(
    name="ic",
    problem="what a spoken command asks for: its action, object and location",
    resolution="utterance",
    labels=("action|intent",),
    metric="accuracy",
    higher_is_better=True,
    split_unit="speaker",
    version=2,
    licence="Fluent Speech Commands: on request, for academic research (recalled)",
    citation="Lugosch et al. 2019, arXiv:1904.03670; SUPERB: Yang et al. 2021, arXiv:2105.01051",
)

OFFICIAL = ("action", "object", "location")
INTENT, NONE = "intent", "none"
BETWEEN = "|"
UNSEEN = -100  # in place of an output
_OPTIONAL = re.compile(r"slot\d*_\S+")


def slots_of(utterances: Sequence[Utterance]) -> tuple[str, ...]:
    """Return the labels that are slots: the official three, else ``slot_...``, else ``intent``.

    Slots may be numbered, ``slot2_...``, as SF wants them.
    """
    names = {name for u in utterances for name in u.labels}
    if set(OFFICIAL) <= names:
        return OFFICIAL
    return tuple(sorted(name for name in names if _OPTIONAL.fullmatch(name))) or (INTENT,)


class IntentClassification(Classification):
    """Intent classification under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": Protocol(
            batch_size=32, accumulate=1, clip=1.0, steps=20_000, eval_every=100, patience=20
        ),
        "superb": Protocol(
            batch_size=32, accumulate=1, clip=1.0, steps=200_000, eval_every=5_000, ties="first"
        ),
    }  # fmt: skip

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.slots: dict[str, tuple[str, ...]] = {}
        """Slot -> its values in train, in the order of the head's outputs."""
        self._unseen = False  # whether test has values that train lacks

    # -- data -------------------------------------------------------------------------------

    def value(self, utterance: Utterance, slot: str) -> str | None:
        """Return what an utterance says of a slot; None where that is not known."""
        return utterance.label(slot) or (NONE if _OPTIONAL.fullmatch(slot) else None)

    def reference(self, utterance: Utterance) -> str:
        """Return the values of all slots, with ``|`` between them."""
        return BETWEEN.join(str(self.value(utterance, slot)) for slot in self.slots)

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split by speaker and check; see :meth:`~mynah.tasks.core.contract.Task.load`."""
        names = slots_of(utterances)
        kept = self._labelled(utterances, names)
        self._check_values(kept, names)
        self.slots = dict.fromkeys(names, ())
        unit, unit_name = speaker_unit(kept)
        parts, note = given_or_made(
            kept,
            unit,
            unit_name=unit_name,
            seed=seed,
            take_given=self.splits == "corpus",
            classes=self._classes,
        )
        check_disjoint(parts, unit, unit_name=unit_name)
        self._use(
            {
                slot: tuple(sorted({str(self.value(u, slot)) for u in parts["train"]}))
                for slot in names
            }
        )
        unseen = self._unseen_values(parts)
        if max(len(values) for values in self.slots.values()) < 2:
            raise DataError(
                "every slot has one value only in train, so there is nothing to tell apart: "
                f"{first_few(self.loaded.classes)}"
            )
        counted = ", ".join(f"{slot} ({len(values)})" for slot, values in self.slots.items())
        self.data = Data(
            folds={"": as_splits(parts)},
            classes=self.loaded.classes,
            notes=(note, f"slots and their values: {counted}", *unseen),
        )
        return self.data

    def _labelled(self, utterances: Sequence[Utterance], names: Sequence[str]) -> list[Utterance]:
        """Return the utterances that the task is about, each of which says something of each slot."""

        def said(utterance: Utterance) -> str | None:
            values = [utterance.label(name) for name in names]
            known = any(values) if _OPTIONAL.fullmatch(names[0]) else all(values)
            return "known" if known else None

        if not _OPTIONAL.fullmatch(names[0]):
            return labelled(utterances, said, task="ic", name=" and ".join(names))
        subsets = {u.label("subset") for u in utterances if said(u)}
        return [u for u in utterances if u.label("subset") in subsets]

    def _check_values(self, utterances: Sequence[Utterance], names: Sequence[str]) -> None:
        """Refuse values that would read as two.

        Raises:
            DataError: as above.
        """
        bad = [
            f"{name} {self.value(u, name)!r} of {u.id}"
            for u in utterances
            for name in names
            if len(names) > 1 and BETWEEN in str(self.value(u, name))
        ]
        if bad:
            raise DataError(f"values of several slots must not hold {BETWEEN!r}: {first_few(bad)}")

    def _classes(self, utterance: Utterance) -> list[str]:
        """Return what an utterance shows of each slot."""
        return [f"{slot}{BETWEEN}{self.value(utterance, slot)}" for slot in self.slots]

    def _known(self, utterance: Utterance) -> bool:
        """Return whether train has every value of an utterance."""
        return all(self.value(utterance, slot) in values for slot, values in self.slots.items())

    def _unseen_values(self, parts: Parts) -> list[str]:
        """Return sentences on the utterances of dev and of test with values that train lacks.

        Raises:
            DataError: there are some, and ``superb`` knows no others, or dev or test has no other.
        """
        found = []
        for name in ("dev", "test"):
            odd = [u for u in parts[name] if not self._known(u)]
            if not odd:
                continue
            values = {
                f"{slot} {value!r}": u.id
                for u in reversed(odd)
                for slot, known in self.slots.items()
                if (value := str(self.value(u, slot))) not in known
            }
            said = first_few(f"{value} of {values[value]}" for value in sorted(values))
            if self.protocol_name == "superb":
                raise DataError(
                    f"{name} has values that train has not: {said}; superb knows those of train only: "
                    "take the fixed protocol, where they count as errors, or mend the corpus's splits"
                )
            if len(odd) == len(parts[name]):
                raise DataError(
                    f"no utterance of {name} has only values that train has: {said}; mend the "
                    "corpus's splits, or let them be made (--splits made)"
                )
            found.append(
                f"{len(odd)} of {len(parts[name])} {name} utterances count as errors, for train lacks "
                f"a value of theirs: {said}"
            )
            log.warning("ic: %s", found[-1])
        self._unseen = any(not self._known(u) for u in parts["test"])
        return found

    # -- training ---------------------------------------------------------------------------

    def losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return the sums over slots of the cross-entropies (K, B) of logits (K, B, C).

        Slots whose value train lacks, which only dev can have, are left out.
        """
        heads, size, _ = outputs.shape
        sizes = [len(values) for values in self.slots.values()]
        total_KB = outputs.new_zeros(heads, size)
        for (slot, values), logits_KBV in zip(
            self.slots.items(), outputs.split(sizes, dim=-1), strict=True
        ):
            at = {value: place for place, value in enumerate(values)}
            target_B = torch.tensor([at.get(str(self.value(u, slot)), UNSEEN) for u in batch])
            flat = F.cross_entropy(
                logits_KBV.flatten(0, 1),
                target_B.repeat(heads).to(outputs.device),
                reduction="none",
                ignore_index=UNSEEN,
            )
            total_KB = total_KB + flat.view(heads, size)
        return total_KB

    # -- scoring ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the slots and their values."""
        return {"slots": {slot: list(values) for slot, values in self.slots.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the slots and their values."""
        self._use({slot: tuple(values) for slot, values in state["slots"].items()})

    def _use(self, slots: Mapping[str, tuple[str, ...]]) -> None:
        self.slots = dict(slots)
        several = len(slots) > 1
        classes = [
            f"{slot}:{value}" if several else value
            for slot, values in slots.items()
            for value in values
        ]
        self.data = Data(folds={}, classes=tuple(classes))

    def decode(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> list[str]:
        """Return the likeliest value of each slot for each row of (B, C)."""
        sizes = [len(values) for values in self.slots.values()]
        said = [
            [values[i] for i in logits_BV.argmax(dim=1).tolist()]
            for values, logits_BV in zip(
                self.slots.values(), outputs.split(sizes, dim=1), strict=True
            )
        ]
        return [BETWEEN.join(values) for values in zip(*said, strict=True)]

    def questions(self) -> Mapping[str, Sequence[str]]:
        """Return the slots and their values."""
        return self.slots

    def metrics(self) -> tuple[Metric, ...]:
        """Return the accuracy of all slots together, of each, and what train's values allow.

        Each where there are several; what is attainable where test has values that train lacks.
        """
        found = [accuracy()]
        if len(self.slots) > 1:
            found += [part_accuracy(i, slot) for i, slot in enumerate(self.slots)]
        if self._unseen:
            found.append(attainable([*self.slots.values()]))
        return tuple(found)


TASK = IntentClassification
