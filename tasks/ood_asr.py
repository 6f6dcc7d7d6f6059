"""OOD-ASR, speech recognition out of domain: other languages, and speech that is not read.

Official corpora (SUPERB-SG): Common Voice 7 in Mexican Spanish, Chinese and Arabic, and SBCSAE,
spontaneous American English, each a corpus and a run of its own. Label: ``text``, put into upper case
and NFC; ``language`` says how it is scored. Symbols are characters, the space among them. In the
embedded corpus test is its subset ``accent``, whose accents train does not have.

``superb`` repeats s3prl's recipe (``downstream/ctc``, ``cv_config`` and ``sbcsae.yaml``): ``<pad>`` (the CTC
blank), ``<eos>``, ``<unk>`` and the characters of train, ``<unk>`` standing for any other, in references
too, where it counts as the five characters it is written with; ``<eos>`` ends every target and is
trained and then dropped in decoding; a Linear to 1024, every frame that begins 20 ms (every second
one of upstreams with 10 ms), two layers of 2 x 1024 LSTM units with a Linear and tanh after each, a
Linear to the symbols; SpecAug on the weighted sum; batches are windows of 16 over the
utterances in the order of descending duration, one window per utterance, a window whose first is
longer than 300 000 samples at 16 kHz loses its second half; 500 000 updates, dev scored every 2000,
for Chinese and Arabic every 5000. Its inventories were counted once, in train of that release as it
seems; here they are counted anew. Where the shortest utterances begin a window it draws the last 16
whole, here the window is shorter.

``fixed`` differs in: the characters of the corpus, all parts together, and no ``<unk>``: a character
that train lacks counts as the one error that it is; no ``<eos>``; every utterance is seen once per
epoch, in batches of 16 of like duration; masks and learning rates as in ASR; training
stops when dev no longer improves, at most 20 000 updates; ties on dev are told apart by dev loss.

The ``small`` head has a projection of 128 and 2 x 128 LSTM units a layer.

Decoding: the best path. Score: ``error_rate``, edits over reference length of the whole test set, of
words, and of characters for languages written without spaces (``zh``, ``ja``, with any region); its
signature says which. ``cer``, and ``wer`` for the other languages, are given too. SUPERB-SG reports the
plain mean of ``error_rate`` over the four corpora. Intervals are by speaker, else by ``session``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from mynah.downstream.blstm_ctc import SUPERB_SPECAUG
from mynah.tasks.core.characters import (
    EOS,
    FIXED,
    PAD,
    UNK,
    Spelling,
    normalised,
    transcribed,
)
from mynah.tasks.core.contract import Data, DataError, Decoded, Protocol, Rows, Spec, Split
from mynah.tasks.core.splits import Unit, first_few, speaker_unit
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.error_rate import error_rate
from mynah.tasks.metrics.metric import Metric

SPEC = Spec(
    name="ood_asr",
    problem="what was said, in another language or not read aloud",
    resolution="frame",
    labels=("text",),
    metric="error_rate",
    higher_is_better=False,
    split_unit="speaker",
    version=1,
    licence="Common Voice: CC0; SBCSAE: CC-BY-ND 3.0 US",
    citation="SUPERB-SG: Tsai et al. 2022, arXiv:2203.06849; Ardila et al. 2020, arXiv:1912.06670; "
    "Du Bois et al. 2000-2005, Santa Barbara Corpus of Spoken American English",
)

FRAME_SECONDS = 320 / 16_000  # of the outputs
UNSPACED = ("zh", "ja")
RARELY_SCORED = ("zh", "ar")  # dev every 5000 updates
ACCENT = "accent"


class OutOfDomainRecognition(Spelling):
    """Speech recognition of one language under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": FIXED,
        "superb": Protocol(
            batch_size=16, accumulate=1, clip=1.0, steps=500_000, eval_every=2_000,
            sampler="length-window", ties="first",
        ),
    }  # fmt: skip
    HAS_SMALL_HEAD = True

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.language = ""

    # -- data -------------------------------------------------------------------------------

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split and check; see :meth:`~mynah.tasks.core.contract.Task.load`.

        Raises:
            DataError: besides, utterances in several languages.
        """
        given = self.splits == "corpus"
        if given and any(u.label("subset") == ACCENT for u in utterances):
            utterances = [u for u in utterances if u.split != "test" or u.label("subset") == ACCENT]
        kept = transcribed(utterances, task="ood_asr")
        languages = {u.label("language") or "": u.id for u in kept}
        if len(languages) > 1:
            raise DataError(
                "ood_asr is one language at a time: prepare a corpus for each; here are "
                + first_few(
                    f"{language or 'none'} ({name})" for language, name in languages.items()
                )
            )
        (self.language,) = languages
        if self._superb and self._is(RARELY_SCORED):
            self.protocol = dataclasses.replace(self.protocol, eval_every=5_000)
        by = self.language or "no language is named"
        counted = "characters" if self._is(UNSPACED) else "words"
        return self.spell(
            kept, seed=seed, unit=_unit(kept), notes=[f"{by}: errors of {counted} are counted"]
        )

    def _is(self, languages: Sequence[str]) -> bool:
        return self.language.lower().replace("_", "-").partition("-")[0] in languages

    def spelled(self, utterance: Utterance) -> list[str]:
        """Return the characters, without spaces where the language has none."""
        text = normalised(utterance.text or "")
        return list(text.replace(" ", "") if self._is(UNSPACED) else text)

    def written(self, symbols: Sequence[str]) -> str:
        """Return the text that characters spell; runs of spaces count as one."""
        return " ".join("".join(symbols).split())

    def inventory(self, train: set[str], rest: set[str]) -> tuple[str, ...]:
        """Return the characters of train after three of SUPERB's, or those of the corpus."""
        if self._superb:
            return (PAD, EOS, UNK, *sorted(train))
        return (PAD, *sorted(train | rest))

    # -- training ---------------------------------------------------------------------------

    @property
    def stride_factor(self) -> int:
        """Frames of the upstream for one output: as many as there are in 20 ms."""
        return max(1, round(FRAME_SECONDS / self.facts.frame_seconds))

    def output_lengths(self, lengths_B: Tensor) -> Tensor:
        """Return how many frames of outputs the head makes of items of these lengths."""
        return lengths_B // self.stride_factor

    def head(self, dim: int) -> nn.Module:
        """Return the bidirectional LSTMs at every 20 ms."""
        return self.lstms(dim, SUPERB_SPECAUG, projections=True, stride_factor=self.stride_factor)

    def target_length(self, utterance: Utterance) -> int:
        """Return the duration in samples at 16 kHz: windows are in its order, not the text's."""
        return round(utterance.duration * 16_000)

    # -- scoring ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the symbols and the language."""
        return {**super().state(), "language": self.language}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the symbols and the language."""
        self.language = state["language"]
        super().restore(state)

    def rows(self, split: Split, decoded: Sequence[Decoded]) -> Rows:
        """Return the rows of a split; sessions are their units where speakers are not known."""
        found = super().rows(split, decoded)
        sessions = [u.label("session") for u in split.utterances]
        if found.unit != "utterance" or not all(sessions):
            return found
        return dataclasses.replace(found, units=[str(s) for s in sessions], unit="session")

    def metrics(self) -> tuple[Metric, ...]:
        """Return the error rate of the language, and by unit."""
        words, characters = error_rate("word", norm="upper"), error_rate("char", norm="upper")
        kinds = (characters,) if self._is(UNSPACED) else (words, characters)
        signature = kinds[0].signature.replace(kinds[0].name, SPEC.metric, 1)
        main = dataclasses.replace(kinds[0], name=SPEC.metric, signature=signature)
        return (main, *kinds)


def _unit(utterances: Sequence[Utterance]) -> tuple[Unit, str]:
    """Return speakers as what parts must not share, else sessions, else utterances."""
    unit = speaker_unit(utterances)
    if unit[1] != "speaker" and all(u.label("session") for u in utterances):
        return (lambda u: str(u.label("session"))), "session"
    return unit


TASK = OutOfDomainRecognition
