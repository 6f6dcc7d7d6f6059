"""Beam search of CTC outputs with words and an n-gram language model: ASR with LM.

Flashlight's lexicon decoder (Kahn et al. 2022, arXiv:2201.12465) as ``torchaudio`` offers it, with
SUPERB's settings (protocol, section 1.2): beam 5, threshold 25, all symbols at each step, weight 2 of
the model, -1 for each word, 0 for each word boundary, unknown words forbidden, alignments of one
hypothesis by their best (``log_add`` off), look-ahead by the best word that a prefix may become
(smearing MAX). It needs the extra ``lm``.

The language model is a file that KenLM reads: an ARPA file, or its binary form. The lexicon is made
here: every word of the model is spelled with its letters in upper case and the boundary ``|``. The
words of an ARPA file are its 1-grams; where a file NAME.words lies beside a model NAME it is read in
their place (the first field of each line is a word), which a binary model needs. A word with a
letter that is no symbol cannot be said, and is left out.

Shape suffixes: B batch, T frames, V symbols.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from mynah.files import sha256_of
from mynah.tasks.core.characters import normalised
from mynah.tasks.core.contract import DataError
from mynah.tasks.core.ctc import BLANK
from mynah.tasks.core.splits import first_few

log = logging.getLogger(__name__)

BEAM, THRESHOLD, LM_WEIGHT, WORD_SCORE = 5, 25.0, 2.0, -1.0
BOUNDARY = "|"
NO_WORDS = frozenset({"<s>", "</s>", "<unk>", "<UNK>"})
_BINARY = b"mmap lm http://kheafield.com/code"  # how KenLM's binary files begin
_GZIP = b"\x1f\x8b"


def check_lm(path: Path) -> None:
    """Refuse a language model that cannot be used, before any work is done.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the extra ``lm`` is not installed, the file is compressed, or it is neither ARPA
            nor KenLM's, or a binary one without a list of words.
    """
    if importlib.util.find_spec("flashlight") is None:
        raise ValueError(
            "decoding with a language model needs flashlight-text, which is not installed: "
            "pip install 'mynah[lm]' (there is none for Python 3.13 and later); without --lm the "
            "task decodes greedily"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; wanted is an ARPA file or KenLM's binary")
    with path.open("rb") as file:
        start = file.read(4096)
    if start.startswith(_GZIP):
        raise ValueError(f"{path} is compressed: gunzip it first")
    if start.startswith(_BINARY):
        if not words_beside(path).is_file():
            raise ValueError(
                f"{path} is a binary model, which does not say its words: list them in "
                f"{words_beside(path)}, one a line"
            )
    elif b"\\data\\" not in start:
        raise ValueError(f"{path} is no language model: wanted is an ARPA file or KenLM's binary")


def words_beside(path: Path) -> Path:
    """Return where the list of a model's words is looked for."""
    return path.with_name(f"{path.name}.words")


def words_of(path: Path) -> list[str]:
    """Return the words that a model may say: of the list beside it, else its 1-grams.

    Raises:
        DataError: an ARPA file whose 1-grams are not what its header says; the message names the
            line.
    """
    beside = words_beside(path)
    if beside.is_file():
        with beside.open(encoding="utf-8") as file:
            found = [line.split()[0] for line in file if line.strip()]
    else:
        found = list(_unigrams(path))
    return [word for word in dict.fromkeys(found) if word not in NO_WORDS]


def _unigrams(path: Path) -> Iterator[str]:
    """Yield the 1-grams of an ARPA file: ``logprob <tab> word [<tab> backoff]`` per line."""
    wanted = seen = 0
    inside = False
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(map(str.strip, file), start=1):
            if not inside:
                if line.replace(" ", "").startswith("ngram1="):
                    count = line.rpartition("=")[2].strip()
                    wanted = int(count) if count.isdecimal() else -1
                inside = line == "\\1-grams:"
            elif line.startswith("\\"):
                break
            elif line:
                fields = line.split()
                if not 2 <= len(fields) <= 3:
                    raise DataError(f"{path}:{number}: wanted a 1-gram, got {line!r}")
                seen += 1
                yield fields[1]
    if seen != wanted or not seen:
        raise DataError(f"{path} has {seen} 1-grams, its header says {wanted}")


def signature_of(path: Path) -> str:
    """Return what a score's signature says of decoding with a model: name, hash and settings."""
    facts = path.stat()
    digest = _digest(path, facts.st_size, facts.st_mtime_ns)
    beside = "|words:listed" if words_beside(path).is_file() else ""
    return (
        f"lm:{path.name.replace('|', '_')}#{digest[:8]}{beside}|beam:{BEAM}|threshold:{THRESHOLD:g}"
        f"|lm-weight:{LM_WEIGHT:g}|word-score:{WORD_SCORE:g}"
    )


@lru_cache
def _digest(path: Path, size: int, changed: int) -> str:
    return sha256_of(path)


class LMDecoder:
    """The decoder, with a model read into memory.

    Args:
        path: of the model.
        symbols: of the outputs, the blank first; single letters and ``|`` among them.
        beam: hypotheses that are kept from frame to frame.
        threshold: hypotheses worse than the best by more than this are dropped.
        lm_weight: by which the model's log10-probabilities are multiplied.
        word_score: added for each word.

    Attributes:
        words: number of words of the lexicon.

    Raises:
        FileNotFoundError, ValueError: as :func:`check_lm` says, or KenLM cannot read the model.
        DataError: no boundary among the symbols, or no word of the model can be spelled with them.
    """

    def __init__(
        self,
        path: Path,
        symbols: Sequence[str],
        *,
        beam: int = BEAM,
        threshold: float = THRESHOLD,
        lm_weight: float = LM_WEIGHT,
        word_score: float = WORD_SCORE,
    ) -> None:
        check_lm(path)
        from torchaudio.models.decoder import ctc_decoder

        if BOUNDARY not in symbols:
            raise DataError(f"decoding with words needs the symbol {BOUNDARY!r} between them")
        spellings = lexicon(words_of(path), symbols)
        if not spellings:
            raise DataError(
                f"no word of {path} can be spelled with the {len(symbols)} symbols of the task: is "
                "it of this language?"
            )
        self.words = len(spellings)
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "lexicon.txt"
            lines = (f"{word} {' '.join(letters)}\n" for word, letters in spellings.items())
            written.write_text("".join(lines), encoding="utf-8")
            try:
                self._decoder = ctc_decoder(
                    lexicon=str(written),
                    tokens=list(symbols),
                    lm=str(path),
                    beam_size=beam,
                    beam_threshold=threshold,
                    lm_weight=lm_weight,
                    word_score=word_score,
                    unk_score=float("-inf"),
                    sil_score=0.0,
                    log_add=False,
                    blank_token=symbols[BLANK],
                    sil_token=BOUNDARY,
                )
            except RuntimeError as error:
                why = " ".join(str(error).rpartition("threw ")[2].split())
                raise ValueError(f"KenLM cannot read {path}: {why}") from error

    def __call__(self, logits_BTV: Tensor, lengths_B: Tensor) -> list[str]:
        """Return the words of each item, in the model's spelling.

        Args:
            logits_BTV: before the softmax.
            lengths_B: valid frames of each item, at least 1.
        """
        log_probs_BTV = logits_BTV.detach().float().log_softmax(dim=-1).cpu().contiguous()
        found = self._decoder(log_probs_BTV, lengths_B.cpu())
        return [" ".join(hypotheses[0].words) for hypotheses in found]


def lexicon(words: Sequence[str], symbols: Sequence[str]) -> dict[str, list[str]]:
    """Return the letters of each word that the symbols can spell, each with ``|`` after it."""
    known = set(symbols) - {BOUNDARY}
    spelled = {word: list(normalised(word)) for word in words}
    strange = [word for word, letters in spelled.items() if not known.issuperset(letters)]
    if strange:
        log.info("words of the language model with other letters: %s", first_few(strange))
    left_out = set(strange)
    return {w: [*letters, BOUNDARY] for w, letters in spelled.items() if w not in left_out}
