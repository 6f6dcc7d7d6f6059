"""ST: letters, smoothed losses, search, references, bad data, a probe from end to end."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from tones import write_tones
from utterances import utterance

from mynah.downstream.core.featurizer import Featurizer, Probe
from mynah.downstream.core.seq2seq import teacher_forcing
from mynah.downstream.translator import Translator
from mynah.recipes.probing import job, trained
from mynah.recipes.probing.settings import Settings
from mynah.recipes.probing.train import rate_factor
from mynah.tasks.core.contract import DataError, Facts, ProtocolName
from mynah.tasks.core.letters import PIECES_SPECIAL, PLAIN_SPECIAL, Letters, normal_form
from mynah.tasks.corpora.corpus import write_corpus
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.st import PAD, token_losses, tokenizer_of
from mynah.tasks.st import TASK as ST

BOTH: tuple[ProtocolName, ...] = ("superb", "fixed")
FACTS = Facts(dim=6, layers=2, stride=320, sample_rate=16000)


def said(speakers: int = 8, **more: str) -> list[Utterance]:
    return [
        utterance(f"s{s}-{i}", speaker=f"s{s}", text=f"line {s} {i}",
                  translation=f"Zeile {s} ({'abcdefgh'[i]}).", **more)
        for s in range(speakers)
        for i in range(3)
    ]  # fmt: skip


def parted(*, test: str = "Zeile (a).") -> list[Utterance]:
    """Named parts: s0-s5 train, s6 dev, s7 test, of which one utterance says something else."""
    parts = ["train"] * 6 + ["dev", "test"]
    corpus = [dataclasses.replace(u, split=parts[int(u.id[1])]) for u in said()]
    corpus.append(utterance("s7-x", speaker="s7", split="test", translation=test))
    return corpus


def loaded(protocol: ProtocolName, corpus: Sequence[Utterance] | None = None) -> ST:
    task = ST(protocol, heads="small")
    task.load(said() if corpus is None else corpus)
    return task


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


# -- losses -----------------------------------------------------------------------------------


def test_smoothed_cross_entropy() -> None:
    """Against torch's, whose smoothing also gives its share to the right symbol."""
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    answers = torch.randint(2, 7, (3, 5))
    answers[1, 3:] = PAD
    losses = token_losses(logits, answers, 0.1)
    for k in range(2):
        theirs = F.cross_entropy(
            logits[k].flatten(0, 1), answers.flatten(), ignore_index=PAD, reduction="none",
            label_smoothing=0.1 * 7 / 6,
        )  # fmt: skip
        torch.testing.assert_close(losses[k].flatten(), theirs)
    plain = F.cross_entropy(logits[0, 0], answers[0], reduction="none")
    torch.testing.assert_close(token_losses(logits, answers)[0, 0], plain)
    # by hand: the right symbol has mass 0.9, the six others share 0.1
    wanted = torch.full((7,), 0.1 / 6, dtype=torch.float64)
    wanted[answers[0, 0]] = 0.9
    expected = -(wanted * logits[1, 0, 0].log_softmax(0)).sum()
    torch.testing.assert_close(losses[1, 0, 0], expected)


@pytest.mark.parametrize("protocol", BOTH)
def test_losses_of_heads_items_and_padding(protocol: ProtocolName) -> None:
    task = loaded(protocol)
    batch = [said()[0], utterance("v", translation="Zeile")]
    (previous_BU,) = task.head_inputs(batch)
    targets = [task.target(u) for u in batch]
    assert torch.equal(previous_BU, teacher_forcing(targets)[0])
    torch.manual_seed(1)
    logits = torch.randn(3, *previous_BU.shape, task.outputs)
    losses = task.losses(logits, torch.tensor([9, 9]), batch)
    assert losses.shape == (3, 2)
    for b, u in enumerate(batch):
        length = len(targets[b]) + 1  # and the end
        alone = task.losses(logits[1:2, b : b + 1, :length], torch.tensor([9]), [u])
        torch.testing.assert_close(losses[1, b], alone[0, 0])
        each = token_losses(logits[1:2, b : b + 1, :length],
                            torch.tensor([[*targets[b], 2]]), 0.1)  # fmt: skip
        whole = each.sum() if protocol == "superb" else each.mean()
        torch.testing.assert_close(losses[1, b], whole)
    dev = task.dev_losses(logits, torch.tensor([9, 9]), batch)
    plain = F.cross_entropy(logits[0, 1, : len(targets[1]) + 1], torch.tensor([*targets[1], 2]))
    torch.testing.assert_close(dev[0, 1], plain)


# -- search -----------------------------------------------------------------------------------


class Searched(torch.nn.Module):
    """A head that writes down how it was searched."""

    def __init__(self, symbols: list[int]) -> None:
        super().__init__()
        self.symbols = symbols
        self.asked: list[tuple[int, int]] = []

    def beam_search(self, features: torch.Tensor, lengths: torch.Tensor, beam: int, max_len: int):  # type: ignore[no-untyped-def]
        self.asked.append((beam, max_len))
        assert features.shape == (len(lengths), 4, 6)
        return [self.symbols] * len(lengths)


@pytest.mark.parametrize(("protocol", "dev", "test"), [("superb", 20, 20), ("fixed", 1, 5)])
def test_beams_of_dev_and_test(protocol: ProtocolName, dev: int, test: int) -> None:
    task = loaded(protocol, parted())
    head = Searched(task.target(parted()[0]))
    probe = Probe(Featurizer(2), head)
    for part, beam in zip(task.loaded.folds[""][1:], (dev, test), strict=True):
        batch = list(part.utterances)
        features = torch.randn(2, len(batch), 4, 6)
        said = task.infer(probe, features, torch.full((len(batch),), 4), batch)
        assert said == ["Zeile 0 (a)."] * len(batch)
        assert head.asked.pop() == (beam, 400)
    head.symbols = []
    said = task.infer(probe, torch.randn(2, 1, 4, 6), torch.tensor([4]), [utterance("new")])
    assert said == (["<unk>"] if protocol == "superb" else [""])
    assert head.asked == [(test, 400)]


def test_a_head_that_diverged() -> None:
    task = loaded("fixed", parted())
    probe = Probe(Featurizer(2), task.head(6))
    assert isinstance(probe.head, Translator)
    torch.nn.init.constant_(probe.head.classifier.weight, float("nan"))
    _, dev, test = task.loaded.folds[""]
    features, lengths = torch.randn(2, 1, 4, 6), torch.tensor([4])
    assert task.infer(probe, features, lengths, dev.utterances[:1]) == [""]
    with pytest.raises(ValueError, match="diverged"):
        task.infer(probe, features, lengths, test.utterances[:1])
    with pytest.raises(RuntimeError, match="searched for"):
        task.decode(features, lengths, test.utterances[:1])


def test_sizes_of_heads() -> None:
    task = loaded("fixed")
    small = task.head(6)
    full = ST("fixed")
    full.load(said())
    big = full.head(6)
    assert isinstance(small, Translator)
    assert isinstance(big, Translator)
    assert (len(small.encoder), small.embedding.weight.shape) == (2, (task.outputs, 128))
    assert (len(big.encoder), big.embedding.weight.shape) == (3, (task.outputs, 512))


# -- scoring ----------------------------------------------------------------------------------


def test_scores() -> None:
    task = loaded("fixed")
    ref = "a b c d e f g"
    found = task.score([ref], ["a b c d x f g"])
    assert found["bleu"] == pytest.approx((6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25)
    assert set(found) == {"bleu", "chrf"}
    assert "tok:13a" in task.metrics()[0].signature
    assert tokenizer_of(["我们今天 a", "去学校"]) == "zh"
    assert tokenizer_of(["我们", "so lang"]) == "13a"
    chinese = [
        dataclasses.replace(u, labels={"translation": "我们今天去学校" + u.id}) for u in said()
    ]
    assert "tok:zh" in loaded("fixed", chinese).metrics()[0].signature


@pytest.mark.parametrize("protocol", BOTH)
def test_state_goes_to_where_the_corpus_is_not(
    protocol: ProtocolName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mynah.tasks.st.MAX_SYMBOLS", 20)
    task = loaded(protocol)
    other = ST(protocol, heads="small")
    other.restore(task.state())
    other.bind(FACTS)
    assert other.outputs == task.outputs
    head = task.head(6)
    probe = Probe(Featurizer(2), head).eval()
    features, lengths = torch.randn(2, 2, 9, 6), torch.tensor([9, 5])
    batch = [utterance("x"), utterance("y")]
    assert other.infer(probe, features, lengths, batch) == task.infer(
        probe, features, lengths, batch
    )
    assert other.metrics()[0].signature == task.metrics()[0].signature


SAID = {
    "low": "das ist ein tiefer Ton.",
    "mid": "dieser Ton ist in der Mitte.",
    "high": "jener war ein hoher Ton.",
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap over attention
def test_a_probe_learns_to_translate_tones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tones = write_tones(tmp_path / "tones", takes=1)
    corpus = write_corpus(
        tmp_path / "said",
        [
            dataclasses.replace(u, labels={"translation": SAID[u.text or ""]})
            for u in tones.utterances()
        ],
        name="said",
    )
    warm = dataclasses.replace(ST.PROTOCOLS["fixed"], warmup=8)
    monkeypatch.setitem(ST.PROTOCOLS, "fixed", warm)
    monkeypatch.setattr("mynah.tasks.st.MAX_SYMBOLS", 40)  # while it rambles
    settings = Settings(steps=24, learning_rates=(4e-3,), heads="small")
    (result,) = job.run("fbank", "st", corpus.folder, tmp_path / "out", settings=settings)
    assert result.main.value > 0.6
    assert result.metrics["chrf"].value > 0.6
    assert result.classes[:3] == PLAIN_SPECIAL
    (name,) = result.heads.values()
    card, task, probe = trained.load(tmp_path / "out" / "fbank-base" / name)
    assert (card.task, card.heads) == ("st", "small")
    said = task.infer(probe, torch.zeros(1, 1, 20, 240), torch.tensor([20]), [utterance("new")])
    assert isinstance(said[0], str)
