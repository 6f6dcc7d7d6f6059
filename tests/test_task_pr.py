"""PR: symbols, targets, CTC against torch and by hand, decoding, bad data."""

import dataclasses
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from utterances import PHONES, spoken, utterance

from mynah.tasks.core.contract import DataError
from mynah.tasks.core.ctc import ctc_losses, frames_needed, greedy
from mynah.tasks.pr import ARPABET, SUPERB_SYMBOLS, read_lexicon
from mynah.tasks.pr import TASK as PR


def test_superb_inventory() -> None:
    assert len(SUPERB_SYMBOLS) == 74
    assert SUPERB_SYMBOLS[:5] == ("<pad>", "<eos>", "<unk>", "SIL", "SPN")
    assert len(set(ARPABET)) == 71
    assert {"AA0", "ZH", "UW2", "HH"} <= set(ARPABET)
    assert "AA" not in ARPABET


def test_symbols_of_both_protocols() -> None:
    fixed, superb = PR(), PR("superb")
    assert fixed.load(spoken()).classes == tuple(sorted({p.rstrip("012") for p in PHONES}))
    assert fixed.outputs == 7
    superb.load(spoken())
    assert superb.outputs == 74
    sampa = [
        dataclasses.replace(u, labels={"phones": u.labels["phones"].lower()}) for u in spoken()
    ]
    superb.load(sampa)
    assert superb.outputs == 3 + 6


def test_targets() -> None:
    one = utterance("u", phones="P AA1 | T")
    fixed, superb = PR(), PR("superb")
    for task in (fixed, superb):
        task.load(spoken())
    assert fixed.phones(one) == ["P", "AA", "T"]
    assert fixed.phones(utterance("u", phones="ER0 a1 X2 NG")) == ["ER", "a1", "X2", "NG"]
    assert [fixed.loaded.classes[i - 1] for i in fixed.target(one)] == ["P", "AA", "T"]
    assert [SUPERB_SYMBOLS[i] for i in superb.target(one)] == ["P", "AA1", "T", "<eos>"]
    assert superb.target_length(one) == 4
    assert superb.reference(one) == "P AA1 T"


def test_parts_share_no_speaker() -> None:
    parts = PR().load(spoken()).folds[""]
    seen = [{u.speaker for u in split.utterances} for split in parts]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_a_lexicon_gives_first_pronunciations(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text(";;; comment\nCAT K AA1 T\nCAT(2) K IY0 T\nA AA1\nA UW2\n")
    assert read_lexicon(path)["CAT"] == ("K", "AA1", "T")
    task = PR(lexicon=path)
    corpus = [utterance(f"s{s}", speaker=f"s{s}", text="a cat" if s else "a dog") for s in range(5)]
    data = task.load(corpus)
    assert data.skipped == {"s0": "a word or phone without pronunciation: DOG"}
    with pytest.raises(DataError, match="without pronunciation: DOG, ZEBRA; utterances: s0, s1"):
        PR(lexicon=path).load([dataclasses.replace(u, text="a dog zebra") for u in corpus])
    assert task.reference(corpus[1]) == "AA K AA T"
    superb = PR("superb", lexicon=path)
    superb.load(corpus)
    assert superb.reference(corpus[1]) == "AA1 K AA1 T"
    signatures = [t.metrics()[0].signature for t in (task, superb)]
    assert signatures == ["per|norm:no-stress|unit:phone|v1", "per|norm:none|unit:phone|v1"]
    path.write_text("CAT K AA1 T\nDOG\n")
    with pytest.raises(DataError, match=r"lexicon.txt:2: 'DOG' has no pronunciation"):
        PR(lexicon=path)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([utterance("u", speaker="s", text="words only")], "phones .or text, with --lexicon"),
        ([*spoken(), utterance("bare", speaker="s9")], "without it: bare"),
        (
            [*spoken(), utterance("mark", speaker="s9", phones="| |")],
            "no phones to recognise: mark",
        ),
        ([utterance("o", speaker="s9", phones="P <oov>")], "every utterance.*o"),
    ],
)
def test_bad_data_is_named(corpus: list, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError, match=message):
        PR().load(corpus)


def test_a_phone_that_train_lacks_counts_as_an_error_and_is_noted() -> None:
    corpus = [dataclasses.replace(u, split="train" if u.speaker < "s5" else "dev" if u.speaker < "s7" else "test")
              for u in spoken()]  # fmt: skip
    corpus.append(utterance("new", speaker="s7", split="test", phones="P ZH"))
    data = PR().load(corpus)
    assert "not in train: ZH" in data.notes[1]
    assert "ZH" in data.classes


def test_targets_that_do_not_fit() -> None:
    task = PR()
    task.load(spoken())
    one = utterance("u", phones="P P T")  # a blank must stand between the two P
    assert frames_needed([1, 1, 2]) == 4
    assert task.too_short(one, 4) is None
    assert task.too_short(one, 3) == "3 frames for a target that needs 4"


def brute_force(logits_TV: torch.Tensor, target: list[int]) -> float:
    """CTC by summing over every path."""
    probs = logits_TV.double().softmax(-1)
    total = 0.0
    for path in product(range(logits_TV.shape[1]), repeat=logits_TV.shape[0]):
        merged = [s for i, s in enumerate(path) if s and (i == 0 or s != path[i - 1])]
        if merged == target:
            total += float(torch.stack([probs[t, s] for t, s in enumerate(path)]).prod())
    return -float(torch.tensor(total).log())


def test_ctc_by_hand_and_against_torch() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, 4, requires_grad=True)
    lengths, targets = torch.tensor([5, 4, 3]), [[1, 1, 2], [3], [1, 2]]
    losses = ctc_losses(logits, lengths, targets)
    values = losses.detach()
    for k in range(2):
        for b, (n, target) in enumerate(zip(lengths.tolist(), targets, strict=True)):
            expected = brute_force(logits[k, b, :n].detach(), target) / len(target)
            assert float(values[k, b]) == pytest.approx(expected, rel=1e-5)
        theirs = torch.nn.CTCLoss(zero_infinity=True)(
            logits[k].log_softmax(-1).transpose(0, 1),
            torch.tensor([[1, 1, 2], [3, 0, 0], [1, 2, 0]]), lengths, torch.tensor([3, 1, 2]),
        )  # fmt: skip
        assert float(values[k].mean()) == pytest.approx(float(theirs.detach()), rel=1e-5)
    (grad,) = torch.autograd.grad(losses.sum(), logits)
    assert float(grad[:, 2, 3:].abs().max()) == 0  # frames after the end
    assert float(grad[:, 0].abs().max()) > 0


def test_ctc_impossible_targets_give_zero_and_no_gradient() -> None:
    logits = torch.randn(1, 2, 2, 3, requires_grad=True)
    losses = ctc_losses(logits, torch.tensor([2, 2]), [[1, 1, 1], [1]])
    assert float(losses[0, 0].detach()) == 0.0
    (grad,) = torch.autograd.grad(losses.sum(), logits)
    assert float(grad[0, 0].abs().max()) == 0
    assert bool(torch.isfinite(grad).all())


def test_greedy_decoding() -> None:
    path = torch.tensor([[1, 1, 0, 1, 2, 2, 0, 3]])
    logits = torch.nn.functional.one_hot(path, 4).float()
    assert greedy(logits, torch.tensor([8])) == [[1, 1, 2, 3]]
    assert greedy(logits, torch.tensor([6])) == [[1, 1, 2]]
    task = PR("superb")
    task.load(spoken())
    symbols = torch.tensor([[SUPERB_SYMBOLS.index(s) for s in ("P", "P", "<pad>", "T", "<eos>")]])
    assert task.decode(torch.nn.functional.one_hot(symbols, 74).float(), torch.tensor([5]), ()) == [
        "P T"
    ]


def test_per_is_scored_over_the_corpus() -> None:
    task = PR()
    task.load(spoken())
    assert task.score(["P T K", "P"], ["P K", ""]) == {"per": pytest.approx(2 / 4)}
