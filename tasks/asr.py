"""ASR, speech recognition: the words that were said, with or without a language model.

Official corpus: LibriSpeech train-clean-100, dev-clean, test-clean. Label: ``text``, which is put
into upper case and Unicode's NFC; the rest of it is taken as it is, so take out beforehand what
nobody says. Symbols are characters, with ``|`` between words and after the last one.

``superb`` repeats s3prl's recipe (``downstream/asr``): the 32 symbols of fairseq's dictionary (``<s>``
as the CTC blank, ``<pad>``, ``</s>``, ``<unk>``, ``|``, A to Z and ``'``; any other character is a fault
in the data); ``</s>`` ends every target and is trained and then dropped in decoding; a Linear to
1024, two layers of 2 x 1024 LSTM units, a Linear to the symbols, at every frame; SpecAug on the
weighted sum; batches of 16 of like duration, 200 000 updates, dev scored every 2000. Batches are cut
once, of utterances in the order of descending duration, and each epoch shuffles them whole. The
config there says batches of 32, but each is cut in two; not the last, which has up to 31, and is
dropped where it has 1.

``fixed`` differs in: each epoch cuts its own batches; symbols are the blank, ``|`` and the
characters of the corpus, all parts together (a character that train lacks counts as the error that
it is); no ``</s>``, which costs a frame and means nothing to CTC; SpecAug's masks grow with the width
of the features and with the length of the utterance, since at their published sizes they leave
little of narrow features or of short utterances; three learning rates, 1e-2 to 1e-4, for at 1e-1
this head diverges and at 1e-5 it does not get far; training stops when dev no longer improves, at
most 20 000 updates; ties on dev are told apart by dev loss. ``|`` still ends every target: a
decoder with words needs it to end the last one.

The ``small`` head has a projection of 128 and 2 x 128 LSTM units a layer.

Decoding: the best path. With ``--lm FILE`` test, not dev, is decoded with the words of an n-gram
model (``core/lm_decoder``), under both protocols. Score: ``wer``, word errors over reference words of
the whole test set, and ``cer``, likewise of characters, spaces between words among them (s3prl's UER
counts the last ``|`` too). With a model the signatures name it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from string import ascii_uppercase
from typing import ClassVar

from torch import Tensor, nn

from mynah.downstream.blstm_ctc import SUPERB_SPECAUG
from mynah.tasks.core.characters import (
    FIXED,
    PAD,
    UNK,
    Spelling,
    normalised,
    transcribed,
)
from mynah.tasks.core.contract import Data, DataError, Facts, Protocol, Spec
from mynah.tasks.core.lm_decoder import BOUNDARY, LMDecoder, check_lm, signature_of
from mynah.tasks.core.splits import first_few
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.error_rate import error_rate
from mynah.tasks.metrics.metric import Metric

SPEC = Spec(
    name="asr",
    problem="the words that were said",
    resolution="frame",
    labels=("text",),
    metric="wer",
    higher_is_better=False,
    split_unit="speaker",
    version=2,
    licence="LibriSpeech: CC-BY 4.0",
    citation="Panayotov et al. 2015, doi:10.1109/ICASSP.2015.7178964; SUPERB: arXiv:2105.01051",
)

SUPERB_SYMBOLS = ("<s>", PAD, "</s>", UNK, BOUNDARY, *ascii_uppercase, "'")


class SpeechRecognition(Spelling):
    """Speech recognition under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": FIXED,
        "superb": Protocol(
            batch_size=16, accumulate=1, clip=1.0, steps=200_000, eval_every=2_000,
            sampler="length-bucket", ties="first",
        ),
    }  # fmt: skip
    USES_LM = True
    HAS_SMALL_HEAD = True
    END = "</s>"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._decoder: LMDecoder | None = None
        if self.lm is not None:
            check_lm(self.lm)

    # -- data -------------------------------------------------------------------------------

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split by speaker and check; see :meth:`~mynah.tasks.core.contract.Task.load`."""
        kept = transcribed(utterances, task="asr")
        strange: dict[str, str] = {}
        for u in kept:
            for character in set(normalised(u.text or "")) - {" "}:
                fits = character in SUPERB_SYMBOLS if self._superb else character.isprintable()
                if character == BOUNDARY or not fits:
                    strange.setdefault(character, u.id)
        if strange:
            wanted = "A to Z and '" if self._superb else "what can be printed, and not |"
            raise DataError(
                "asr cannot spell these characters: "
                f"{first_few(f'{c!r} of {strange[c]}' for c in sorted(strange))}; under "
                f"{self.protocol_name} it spells {wanted}: mend the texts"
            )
        return self.spell(kept, seed=seed)

    def spelled(self, utterance: Utterance) -> list[str]:
        """Return the characters, with ``|`` for spaces and at the end."""
        return [*normalised(utterance.text or "").replace(" ", BOUNDARY), BOUNDARY]

    def written(self, symbols: Sequence[str]) -> str:
        """Return the words that characters spell."""
        return " ".join("".join(symbols).replace(BOUNDARY, " ").split())

    def inventory(self, train: set[str], rest: set[str]) -> tuple[str, ...]:
        """Return fairseq's symbols, or the blank, ``|`` and the characters of the corpus."""
        if self._superb:
            return SUPERB_SYMBOLS
        return (PAD, BOUNDARY, *sorted((train | rest) - {BOUNDARY}))

    def bind(self, facts: Facts) -> None:
        """Take the upstream's facts and read the language model, if there is one.

        Raises:
            DataError, ValueError: the model cannot be used with this corpus.
        """
        super().bind(facts)
        if self.lm is not None:
            self._decoder = LMDecoder(self.lm, self.symbols)

    # -- training ---------------------------------------------------------------------------

    def head(self, dim: int) -> nn.Module:
        """Return the bidirectional LSTMs at every frame."""
        return self.lstms(dim, SUPERB_SPECAUG)

    # -- scoring ----------------------------------------------------------------------------

    def infer(
        self, probe: nn.Module, features: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> list[str]:
        """Return the words of each item, by the language model where there is one."""
        outputs = probe(features, lengths_B)
        if self._decoder is None:
            return self.decode(outputs, lengths_B, batch)
        return [normalised(text) for text in self._decoder(outputs, lengths_B)]

    def metrics(self) -> tuple[Metric, ...]:
        """Return WER and CER; their signatures name the language model."""
        found = (error_rate("word", norm="upper"), error_rate("char", norm="upper"))
        if self.lm is None:
            return found
        by = signature_of(self.lm)
        return tuple(
            dataclasses.replace(m, signature=m.signature.replace("|v1", f"|{by}|v1")) for m in found
        )

    def dev_metric(self) -> Metric:
        """Return the WER of the best path: dev is not decoded with a language model."""
        return error_rate("word", norm="upper")


TASK = SpeechRecognition
