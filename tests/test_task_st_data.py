"""ST: letters and pieces, symbols, parts, references, bad data."""

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from translating import FACTS, loaded, parted, said
from utterances import utterance

from mynah.recipes.probing.train import rate_factor
from mynah.tasks.core.contract import DataError
from mynah.tasks.core.letters import PIECES_SPECIAL, PLAIN_SPECIAL, Letters, normal_form
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.st import TASK as ST

# -- letters ----------------------------------------------------------------------------------


def test_plain_letters() -> None:
    letters = Letters.of(["b a", "ab  ä"], pieces=False)
    assert letters.symbols == (*PLAIN_SPECIAL, " ", "a", "b", "ä")
    assert letters.encode(" a\tb ") == [4, 3, 5]
    assert letters.encode("aéü") == [4, 0, 0]
    assert letters.decode([4, 3, 0, 1, 2, 6]) == "a ä"
    assert letters.encode("") == []
    assert Letters.of(["aab"], pieces=False, limit=4).symbols == (*PLAIN_SPECIAL, "a")


def test_pieces_are_sentencepieces() -> None:
    """Inventory and codes that sentencepiece 0.2.3 gave for a character model of these lines."""
    lines = ["ab a", "Da, b½!", "ﬁ ～ xx\u00a0x"]
    letters = Letters.of(lines, pieces=True)
    spelled = ["▁", "a", "x", "b", "!", ",", "1", "2", "D", "f", "i", "⁄", "～"]
    assert letters.symbols == (*PIECES_SPECIAL, *spelled)
    assert letters.encode("ab a") == [4, 5, 7, 4, 5]
    assert letters.encode("zz 日 a") == [4, 3, 4, 3, 4, 5]  # a run is one <unk>
    assert letters.decode([4, 3, 4, 3, 4, 5, 2, 1, 0]) == "<unk> <unk> a"
    assert letters.encode("\u200b ") == []
    assert letters.decode(letters.encode("Da, ab½!")) == "Da, ab1⁄2!"
    assert normal_form("a\x01b\ufeffc  ™") == "ab c TM"


def test_a_limit_keeps_the_commonest_pieces() -> None:
    letters = Letters.of(["aaa bb c", "d"], pieces=True, limit=7)
    assert letters.symbols == (*PIECES_SPECIAL, "▁", "a", "b")
    tied = Letters.of(["b a"], pieces=True, limit=6)
    assert tied.symbols[4:] == ("▁", "a")  # equally common: in the order of Unicode


def test_letters_that_are_none() -> None:
    for symbols in (["a", "b"], [*PIECES_SPECIAL, "a"], [*PLAIN_SPECIAL, "a", "a"]):
        with pytest.raises(ValueError, match="distinct and start with <unk>, <pad>, </s>"):
            Letters(symbols, pieces=False)


# -- data -------------------------------------------------------------------------------------


def test_symbols_of_both_protocols() -> None:
    fixed, superb = loaded("fixed"), loaded("superb")
    assert fixed.loaded.classes[:5] == (*PLAIN_SPECIAL, " ", "(")
    assert superb.loaded.classes[:5] == (*PIECES_SPECIAL, "▁")
    one = utterance("u", translation="Zeile  a")
    assert [fixed.loaded.classes[i] for i in fixed.target(one)] == list("Zeile a")
    assert [superb.loaded.classes[i] for i in superb.target(one)] == list("▁Zeile▁a")
    assert superb.target_length(one) == 8
    assert fixed.outputs == len(fixed.loaded.classes)


def test_parts_share_no_speaker_and_notes_say_what_was_found() -> None:
    corpus = parted(test="Zeile ß?")
    corpus[-1] = dataclasses.replace(corpus[-1], text="line 0 0")
    data = ST().load(corpus)
    train, _, test = data.folds[""]
    assert not {u.speaker for u in train.utterances} & {u.speaker for u in test.utterances}
    # sentences hold the number of their speaker, and 6 and 7 are not in train
    assert data.notes[1] == f"{len(data.classes)} symbols, not in train: 6, 7, ?, ß"
    assert data.notes[2] == "1 of 4 test sentences are said in train too"
    assert "ß" not in data.classes


def test_references() -> None:
    corpus = parted(test="Ist  ½ßß7 da?")
    fixed, superb = loaded("fixed", corpus), loaded("superb", corpus)
    assert fixed.reference(corpus[-1]) == "Ist ½ßß7 da?"
    # no I, s, t, ⁄, ß, 7, d, ? in train; 1 and 2 are
    assert superb.reference(corpus[-1]) == "<unk> 1<unk>2<unk> <unk>a<unk>"
    assert superb.reference(corpus[0]) == corpus[0].labels["translation"]


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([utterance("u", speaker="s")], "none of the 1 utterances has it"),
        ([*said(), utterance("bare", speaker="s9")], "translation on every utterance.*: bare"),
        ([*said(), utterance("mute", speaker="s9", translation=" \t")], "empty translation: mute"),
        (said(2), "only 2"),
        ([*parted(), utterance("both", speaker="s0", split="test", translation="Z")],
         "train and test share speaker s0"),
    ],
)  # fmt: skip
def test_bad_data_is_named(corpus: list[Utterance], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ST().load(corpus)


def test_superb_takes_the_parts_as_they_are() -> None:
    corpus = [*parted(), utterance("both", speaker="s0", split="test", translation="Z")]
    assert "both" in {u.id for u in ST("superb").load(corpus).folds[""][2].utterances}
    invisible = [*parted(), utterance("zero", speaker="s9", split="test", translation="\u200b")]
    with pytest.raises(DataError, match="empty translation: zero"):
        ST("superb").load(invisible)


def test_long_sources_and_targets() -> None:
    long = dataclasses.replace(said()[0], duration=150.0, id="long")
    corpus = [*said(), long]
    superb, fixed = loaded("superb", corpus), loaded("fixed", corpus)
    superb.bind(FACTS)
    fixed.bind(FACTS)
    lengths = {u.id: u.duration for part in superb.loaded.folds[""] for u in part.utterances}
    assert lengths["long"] == 6000 * 0.02
    assert lengths["s1-1"] == 1.0
    assert superb.too_short(long, 7500) is None
    assert fixed.too_short(long, 7500) == "7500 frames, more than 6000"
    assert fixed.too_short(long, 6000) is None
    wordy = utterance("w", translation="Ze" * 513)
    assert fixed.too_short(wordy, 10) == "a target of 1026 symbols, more than 1024"


def test_superb_numbers_are_s3prls() -> None:
    p = ST.PROTOCOLS["superb"]
    assert (p.accumulate, p.clip, p.steps, p.eval_every) == (8, 10.0, 32_000, 2_000)
    assert rate_factor(p, 10_000) == pytest.approx(0.9999)
    assert rate_factor(p, 10_001) == pytest.approx(0.01)  # the cliff
    assert rate_factor(p, 32_000) == pytest.approx(32_000**-0.5, rel=1e-4)
    q = ST.PROTOCOLS["fixed"]
    assert rate_factor(q, q.warmup + 1) == 1
    assert rate_factor(q, 4 * q.warmup + 1) == pytest.approx(0.5)
