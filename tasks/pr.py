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
dev are told apart by dev loss; the learning rate grows over the first 200 updates. Without that growth
heads on the same features end in one of two places, by the luck of their initial weights: a PER of .79
with one seed and of .87 to .90 with four others, for one model on a quarter of an hour of speech;
with it all do well, in a third of the updates.

Score: edit distances over reference lengths over the whole test set; ``superb`` keeps stress marks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from mynah.downstream.linear_ctc import LinearCTC
from mynah.tasks.core.characters import EOS, PAD, UNK, Spelling
from mynah.tasks.core.contract import Data, DataError, Presented, Protocol, Spec
from mynah.tasks.core.ctc import greedy_times
from mynah.tasks.core.splits import first_few, labelled
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
    version=2,
    licence="LibriSpeech: CC-BY 4.0",
    citation="Panayotov et al. 2015, doi:10.1109/ICASSP.2015.7178964; SUPERB: arXiv:2105.01051",
)

_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
_PHONES = [*_CONSONANTS.split(), *(vowel + stress for vowel in _VOWELS.split() for stress in "012")]
ARPABET = ("SIL", "SPN", *sorted(_PHONES))
SUPERB_SYMBOLS = (PAD, EOS, UNK, *ARPABET)
WORD_MARK = "|"
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


class PhonemeRecognition(Spelling):
    """Phoneme recognition under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": Protocol(
            batch_size=16, accumulate=1, clip=1.0, steps=20_000, eval_every=250, patience=12,
            sampler="bucket", warmup=200,
        ),
        "superb": Protocol(
            batch_size=16, accumulate=2, clip=1.0, steps=100_000, eval_every=1_000,
            sampler="length-window", ties="first",
        ),
    }  # fmt: skip
    USES_LEXICON = True

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._words = None if self.lexicon is None else read_lexicon(self.lexicon)

    # -- data -------------------------------------------------------------------------------

    def _said(self, utterance: Utterance) -> str | None:
        """Return what says the phones: a phone label, or the text where there is a lexicon."""
        if self._words is not None:
            return utterance.text
        return utterance.label("phones") or utterance.label("phones_cmudict")

    def phones(self, utterance: Utterance) -> list[str]:
        """Return the phones of an utterance; unknown words give ``<oov>``."""
        spelled = (self._said(utterance) or "").split()
        if self._words is None:
            phones = [phone for phone in spelled if phone != WORD_MARK]
        else:
            words = self._words
            phones = [p for word in spelled for p in words.get(word.upper(), ("<oov>",))]
        if self._superb:
            return phones
        return [STRESSED.sub(r"\1", phone) for phone in phones]

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split by speaker and check; see :meth:`~mynah.tasks.core.contract.Task.load`."""
        name = "text" if self._words is not None else "phones (or text, with --lexicon)"
        kept = labelled(utterances, self._said, task="pr", name=name)
        empty = [u.id for u in kept if not self.phones(u)]
        if empty:
            raise DataError(f"these utterances have no phones to recognise: {first_few(empty)}")
        skipped = {
            u.id: "a word or phone without pronunciation" + self._unspelled([u])
            for u in kept
            if set(self.phones(u)) & set(UNKNOWN_PHONES)
        }
        without = [u for u in kept if u.id in skipped]
        kept = [u for u in kept if u.id not in skipped]
        if not kept:
            raise DataError(
                f"every utterance has a word without pronunciation{self._unspelled(without)}; "
                f"utterances: {first_few(skipped)}"
            )
        return self.spell(kept, seed=seed, skipped=skipped)

    def _unspelled(self, utterances: Sequence[Utterance]) -> str:
        """Return, for a message, the words that the lexicon lacks; nothing without one."""
        if self._words is None:
            return ""
        said = {word.upper() for u in utterances for word in (u.text or "").split()}
        return f": {first_few(sorted(said - self._words.keys()))}"

    def spelled(self, utterance: Utterance) -> list[str]:
        """Return the phones."""
        return self.phones(utterance)

    def written(self, symbols: Sequence[str]) -> str:
        """Return phones separated by spaces."""
        return " ".join(symbols)

    def inventory(self, train: set[str], rest: set[str]) -> tuple[str, ...]:
        """Return SUPERB's 74 symbols, or those of the corpus."""
        found = train | rest
        if self._superb and found <= set(ARPABET):
            return SUPERB_SYMBOLS
        special = (PAD, EOS, UNK) if self._superb else (PAD,)
        return (*special, *sorted(found))

    # -- training ---------------------------------------------------------------------------

    def head(self, dim: int) -> nn.Module:
        """Return Linear D -> 256, Linear 256 -> V at every frame."""
        return LinearCTC(dim, self.outputs)

    # -- scoring ----------------------------------------------------------------------------

    def predict(
        self, probe: nn.Module, features: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> list[Presented]:
        """Return the greedy phones of each item, with the times of their CTC spikes in seconds."""
        end = self._index.get(EOS)
        frame = self.facts.frame_seconds
        out = []
        for path in greedy_times(probe(features, lengths_B), lengths_B):
            phones = [
                {
                    "phone": self.symbols[one.symbol],
                    "start": round(one.first * frame, 6),
                    "end": round(one.end * frame, 6),
                }
                for one in path
                if one.symbol != end
            ]
            text = " ".join(str(phone["phone"]) for phone in phones)
            out.append(Presented(text=text, json={"text": text, "phones": phones}))
        return out

    def metrics(self) -> tuple[Metric, ...]:
        """Return PER."""
        norm = "none" if self._superb else "no-stress"
        return (error_rate("phone", norm=norm),)


TASK = PhonemeRecognition
