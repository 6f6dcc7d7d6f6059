"""ST: smoothed losses, search, scores, a probe from end to end."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from parts import BOTH
from tones import write_tones
from translating import FACTS, loaded, parted, said
from utterances import utterance

from mynah.downstream.core.featurizer import Featurizer, Probe
from mynah.downstream.core.seq2seq import teacher_forcing
from mynah.downstream.translator import Translator
from mynah.recipes.probing import job, trained
from mynah.recipes.probing.settings import Settings
from mynah.tasks.core.contract import ProtocolName
from mynah.tasks.core.letters import PLAIN_SPECIAL
from mynah.tasks.corpora.corpus import write_corpus
from mynah.tasks.st import PAD, token_losses, tokenizer_of
from mynah.tasks.st import TASK as ST

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
