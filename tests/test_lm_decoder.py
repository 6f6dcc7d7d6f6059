"""Decoding with words and an n-gram model: against an exhaustive search, and what cannot be used."""

import importlib.util
import math
from itertools import product
from pathlib import Path

import pytest
import torch

from mynah.tasks.core import lm_decoder
from mynah.tasks.core.contract import DataError
from mynah.tasks.core.lm_decoder import (
    LMDecoder,
    check_lm,
    lexicon,
    signature_of,
    words_of,
)

needs_flashlight = pytest.mark.skipif(
    importlib.util.find_spec("flashlight") is None, reason="the extra lm is not installed"
)
SYMBOLS = ("<pad>", "|", "A", "B")
UNIGRAMS = {"</s>": (-0.8, 0.0), "a": (-0.5, -0.3), "b": (-0.9, -0.2), "ba": (-0.7, -0.1)}
BIGRAMS = {("<s>", "ba"): -0.2, ("a", "b"): -0.3, ("ba", "a"): -0.15, ("b", "</s>"): -0.1}
START_BACKOFF = -0.4


def arpa(path: Path, *, upper: bool = False) -> Path:
    """Write a bigram model over a, b and ba."""
    lines = ["\\data\\", f"ngram 1={len(UNIGRAMS) + 2}", f"ngram 2={len(BIGRAMS)}", ""]
    lines += ["\\1-grams:", "-2.0\t<unk>", f"-99\t<s>\t{START_BACKOFF}"]
    lines += [f"{p}\t{w}\t{b}" if w != "</s>" else f"{p}\t{w}" for w, (p, b) in UNIGRAMS.items()]
    lines += ["", "\\2-grams:", *(f"{p}\t{' '.join(pair)}" for pair, p in BIGRAMS.items())]
    text = "\n".join([*lines, "", "\\end\\", ""])
    if upper:
        for word in ("ba", "a", "b"):
            text = text.replace(f"\t{word}\t", f"\t{word.upper()}\t")
        for pair in BIGRAMS:
            old = " ".join(pair)
            new = " ".join(w if w.startswith("<") else w.upper() for w in pair)
            text = text.replace(f"\t{old}\n", f"\t{new}\n")
    path.write_text(text, encoding="utf-8")
    return path


def lm_score(words: tuple[str, ...]) -> float:
    """Return the log10-probability of a sentence by the rules of back-off."""
    total, before = 0.0, "<s>"
    for word in (*words, "</s>"):
        backoff = START_BACKOFF if before == "<s>" else UNIGRAMS[before][1]
        total += BIGRAMS.get((before, word), backoff + UNIGRAMS[word][0])
        before = word
    return total


def exhaustive(log_probs_TV: torch.Tensor) -> tuple[tuple[str, ...], float]:
    """Return the best words of all paths: acoustics + 2 LM - 1 per word; whole words, or none."""
    frames, symbols = log_probs_TV.shape
    best: tuple[tuple[str, ...], float] = ((), -math.inf)
    for path in product(range(symbols), repeat=frames):
        merged = [s for i, s in enumerate(path) if s and (i == 0 or s != path[i - 1])]
        text = "".join(SYMBOLS[s] for s in merged)
        if text and not text.endswith("|"):
            continue
        words = tuple(w.lower() for w in text.split("|") if w)
        if any(w not in ("a", "b", "ba") for w in words):
            continue
        acoustic = sum(float(log_probs_TV[t, s]) for t, s in enumerate(path))
        score = acoustic + 2 * lm_score(words) - len(words)
        if score > best[1]:
            best = (words, score)
    return best


@needs_flashlight
def test_it_finds_what_an_exhaustive_search_finds(tmp_path: Path) -> None:
    decoder = LMDecoder(arpa(tmp_path / "lm.arpa"), SYMBOLS, beam=200, threshold=1e6)
    assert decoder.words == 3
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(40, 6, len(SYMBOLS), generator=generator)
    logits[:, -1, 1] += 8.0  # the last word ends
    found = decoder(logits, torch.full((40,), 6))
    wanted = [exhaustive(one.double().log_softmax(-1))[0] for one in logits]
    assert found == [" ".join(words) for words in wanted]
    assert len(set(found)) > 5


@needs_flashlight
def test_the_model_decides_between_like_words_and_lengths_count(tmp_path: Path) -> None:
    decoder = LMDecoder(arpa(tmp_path / "lm.arpa"), SYMBOLS)
    logits = torch.full((2, 4, 4), -9.0)
    logits[:, 0, 1:] = torch.tensor([-9.0, 0.2, 0.0])  # A a little better than B
    logits[:, 1, 1] = logits[:, 2, 2] = logits[:, 3, 1] = 0.0
    # alone: log10 P(a </s>) beats P(b </s>)? -0.4-0.5 -0.3-0.8 = -2.0 against -0.4-0.9 -0.1 = -1.4
    assert lm_score(("a",)) == pytest.approx(-2.0)
    assert lm_score(("b",)) == pytest.approx(-1.4)
    assert decoder(logits, torch.tensor([2, 4])) == ["b", "a a"]


@needs_flashlight
def test_words_are_spelled_in_upper_case_and_said_as_the_model_has_them(tmp_path: Path) -> None:
    logits = torch.full((1, 3, 4), -9.0)
    logits[0, 0, 3] = logits[0, 1, 2] = logits[0, 2, 1] = 0.0
    for upper, said in ((False, "ba"), (True, "BA")):
        decoder = LMDecoder(arpa(tmp_path / f"{upper}.arpa", upper=upper), SYMBOLS)
        assert decoder(logits, torch.tensor([3])) == [said]


def test_words_and_spellings(tmp_path: Path) -> None:
    path = arpa(tmp_path / "lm.arpa")
    assert words_of(path) == ["a", "b", "ba"]
    (tmp_path / "lm.arpa.words").write_text("ba B A |\n\n<unk>\nba\n", encoding="utf-8")
    assert words_of(path) == ["ba"]
    assert lexicon(["ba", "été", "x", "a|b"], ("<pad>", "|", "A", "B", "É", "T")) == {
        "ba": ["B", "A", "|"],
        "été": ["É", "T", "É", "|"],
    }


@needs_flashlight
def test_a_list_of_words_restricts_what_can_be_said(tmp_path: Path) -> None:
    path = arpa(tmp_path / "lm.arpa")
    (tmp_path / "lm.arpa.words").write_text("b\n", encoding="utf-8")
    logits = torch.full((1, 2, 4), -9.0)
    logits[0, 0, 2] = logits[0, 1, 1] = 0.0
    logits[0, 0, 3] = -3.0
    decoder = LMDecoder(path, SYMBOLS)
    assert decoder.words == 1
    assert decoder(logits, torch.tensor([2])) == ["b"]


def test_signatures_name_the_file_and_its_contents(tmp_path: Path) -> None:
    path = arpa(tmp_path / "lm.arpa")
    first = signature_of(path)
    assert first.startswith("lm:lm.arpa#")
    assert first.endswith("|beam:5|threshold:25|lm-weight:2|word-score:-1")
    assert signature_of(arpa(tmp_path / "again.arpa")).partition("#")[2] == first.partition("#")[2]
    assert signature_of(arpa(tmp_path / "upper.arpa", upper=True)) != first.replace(
        "lm.a", "upper.a"
    )
    (tmp_path / "lm.arpa.words").write_text("b\n", encoding="utf-8")
    assert "|words:listed|" in signature_of(path)


def test_without_flashlight_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = arpa(tmp_path / "lm.arpa")
    monkeypatch.setattr(lm_decoder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'mynah\[lm\]'"):
        check_lm(path)


@pytest.mark.parametrize(
    ("contents", "error", "message"),
    [
        (None, FileNotFoundError, "does not exist"),
        (b"\x1f\x8b\x08\x00", ValueError, "is compressed: gunzip it first"),
        (b"mmap lm http://kheafield.com/code format version 5\n\0", ValueError, r"list them in .*lm\.words"),
        (b"hello", ValueError, "is no language model"),
        (b"\\data\\\nngram 1=2\n\n\\1-grams:\n-1\ta\n\n\\end\\\n", DataError, "has 1 1-grams, its header says 2"),
        (b"\\data\\\nngram 1=x\n\n\\1-grams:\n-1\ta\n\n\\end\\\n", DataError, "has 1 1-grams"),
        (b"\\data\\\nngram 1=1\n\n\\1-grams:\na\n", DataError, r"lm:5: wanted a 1-gram, got 'a'"),
        (b"\\data\\\nngram 1=1\n\n\\1-grams:\n-1\tz\n\n\\end\\\n", DataError, "no word of .* can be spelled with the 4 symbols"),
        (b"\\data\\\nngram 1=1\n\n\\1-grams:\n-1\ta\nmore", DataError, "wanted a 1-gram, got 'more'"),
        (b"\\data\\\nngram 1=1\n\n\\1-grams:\nx\ta\n\n\\end\\\n", ValueError, "KenLM cannot read"),
    ],
)  # fmt: skip
@needs_flashlight
def test_files_that_cannot_be_used(
    tmp_path: Path, contents: bytes | None, error: type[Exception], message: str
) -> None:
    path = tmp_path / "lm"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(error, match=message):
        LMDecoder(path, SYMBOLS)


@needs_flashlight
def test_a_boundary_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs the symbol '|' between them"):
        LMDecoder(arpa(tmp_path / "lm.arpa"), ("<pad>", "A", "B"))
