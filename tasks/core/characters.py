"""What the tasks share that spell: an inventory of symbols, CTC targets, losses, greedy decoding.

PR spells with phones, ASR and OOD-ASR with characters, SF with characters and the marks round a
slot. Symbol 0 is the CTC blank. An inventory of SUPERB ends every target with a symbol of its own,
which is trained and then dropped in decoding; one that has ``<unk>`` spells with it what it does not
have. All other inventories are the blank and what the corpus holds, all parts together: a symbol
that train lacks is never learned and counts as the error that it is.

Shape suffixes: K heads, B batch, T frames, V symbols.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from mynah.downstream.blstm_ctc import BLSTMCTC
from mynah.downstream.core.specaug import SpecAug
from mynah.tasks.core.contract import Data, DataError, Protocol, Task
from mynah.tasks.core.ctc import ctc_losses, frames_needed, greedy
from mynah.tasks.core.splits import (
    Unit,
    as_splits,
    check_disjoint,
    first_few,
    given_or_made,
    labelled,
    speaker_unit,
)
from mynah.tasks.corpora.utterance import Utterance

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
SILENCE = "_silence_"
HALVE_SECONDS = 300_000 / 16_000
SMALL: dict[str, Any] = {"projection": 128, "hidden": 128}  # of a narrow BLSTMCTC
ADAPTIVE = 0.04
SUPERB_WIDTH = 768  # of the features that SUPERB's sizes were chosen for


def normalised(text: str) -> str:
    """Return text in upper case, in NFC (one code for one letter), single spaces between words."""
    return " ".join(unicodedata.normalize("NFC", text.upper()).split())


def transcribed(utterances: Sequence[Utterance], *, task: str) -> list[Utterance]:
    """Return the utterances whose text is to be recognised: all but recordings of silence.

    Those are known by the keyword ``_silence_``.

    Args:
        utterances: of the corpus.
        task: name of the task, for messages.

    Raises:
        DataError: an utterance has no text, or none once it is normalised; the message names the
            first of them.
    """
    speech = [u for u in utterances if u.text or u.label("keyword") != SILENCE]
    kept = labelled(speech, lambda u: u.text, task=task, name="text")
    if empty := [u.id for u in kept if not normalised(u.text or "")]:
        raise DataError(f"{task} finds nothing to recognise in the text of {first_few(empty)}")
    return kept


def specaug_for(dim: int, published: SpecAug) -> SpecAug:
    """Return what ``fixed`` disturbs features with: masks that grow with what they lie on.

    Frequency masks are up to 49 in 768 of the features wide. Time masks are adaptive, 4 % of the
    frames (Park et al. 2020; SUPERB has them in SF only): two of up to 39 frames hide most of an
    utterance of a word or two.

    Args:
        dim: width D of the features.
        published: what ``superb`` disturbs them with.
    """
    width = published.frequency_width
    share = max(1, round(width * dim / SUPERB_WIDTH))
    return dataclasses.replace(published, frequency_width=min(width, share), adaptive=ADAPTIVE)


FIXED = Protocol(  # of the tasks that spell with bidirectional LSTMs
    learning_rates=(1e-2, 1e-3, 1e-4), batch_size=16, accumulate=1, clip=1.0, steps=20_000,
    eval_every=250, patience=20, sampler="bucket",
)  # fmt: skip


class Spelling(Task):
    """A task whose head says one symbol, or none, at every frame, and is trained by CTC."""

    END: ClassVar[str] = EOS
    """Ends every target where the inventory has it, and is dropped in decoding."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._superb = self.protocol_name == "superb"
        self.symbols: tuple[str, ...] = ()
        self._index: dict[str, int] = {}

    # -- what a task says of its symbols ------------------------------------------------------

    @abstractmethod
    def spelled(self, utterance: Utterance) -> list[str]:
        """Return the symbols of an utterance, whether or not the inventory has them."""

    @abstractmethod
    def written(self, symbols: Sequence[str]) -> str:
        """Return the text that symbols stand for; single spaces only."""

    @abstractmethod
    def inventory(self, train: set[str], rest: set[str]) -> tuple[str, ...]:
        """Return all symbols, the blank first, given those of train and those of dev and test."""

    def lstms(self, dim: int, published: SpecAug, **options: Any) -> BLSTMCTC:
        """Return bidirectional LSTMs at every frame, narrow where a small head is wanted.

        Args:
            dim: width D of the features.
            published: what ``superb`` disturbs them with.
            options: of the head.
        """
        specaug = published if self._superb else specaug_for(dim, published)
        sizes = SMALL if self.small else {}
        return BLSTMCTC(dim, self.outputs, specaug=specaug, **sizes, **options)

    def output_lengths(self, lengths_B: Tensor) -> Tensor:
        """Return how many frames of outputs the head makes of items of these lengths."""
        return lengths_B

    # -- data -------------------------------------------------------------------------------

    def spell(
        self,
        utterances: Sequence[Utterance],
        *,
        seed: int,
        unit: tuple[Unit, str] | None = None,
        skipped: Mapping[str, str] | None = None,
        notes: Iterable[str] = (),
    ) -> Data:
        """Split, settle the inventory, set and return ``self.data``.

        Args:
            utterances: those that the task is about.
            seed: of splits that are made here.
            unit: what parts must not share and its name; the speaker where all are known.
            skipped: what was left out.
            notes: for people, besides those made here.

        Raises:
            DataError: splits that are empty or share a unit, or what :meth:`inventory` refuses.
        """
        of, name = unit or speaker_unit(utterances)
        parts, note = given_or_made(
            utterances, of, unit_name=name, seed=seed, take_given=self.splits == "corpus"
        )
        check_disjoint(parts, of, unit_name=name)
        said = {part: {s for u in own for s in self.spelled(u)} for part, own in parts.items()}
        train, rest = said["train"], said["dev"] | said["test"]
        self.use(self.inventory(train, rest))
        inventory = f"{len(self.symbols)} symbols with the blank"
        if unseen := sorted(rest - train):
            inventory += f", not in train: {first_few(unseen)}"
        if UNK in self._index and (strange := sorted((train | rest) - set(self.symbols))):
            inventory += f", spelled {UNK}: {first_few(strange)}"
        self.data = Data(
            folds={"": as_splits(parts)},
            classes=self.symbols[1:],
            skipped=skipped or {},
            notes=(note, inventory, *notes),
        )
        return self.data

    def use(self, symbols: tuple[str, ...]) -> None:
        """Take an inventory, the blank first."""
        self.symbols = symbols
        self._index = {symbol: i for i, symbol in enumerate(symbols)}

    # -- training ---------------------------------------------------------------------------

    @property
    def outputs(self) -> int:
        """Number of symbols, the blank included."""
        self.loaded  # noqa: B018 - raises where nothing was loaded
        return len(self.symbols)

    def known(self, symbols: Iterable[str]) -> list[str]:
        """Return symbols with ``<unk>`` for those that an inventory with ``<unk>`` lacks."""
        if UNK not in self._index:
            return list(symbols)
        return [s if s in self._index else UNK for s in symbols]

    def target(self, utterance: Utterance) -> list[int]:
        """Return the symbols to train on.

        Raises:
            DataError: the utterance has a symbol that the inventory lacks.
        """
        symbols = self.known(self.spelled(utterance))
        if unknown := sorted(set(symbols) - self._index.keys()):
            raise DataError(
                f"{utterance.id} has symbols that the head does not know: {first_few(unknown)}"
            )
        end = [self._index[self.END]] if self.END in self._index else []
        return [self._index[symbol] for symbol in symbols] + end

    def target_length(self, utterance: Utterance) -> int:
        """Return the number of symbols to train on."""
        return len(self.target(utterance))

    def window_limit(self, utterance: Utterance) -> bool:
        """Return whether an utterance is longer than 300 000 samples at 16 kHz."""
        return utterance.duration > HALVE_SECONDS

    def too_short(self, utterance: Utterance, frames: int) -> str | None:
        """Return a reason where the target does not fit into the frames."""
        left = int(self.output_lengths(Tensor([frames]).long()))
        needed = frames_needed(self.target(utterance))
        return None if needed <= left else f"{left} frames for a target that needs {needed}"

    def losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return CTC losses (K, B), each over the length of its target."""
        return ctc_losses(outputs, self.output_lengths(lengths_B), [self.target(u) for u in batch])

    # -- scoring ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the symbols, the blank included."""
        return {"symbols": list(self.symbols)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the symbols."""
        self.use(tuple(state["symbols"]))
        self.data = Data(folds={}, classes=self.symbols[1:])

    def decode(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> list[str]:
        """Return the text of the best path through (B, T, V): repeats merged, blanks dropped."""
        end = self._index.get(self.END)
        paths = greedy(outputs, self.output_lengths(lengths_B))
        return [self.written([self.symbols[s] for s in path if s != end]) for path in paths]

    def reference(self, utterance: Utterance) -> str:
        """Return the reference text, as it would be decoded."""
        return self.written(self.known(self.spelled(utterance)))
