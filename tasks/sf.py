"""SF, slot filling: what was said, and which words of it fill which slot.

Official corpus: Audio SNIPS, 39 slots, synthetic voices of which train, dev and test have their own.
Labels: ``text`` and ``slots``, a tag for each word: ``O``, ``B-slot`` for the first word of a span and
``I-slot`` for its others. Or, for corpora that say what fills each slot but not the whole sentence,
a label for each slot with its words: ``slot_NAME``, or ``slotN_NAME`` with a whole number N, by which
the target is in order (else by name); put N in the order in which people speak, for CTC learns no
other. ``mynah prepare tsv`` renames columns, as in

    mynah prepare tsv orders OUT --rename size=slot1_size --rename drink=slot2_drink

Symbols: characters, the space among them, and for each slot ``B-slot`` and ``E-slot``, between which
its value is spelled: ``PLAY B-artist THE BEATLES E-artist``. Text is in upper case and NFC.

``superb`` repeats s3prl's recipe (``downstream/ctc``, ``snips.yaml``): ``<pad>`` (the CTC blank), ``<eos>``,
``<unk>``, the space, A to Z, ``'`` and the marks, 109 symbols for 39 slots; ``<unk>`` stands for any other
character, in references too; ``<eos>`` ends every target and is trained and then dropped in
decoding; neighbours of one slot are one span; a Linear to 1024, two layers of 2 x 1024 LSTM
units, a Linear to the symbols, at every frame; SpecAug with adaptive time masks (4 % of the frames);
batches are windows of 32 over the utterances in the order of descending target length, one window
per utterance, a window whose first utterance is longer than 300 000 samples at 16 kHz loses its
second half; 200 000 updates, dev scored every 2000. Runs of spaces in what is decoded count as one
space here, also for ``wer`` and ``cer``.

``fixed`` differs in: the characters of the corpus, all parts together; no ``<eos>`` and no ``<unk>``; a
``B-`` tag begins a span, also beside another of its slot; every utterance is seen once per epoch, in
batches of 32 of like duration; frequency masks, in proportion to the width, and learning rates as in ASR; ``wer`` and ``cer`` are of
what was said, without the marks, which say nothing of recognition; training stops when dev no
longer improves, at most 20 000 updates; ties on dev are told apart by dev loss. A slot that train
lacks is never learned and counts as the errors that it is.

The ``small`` head has a projection of 128 and 2 x 128 LSTM units a layer.

Decoding: the best path. Score (``metrics/slots``): ``slot_type_f1``, by which steps and learning rates
are chosen, and ``slot_value_cer``, which SUPERB reports too; ``slot_value_wer``, ``slot_edit_f1_full`` and
``slot_edit_f1_part``; and, where the whole sentence is known, ``wer`` and ``cer``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, ClassVar, NamedTuple

from torch import nn

from mynah.downstream.core.specaug import SpecAug
from mynah.tasks.core.characters import (
    ADAPTIVE,
    EOS,
    FIXED,
    PAD,
    UNK,
    Spelling,
    normalised,
)
from mynah.tasks.core.contract import Data, DataError, Decoded, Presented, Protocol, Spec
from mynah.tasks.core.splits import first_few, labelled
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.error_rate import error_rate
from mynah.tasks.metrics.metric import Metric
from mynah.tasks.metrics.slots import (
    slot_edit_f1,
    slot_type_f1,
    slot_value_cer,
    slot_value_wer,
    spans,
)

SPEC = Spec(
    name="sf",
    problem="the slots of a request and the words that fill them",
    resolution="frame",
    labels=("slots|slot_NAME",),
    metric="slot_type_f1",
    higher_is_better=True,
    split_unit="speaker",
    version=1,
    licence="SNIPS: CC0; Audio SNIPS: synthesised by Amazon Polly, terms not stated",
    citation="Lai et al. 2021, arXiv:2102.06283; Coucke et al. 2018, arXiv:1805.10190; "
    "SUPERB: arXiv:2105.01051",
)

SUPERB_CHARACTERS = (" ", *ascii_uppercase, "'")
SPECAUG = SpecAug(adaptive=ADAPTIVE)
OUTSIDE = "O"
_SLOT = re.compile(r"slot(\d*)_(\S+)")
_TAG = re.compile(r"O|[BI]-\S+")
_MARK = re.compile(r"[BE]-(\S+)")


class Part(NamedTuple):
    """A stretch of words and the slot that it fills, None for none."""

    slot: str | None
    words: tuple[str, ...]


class SlotFilling(Spelling):
    """Slot filling under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": dataclasses.replace(FIXED, batch_size=32),
        "superb": Protocol(
            batch_size=32, accumulate=1, clip=1.0, steps=200_000, eval_every=2_000,
            sampler="length-window", ties="first",
        ),
    }  # fmt: skip
    HAS_SMALL_HEAD = True

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._whole = True  # whether the sentences are known, or only what fills their slots

    # -- data -------------------------------------------------------------------------------

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split by speaker and check; see :meth:`~mynah.tasks.core.contract.Task.load`.

        Raises:
            DataError: besides, tags that are none or not as many as words, or a slot without words.
        """
        self._whole = any(u.label("slots") for u in utterances)
        if self._whole:
            kept = labelled(utterances, lambda u: u.label("slots"), task="sf", name="slots")
            _check_tags(kept)
        else:
            kept = labelled(
                utterances, lambda u: " ".join(_numbered(u)), task="sf", name="slots or slot_NAME"
            )
            _check_values(kept)
        data = self.spell(kept, seed=seed)
        for split in data.folds[""]:
            if not any(part.slot for u in split.utterances for part in self.parts(u)):
                raise DataError(f"no utterance of {split.name} fills a slot: nothing to score")
        return data

    def parts(self, utterance: Utterance) -> list[Part]:
        """Return the stretches of an utterance, in order."""
        if not self._whole:
            return [
                Part(slot, tuple(normalised(value).split()))
                for slot, value in _numbered(utterance).values()
            ]
        found: list[Part] = []
        words = normalised(utterance.text or "").split()
        for word, tag in zip(words, (utterance.label("slots") or "").split(), strict=True):
            slot = None if tag == OUTSIDE else tag[2:]
            begins = tag.startswith("B-") and not self._superb
            if found and found[-1].slot == slot and not begins:
                found[-1] = Part(slot, (*found[-1].words, word))
            else:
                found.append(Part(slot, (word,)))
        return found

    def spelled(self, utterance: Utterance) -> list[str]:
        """Return characters and marks: ``B-slot``, the value, ``E-slot``, a space to what follows."""
        symbols: list[str] = []
        for part in self.parts(utterance):
            value = list(" ".join(part.words))
            marked = value if part.slot is None else [f"B-{part.slot}", *value, f"E-{part.slot}"]
            symbols += [" ", *marked] if symbols else marked
        return symbols

    def written(self, symbols: Sequence[str]) -> str:
        """Return the text with its marks; runs of spaces count as one."""
        text = "".join(s if len(s) == 1 or s == UNK else f" {s} " for s in symbols)
        return " ".join(text.split())

    def inventory(self, train: set[str], rest: set[str]) -> tuple[str, ...]:
        """Return SUPERB's characters, or those of the corpus, and the marks of its slots."""
        said = train | rest
        marks = sorted({mark for s in said if len(s) > 1 for mark in (f"B-{s[2:]}", f"E-{s[2:]}")})
        if self._superb:
            return (PAD, EOS, UNK, *SUPERB_CHARACTERS, *marks)
        return (PAD, *sorted(s for s in said if len(s) == 1), *marks)

    # -- training ---------------------------------------------------------------------------

    def head(self, dim: int) -> nn.Module:
        """Return the bidirectional LSTMs at every frame."""
        return self.lstms(dim, SPECAUG)

    # -- scoring ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the symbols, and whether they spell whole sentences."""
        return {**super().state(), "whole": self._whole}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what :meth:`state` gave."""
        self._whole = bool(state["whole"])
        super().restore(state)

    def present(self, decoded: Decoded, utterance: Utterance) -> Presented:
        """Return the text with its marks, and the slots that it fills."""
        text = str(decoded)
        filled = [{"slot": slot, "value": value} for slot, value in spans(text)]
        return Presented(text=text, json={"text": text, "slots": filled})

    def said(self, text: str) -> str:
        """Return decoded text without the marks of the inventory."""
        return " ".join(token for token in text.split() if token not in self._marks)

    @property
    def _marks(self) -> frozenset[str]:
        return frozenset(s for s in self.symbols if _MARK.fullmatch(s))

    def metrics(self) -> tuple[Metric, ...]:
        """Return the metrics of slots and, where sentences are known, of recognition."""
        found = (
            slot_type_f1(),
            slot_value_cer(),
            slot_value_wer(),
            slot_edit_f1("full"),
            slot_edit_f1("part"),
        )
        if not self._whole:
            return found
        if self._superb:
            return (*found, error_rate("word", norm="marked"), error_rate("char", norm="marked"))
        return (
            *found,
            error_rate("word", norm="unmarked", prepare=self.said),
            error_rate("char", norm="unmarked", prepare=self.said),
        )


def _numbered(utterance: Utterance) -> dict[str, tuple[str, str]]:
    """Return label -> (slot, value) of an utterance's ``slot_NAME`` labels, in target order."""
    found = []
    for label, value in utterance.labels.items():
        if (match := _SLOT.fullmatch(label)) and value:
            found.append((int(match[1] or 0), match[2], label, value))
    return {label: (slot, value) for _, slot, label, value in sorted(found)}


def _check_tags(utterances: Sequence[Utterance]) -> None:
    """Refuse tags that are none, do not follow, or are not one for each word.

    Raises:
        DataError: as above, naming the first offenders.
    """
    faults = []
    for u in utterances:
        tags = (u.label("slots") or "").split()
        words = len(normalised(u.text or "").split())
        if len(tags) != words:
            faults.append(f"{u.id} ({words} words, {len(tags)} tags)")
            continue
        for before, tag in zip((OUTSIDE, *tags), tags, strict=False):
            if not _TAG.fullmatch(tag):
                faults.append(f"{u.id} ({tag!r} is neither O nor B-slot nor I-slot)")
                break
            if tag.startswith("I-") and before[2:] != tag[2:]:
                faults.append(f"{u.id} ({tag} follows {before})")
                break
    if faults:
        raise DataError(f"sf needs a tag for each word of text: {first_few(faults)}")


def _check_values(utterances: Sequence[Utterance]) -> None:
    """Refuse values without words, and two labels of an utterance for one slot.

    Raises:
        DataError: as above, naming the first offenders.
    """
    faults = []
    for u in utterances:
        slots = list(_numbered(u).values())
        if empty := [slot for slot, value in slots if not normalised(value)]:
            faults.append(f"{u.id} ({empty[0]} is empty)")
        names = [slot for slot, _ in slots]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            faults.append(f"{u.id} ({twice[0]} is there twice)")
    if faults:
        raise DataError(f"sf needs the words of each slot once: {first_few(faults)}")


TASK = SlotFilling
