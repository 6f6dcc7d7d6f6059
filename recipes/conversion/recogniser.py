"""A head that writes what it hears, words or phones, beside what should have been written.

Words are compared as ``mynah judge vc`` compares them; phones as task ``pr`` scores them (without
stress under ``fixed``). On the speech of learners a recogniser of phones is the better judge: it has
no words to guess by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mynah.recipes import judge
from mynah.recipes.ears import Ears
from mynah.recipes.listening import Listener
from mynah.tasks.core.characters import EOS, PAD, UNK
from mynah.tasks.core.contract import DataError
from mynah.tasks.core.splits import first_few
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.error_rate import error_rate
from mynah.tasks.metrics.metric import Metric
from mynah.tasks.pr import UNKNOWN_PHONES, PhonemeRecognition
from mynah.tasks.vc import plain_words

METRICS = ("wer", "cer", "per")
"""Of tasks whose heads may be given."""

Writes = Literal["words", "phones"]


class Recogniser:
    """What a head writes, and what it should.

    Attributes:
        head: file of the head.
        writes: ``words`` or ``phones``.

    Args:
        head: see above.
        listener: the head, opened.
        ears: that keep what it heard.
    """

    def __init__(self, head: Path, listener: Listener, ears: Ears) -> None:
        self.head, self.listener, self.ears = head, listener, ears
        self._pr = listener.task if isinstance(listener.task, PhonemeRecognition) else None
        self.writes: Writes = "words" if self._pr is None else "phones"

    def reference(self, utterance: Utterance) -> str | None:
        """Return the text, or the phones, of an utterance; None where it has none to compare with."""
        if self._pr is None:
            text = utterance.text
            return text if text and plain_words(text) else None
        phones = self._pr.phones(utterance)
        if not phones or set(phones) & set(UNKNOWN_PHONES):
            return None
        return self._pr.reference(utterance)

    def transcript(self, file: Path) -> str | None:
        """Return the words that the head writes of a file, None where it writes phones.

        Raises:
            BadAudioError, ValueError, DataError: as the listener.
        """
        return None if self._pr is not None else str(self.ears.said(self.listener, file))

    def phones(self, utterance: Utterance, file: Path) -> tuple[str, str] | None:
        """Return the phones of an utterance, and those that the head writes of a file.

        None where the head writes words, or the utterance has no phones to compare with.

        Raises:
            BadAudioError, ValueError, DataError: as the listener.
        """
        said = self.reference(utterance)
        if self._pr is None or said is None:
            return None
        return said, str(self.ears.said(self.listener, file))

    def phone_errors(self) -> Metric:
        """Return PER; its signature names the head."""
        norm = (
            "none" if self._pr is not None and self._pr.protocol_name == "superb" else "no-stress"
        )
        metric = error_rate("phone", norm=norm)
        by = f"|asr:{judge.name_of(self.head)}|v1"
        return dataclasses.replace(metric, signature=metric.signature.replace("|v1", by))

    def check(self, sources: Sequence[Utterance]) -> None:
        """Refuse sources of which not one can be compared with what the head writes.

        Raises:
            DataError: none has a text, or phones, or none of their phones is one of the head's.
        """
        found = [said for u in sources if (said := self.reference(u)) is not None]
        if self._pr is None:
            if not found:
                raise DataError(
                    f"--asr {self.head} writes words, for CER, and none of {len(sources)} sources "
                    "has a text to compare them with: prepare the corpus with texts, give a head of "
                    "pr where it has the label 'phones', or leave --asr out"
                )
            return
        if not found:
            raise DataError(
                f"--asr {self.head} writes phones, for PER, and none of {len(sources)} sources has "
                "the label 'phones' (or 'phones_cmudict'), with a pronunciation of every word: "
                "prepare the corpus with it, give a head of asr where there are texts, or leave "
                "--asr out"
            )
        wanted = {phone for said in found for phone in said.split()}
        known = [symbol for symbol in self._pr.symbols if symbol not in (PAD, EOS, UNK)]
        if not wanted & set(known):
            raise DataError(
                f"--asr {self.head} writes other phones ({first_few(known)}) than the "
                f"label 'phones' has ({first_few(sorted(wanted))}): give a head that was trained on "
                "the same set of phones"
            )
