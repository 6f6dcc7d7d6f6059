"""PR, phoneme recognition: the sequence of phones that was said.

Official corpus: LibriSpeech train-clean-100, dev-clean, test-clean; phones by the official lexicon,
first pronunciation only, no silences. Label: ``phones`` (separated by spaces; ``|`` between words
is dropped), else ``phones_cmudict``, else ``text`` and a lexicon file (``WORD P1 P2 ...`` per line,
``WORD(2)`` and later lines of a word ignored). Utterances with a word or phone that has no
pronunciation (``<oov>``) are skipped and counted, so are training utterances whose target does not
fit into the frames of the upstream.

Symbols: with stress-marked ARPAbet (LibriSpeech) ``superb`` uses SUPERB's inventory, 74 outputs:
``<pad>`` (the CTC blank), ``<eos>``, ``<unk>``, SIL, SPN and 69 phones. ``fixed``, and any other set
of phones, uses the blank and the phones of the corpus, all parts together: a phone that train lacks
is never learned and counts as the error that it is.

``superb`` repeats s3prl's recipe (``downstream/ctc``): ``<eos>`` ends every target and is trained
and then dropped in decoding; batches are windows of 16 over the utterances in the order of
descending target length, one window per utterance, so that the shortest and longest are seen less
often; a window whose first utterance is longer than 300 000 samples at 16 kHz loses its second
half; two windows per update, 100 000 updates.

``fixed`` differs in: stress marks of ARPAbet vowels are dropped (39 phones): they come from a
dictionary, not from what was said, and thin out the training data of every vowel; every utterance
is seen once per epoch, in batches of 16 of like duration; no ``<eos>``, which costs frames and
means nothing to CTC; training stops when dev no longer improves, at most 20 000 updates; ties on
dev are told apart by dev loss.

Score: edit distances over reference lengths over the whole test set; ``superb`` keeps stress marks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from mynah.downstream.linear_ctc import LinearCTC
from mynah.tasks.core.contract import Data, DataError, Protocol, Spec, Task
from mynah.tasks.core.ctc import ctc_losses, frames_needed, greedy
from mynah.tasks.core.splits import (
    as_splits,
    check_disjoint,
    first_few,
    given_or_made,
    labelled,
    speaker_unit,
)
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.error_rate import error_rate
from mynah.tasks.metrics.metric import Metric

SPEC = Spec(
    name="pr",
    problem="the sequence of phones that was said",
    resolution="frame",
    labels=("phones|phones_cmudict|text",),
    metric="per",
    higher_is_better=False,
    split_unit="speaker",
    version=1,
    licence="LibriSpeech: CC-BY 4.0",
    citation="Panayotov et al. 2015, doi:10.1109/ICASSP.2015.7178964; SUPERB: arXiv:2105.01051",
)

_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
_PHONES = [*_CONSONANTS.split(), *(vowel + stress for vowel in _VOWELS.split() for stress in "012")]
ARPABET = ("SIL", "SPN", *sorted(_PHONES))
SUPERB_SYMBOLS = ("<pad>", "<eos>", "<unk>", *ARPABET)
EOS, UNK, WORD_MARK = "<eos>", "<unk>", "|"
HALVE_SECONDS = 300_000 / 16_000
STRESSED = re.compile(rf"^({_VOWELS.replace(' ', '|')})[012]$")
UNKNOWN_PHONES = ("<oov>", UNK, "<spoken_noise>")


def read_lexicon(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a lexicon: a word and its phones per line; the first pronunciation of a word counts.

    Raises:
        FileNotFoundError: no such file.
        DataError: a line without phones, or an empty file; the message names the line.
    """
    words: dict[str, tuple[str, ...]] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip() or line.startswith(";;;"):
                continue
            word, *phones = line.split()
            if not phones:
                raise DataError(f"{path}:{number}: {word!r} has no pronunciation")
            words.setdefault(re.sub(r"\(\d+\)$", "", word).upper(), tuple(phones))
    if not words:
        raise DataError(f"{path} holds no pronunciation")
    return words


class PhonemeRecognition(Task):
    """Phoneme recognition under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": Protocol(
            batch_size=16, accumulate=1, clip=1.0, steps=20_000, eval_every=250, patience=12,
            sampler="bucket",
        ),
        "superb": Protocol(
            batch_size=16, accumulate=2, clip=1.0, steps=100_000, eval_every=1_000,
            sampler="length-window", ties="first",
        ),
    }  # fmt: skip
    USES_LEXICON = True

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._words = None if self.lexicon is None else read_lexicon(self.lexicon)
        self._symbols: tuple[str, ...] = ()
        self._index: dict[str, int] = {}

    # -- data -------------------------------------------------------------------------------

    def _spelled(self, utterance: Utterance) -> str | None:
        """Return what says the phones: a phone label, or the text where there is a lexicon."""
        if self._words is not None:
            return utterance.text
        return utterance.label("phones") or utterance.label("phones_cmudict")

    def phones(self, utterance: Utterance) -> list[str]:
        """Return the phones of an utterance; unknown words give ``<oov>``."""
        spelled = (self._spelled(utterance) or "").split()
        if self._words is None:
            phones = [phone for phone in spelled if phone != WORD_MARK]
        else:
            words = self._words
            phones = [p for word in spelled for p in words.get(word.upper(), ("<oov>",))]
        if self.protocol_name == "superb":
            return phones
        return [STRESSED.sub(r"\1", phone) for phone in phones]

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split by speaker and check; see :meth:`~mynah.tasks.core.contract.Task.load`."""
        name = "text" if self._words is not None else "phones (or text, with --lexicon)"
        kept = labelled(utterances, self._spelled, task="pr", name=name)
        empty = [u.id for u in kept if not self.phones(u)]
        if empty:
            raise DataError(f"these utterances have no phones to recognise: {first_few(empty)}")
        skipped = {
            u.id: "a word or phone without pronunciation"
            for u in kept
            if set(self.phones(u)) & set(UNKNOWN_PHONES)
        }
        kept = [u for u in kept if u.id not in skipped]
        if not kept:
            raise DataError(
                f"every utterance has a word without pronunciation: {first_few(skipped)}"
            )
        unit, unit_name = speaker_unit(kept)
        parts, note = given_or_made(
            kept, unit, unit_name=unit_name, seed=seed, take_given=self.splits == "corpus"
        )
        check_disjoint(parts, unit, unit_name=unit_name)
        found = {phone for u in kept for phone in self.phones(u)}
        unseen = found - {phone for u in parts["train"] for phone in self.phones(u)}
        superb = self.protocol_name == "superb"
        if superb and found <= set(ARPABET):
            self._use(SUPERB_SYMBOLS)
        else:
            special = ("<pad>", EOS, UNK) if superb else ("<pad>",)
            self._use((*special, *sorted(found)))
        self.data = Data(
            folds={"": as_splits(parts)},
            classes=self._symbols[1:],
            skipped=skipped,
            notes=(
                note,
                f"{len(self._symbols)} symbols with the blank"
                + (f", not in train: {first_few(sorted(unseen))}" if unseen else ""),
            ),
        )
        return self.data

    # -- training ---------------------------------------------------------------------------

    @property
    def outputs(self) -> int:
        """Number of symbols, the blank included."""
        self.loaded  # noqa: B018 - raises where nothing was loaded
        return len(self._symbols)

    def head(self, dim: int) -> nn.Module:
        """Return Linear D -> 256, Linear 256 -> V at every frame."""
        return LinearCTC(dim, self.outputs)

    def target(self, utterance: Utterance) -> list[int]:
        """Return the symbols to train on."""
        symbols = [self._index[phone] for phone in self.phones(utterance)]
        return [*symbols, self._index[EOS]] if self.protocol_name == "superb" else symbols

    def target_length(self, utterance: Utterance) -> int:
        """Return the number of symbols to train on."""
        return len(self.target(utterance))

    def window_limit(self, utterance: Utterance) -> bool:
        """Return whether an utterance is longer than 300 000 samples at 16 kHz."""
        return utterance.duration > HALVE_SECONDS

    def too_short(self, utterance: Utterance, frames: int) -> str | None:
        """Return a reason where the target does not fit into the frames."""
        needed = frames_needed(self.target(utterance))
        return None if needed <= frames else f"{frames} frames for a target that needs {needed}"

    def losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return CTC losses (K, B), each over the length of its target."""
        return ctc_losses(outputs, lengths_B, [self.target(u) for u in batch])

    # -- scoring ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the symbols, the blank included."""
        return {"symbols": list(self._symbols)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the symbols."""
        self._use(tuple(state["symbols"]))
        self.data = Data(folds={}, classes=self._symbols[1:])

    def _use(self, symbols: tuple[str, ...]) -> None:
        self._symbols = symbols
        self._index = {symbol: i for i, symbol in enumerate(symbols)}

    def decode(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> list[str]:
        """Return the greedy phones of (B, T, V), separated by spaces."""
        end = self._index.get(EOS)
        paths = greedy(outputs, lengths_B)
        return [" ".join(self._symbols[s] for s in path if s != end) for path in paths]

    def reference(self, utterance: Utterance) -> str:
        """Return the reference phones, separated by spaces."""
        return " ".join(self.phones(utterance))

    def metrics(self) -> tuple[Metric, ...]:
        """Return PER."""
        norm = "none" if self.protocol_name == "superb" else "no-stress"
        return (error_rate("phone", norm=norm),)


TASK = PhonemeRecognition
