"""ASR: symbols, targets, loss, decoding with and without a language model, bad data, end to end."""

import dataclasses
import importlib.util
import sys
import types
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from tones import write_tones
from utterances import utterance

from mynah.downstream.blstm_ctc import SUPERB_SPECAUG
from mynah.recipes.probing import trained
from mynah.recipes.probing.job import run
from mynah.recipes.probing.settings import Settings
from mynah.tasks.asr import SUPERB_SYMBOLS
from mynah.tasks.asr import TASK as ASR
from mynah.tasks.core.contract import DataError, Facts
from mynah.tasks.core.sampling import Pool, epoch_batches
from mynah.tasks.corpora.utterance import Utterance
from mynah.upstream.interop import s3prl

WORDS = ["a cat", "the cat", "It's a dog", "dogs"]
FACTS = Facts(dim=8, layers=2, stride=320, sample_rate=16000)
needs_flashlight = pytest.mark.skipif(
    importlib.util.find_spec("flashlight") is None, reason="the extra lm is not installed"
)


def corpus(texts: list[str] = WORDS, speakers: int = 8) -> list[Utterance]:
    return [
        utterance(f"s{s}-{i}", speaker=f"s{s}", seconds=1.0 + i, text=text)
        for s in range(speakers)
        for i, text in enumerate(texts)
    ]


def outputs_of(task: ASR, text: str) -> torch.Tensor:  # type: ignore[valid-type]
    """Return logits (1, T, V) whose best path is these symbols, ``_`` standing for the blank."""
    symbols = [0 if c == "_" else task.symbols.index(c) for c in text]  # type: ignore[attr-defined]
    return 9.0 * torch.nn.functional.one_hot(torch.tensor([symbols]), task.outputs).float()  # type: ignore[attr-defined]


def test_symbols_of_both_protocols() -> None:
    assert len(SUPERB_SYMBOLS) == len(set(SUPERB_SYMBOLS)) == 32
    assert SUPERB_SYMBOLS[:6] == ("<s>", "<pad>", "</s>", "<unk>", "|", "A")
    assert SUPERB_SYMBOLS[-2:] == ("Z", "'")
    fixed, superb = ASR(), ASR("superb")
    data = fixed.load(corpus())
    assert data.classes == ("|", *sorted("'ACDEGHIOST"))
    assert fixed.symbols[0] == "<pad>"
    assert (fixed.outputs, superb.load(corpus()).classes) == (13, SUPERB_SYMBOLS[1:])


def test_targets_end_words_and_superb_ends_sentences() -> None:
    one = utterance("u", text="  it's  a Dog ")
    fixed, superb = ASR(), ASR("superb")
    for task in (fixed, superb):
        task.load(corpus())
        assert task.reference(one) == "IT'S A DOG"
    assert "".join(fixed.symbols[i] for i in fixed.target(one)) == "IT'S|A|DOG|"
    assert [SUPERB_SYMBOLS[i] for i in superb.target(one)][-3:] == ["G", "|", "</s>"]
    assert superb.target_length(one) == fixed.target_length(one) + 1 == 12


def test_texts_are_upper_case_in_one_code_per_letter() -> None:
    task = ASR()
    data = task.load(corpus(["e\u0301te\u0301", "\u00c9T\u00c9"]))
    assert data.classes == ("|", "T", "\u00c9")


def test_numbers_of_the_protocols() -> None:
    superb, fixed = ASR("superb").protocol, ASR().protocol
    assert (superb.batch_size, superb.accumulate, superb.steps, superb.eval_every) == (16, 1, 200_000, 2_000)  # fmt: skip
    assert (superb.sampler, superb.ties, superb.patience, superb.optimizer) == ("length-bucket", "first", None, "adam")  # fmt: skip
    assert fixed.steps <= 20_000
    assert fixed.patience is not None


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 64, 65, 100])
def test_batches_are_cut_as_s3prl_cuts_them(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same batches as ``SequenceDataset``, which are shuffled whole and never cut again."""
    s3prl.ensure_importable()
    dataset = pytest.importorskip("s3prl.downstream.asr.dataset")
    samples = [2_001 + 7_919 * i % 99_991 for i in range(count)]  # distinct, in no order
    names = [f"103-1240-{i:04d}" for i in range(count)]
    book = tmp_path / "103" / "1240"
    book.mkdir(parents=True)
    (book / "103-1240.trans.txt").write_text("".join(f"{name} A CAT\n" for name in names))
    rows = [f"103/1240/{n}.flac,{s}\n" for n, s in zip(names, samples, strict=True)]
    (tmp_path / "train.csv").write_text("file_path,length\n" + "".join(rows))
    monkeypatch.setattr(dataset, "tqdm", lambda items, **_: items)
    spelled = types.SimpleNamespace(encode_line=lambda text, line_tokenizer: torch.zeros(1))
    theirs = dataset.SequenceDataset(
        "train", 32, spelled, str(tmp_path), str(tmp_path), train=["train"]
    )
    wanted = [[names.index(Path(x).stem) for x in batch] for batch in theirs.X]

    pool = Pool(classes=[""] * count, seconds=[s / 16_000 for s in samples],
                target_lengths=[1] * count, halved=[False] * count)  # fmt: skip
    sampler, size = ASR("superb").protocol.sampler, ASR("superb").protocol.batch_size
    first, second = (epoch_batches(pool, sampler, size, seed=0, epoch=e) for e in (0, 1))
    if count == 1:  # s3prl has nothing to train on then
        assert (wanted, first) == ([], [[0]])
        return
    assert sorted(first) == sorted(second) == sorted(wanted)
    assert len(wanted) < 4 or first != second
    assert sum(map(len, first)) == count - (count % 32 == 1)


def test_heads() -> None:
    task = ASR("superb")
    task.load(corpus())
    with torch.device("meta"):
        head = task.head(768)
    size = sum(p.numel() for p in head.parameters())
    lstm = 2 * 4 * (1024 * (1024 + 1024) + 2 * 1024) + 2 * 4 * (1024 * (2048 + 1024) + 2 * 1024)
    assert size == 768 * 1024 + 1024 + lstm + 2048 * 32 + 32
    assert round(size / 1e6, 1) == 42.8
    assert head.specaug == SUPERB_SPECAUG
    small = ASR(heads="small")
    small.load(corpus())
    head = small.head(240)
    assert (head.projector.out_features, head.layers[0].lstm.hidden_size) == (128, 128)
    assert (head.specaug.frequency_width, head.specaug.adaptive) == (15, 0.04)  # 49 / 768 of 240
    assert small.head(2048).specaug.frequency_width == 49


def test_losses_are_those_of_torch() -> None:
    torch.manual_seed(0)
    task = ASR("superb")
    task.load(corpus())
    batch = [utterance("a", text="a cat"), utterance("b", text="dogs")]
    logits, lengths = torch.randn(2, 2, 20, 32), torch.tensor([20, 14])
    spelled = ["A|CAT|", "DOGS|"]
    targets = [[SUPERB_SYMBOLS.index(c) for c in text] + [2] for text in spelled]
    for k, losses in enumerate(task.losses(logits, lengths, batch)):
        for b, target in enumerate(targets):
            theirs = torch.nn.CTCLoss()(
                logits[k, b, : lengths[b], None].log_softmax(-1), torch.tensor([target]),
                lengths[b : b + 1], torch.tensor([len(target)]),
            )  # fmt: skip
            assert float(losses[b]) == pytest.approx(float(theirs), rel=1e-5)


def test_greedy_decoding() -> None:
    fixed, superb = ASR(), ASR("superb")
    for task in (fixed, superb):
        task.load(corpus())
        for path, said in (("||A|C_CAAT|", "A CCAT"), ("A|_|T", "A T"), ("____", "")):
            outputs = outputs_of(task, path)
            assert task.decode(outputs, torch.tensor([len(path)]), ()) == [said]
        assert task.decode(outputs_of(task, "CAT|AAA"), torch.tensor([4]), ()) == ["CAT"]
    path = torch.tensor([[SUPERB_SYMBOLS.index(s) for s in ("A", "</s>", "A", "|", "</s>")]])
    outputs = torch.nn.functional.one_hot(path, 32).float()
    assert superb.decode(outputs, torch.tensor([5]), ()) == ["AA"]


def test_targets_that_do_not_fit() -> None:
    task = ASR()
    task.load(corpus())
    one = utterance("u", text="dogs at")
    assert task.too_short(one, 8) is None
    assert task.too_short(one, 7) == "7 frames for a target that needs 8"
    assert not task.window_limit(utterance("u", seconds=18.75, text="a"))
    assert task.window_limit(utterance("u", seconds=18.76, text="a"))


def test_scores_by_hand() -> None:
    task = ASR()
    task.load(corpus())
    found = task.score(["A CAT", "DOGS"], ["A CAR", "DOGS IT"])
    assert found == {"wer": pytest.approx(2 / 3), "cer": pytest.approx((1 + 3) / 9)}
    signatures = [m.signature for m in task.metrics()]
    assert signatures == ["wer|norm:upper|unit:word|v1", "cer|norm:upper|unit:char|v1"]
    assert task.metrics()[0].name == task.SPEC.metric == task.dev_metric().name


def test_parts_share_no_speaker() -> None:
    parts = ASR().load(corpus()).folds[""]
    seen = [{u.speaker for u in split.utterances} for split in parts]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_recordings_of_silence_are_left_out() -> None:
    silent = [utterance(f"q{i}", speaker="s0", keyword="_silence_") for i in range(3)]
    data = ASR().load([*corpus(), *silent])
    assert {u.id[0] for split in data.folds[""] for u in split.utterances} == {"s"}


@pytest.mark.parametrize(
    ("protocol", "more", "message"),
    [
        ("fixed", utterance("bare", speaker="s9"), "label text on every utterance; without it: bare"),
        ("fixed", utterance("empty", speaker="s9", text=" \u2003 "), "nothing to recognise in the text of empty"),
        ("fixed", utterance("pipe", speaker="s9", text="a|b"), r"cannot spell these characters: '\|' of pipe; under fixed it spells what can be printed"),
        ("fixed", utterance("bell", speaker="s9", text="a\u200bb"), "'\\\\u200b' of bell"),
        ("superb", utterance("digit", speaker="s9", text="a 7"), "'7' of digit; under superb it spells A to Z and '"),
        ("superb", utterance("pipe", speaker="s9", text="a|b"), r"'\|' of pipe"),
    ],
)  # fmt: skip
def test_bad_data_is_named(protocol: str, more: Utterance, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ASR(protocol).load([*corpus(), more])


def test_all_unknown_characters_are_counted() -> None:
    with pytest.raises(DataError, match=r"'0' of s0-0, '1' of .*, '4' of s0-0 \(10 in all\)"):
        ASR("superb").load(corpus(["a 0123456789"]))


def test_a_character_that_train_lacks_is_noted_and_known() -> None:
    texts = corpus()
    parts = ["train"] * 4 + ["dev"] * 2 + ["test"] * 2
    given = [dataclasses.replace(u, split=parts[int(u.id[1])]) for u in texts]
    given.append(utterance("new", speaker="s7", split="test", text="quiz"))
    data = ASR().load(given)
    assert data.notes[0] == "splits are the corpus's own"
    assert data.notes[1] == "16 symbols with the blank, not in train: Q, U, Z"
    assert "Q" in data.classes


def test_state_is_enough_to_decode() -> None:
    task, other = ASR(heads="small"), ASR(heads="small")
    task.load(corpus())
    other.restore(task.state())
    assert other.symbols == task.symbols
    assert other.outputs == task.outputs
    assert other.decode(outputs_of(task, "DOG|"), torch.tensor([4]), ()) == ["DOG"]
    with pytest.raises(DataError, match="u has symbols that the head does not know: X"):
        other.target(utterance("u", text="x"))


# -- with a language model ------------------------------------------------------------------------


def arpa(path: Path, words: dict[str, float]) -> Path:
    lines = ["\\data\\", f"ngram 1={len(words) + 3}", "ngram 2=1", "", "\\1-grams:"]
    lines += ["-9\t<unk>", "-99\t<s>\t0", "-1\t</s>"]
    lines += [f"{p}\t{word}\t0" for word, p in words.items()]
    lines += ["", "\\2-grams:", "-1\t<s> </s>"]
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")
    return path


@needs_flashlight
def test_test_is_decoded_with_the_model_and_the_score_says_so(tmp_path: Path) -> None:
    lm = arpa(tmp_path / "words.arpa", {"cat": -0.2, "dog": -3.0, "quiz": -0.1})
    task = ASR(lm=lm)
    task.load(corpus())
    task.bind(FACTS)
    outputs = outputs_of(task, "DAT|")
    outputs[0, 0, task.symbols.index("C")] = 8.5  # a little less than D: CAT is a word, DAT none

    def probe(features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return outputs

    inputs = (torch.zeros(2, 1, 4, 8), torch.tensor([4]), [corpus()[0]])
    assert task.infer(probe, *inputs) == ["CAT"]  # type: ignore[arg-type]
    assert task.decode(outputs, torch.tensor([4]), ()) == ["DAT"]
    plain = ASR()
    plain.load(corpus())
    plain.bind(FACTS)
    assert plain.infer(probe, *inputs) == ["DAT"]  # type: ignore[arg-type]
    for metric in task.metrics():
        assert "|lm:words.arpa#" in metric.signature
        assert metric.signature.endswith("|beam:5|threshold:25|lm-weight:2|word-score:-1|v1")
    assert task.dev_metric().signature == plain.metrics()[0].signature


@needs_flashlight
def test_a_model_of_another_language_is_refused_before_training(tmp_path: Path) -> None:
    task = ASR("superb", lm=arpa(tmp_path / "ru.arpa", {"кот": -1.0}))
    task.load(corpus())
    with pytest.raises(DataError, match=r"no word of .*ru\.arpa can be spelled"):
        task.bind(FACTS)


def test_a_model_that_is_not_there() -> None:
    with pytest.raises((FileNotFoundError, ValueError), match=r"does not exist|mynah\[lm\]"):
        ASR(lm=Path("/nowhere/lm.arpa"))


# -- end to end -----------------------------------------------------------------------------------


@needs_flashlight
def test_a_probe_learns_to_spell(tmp_path: Path) -> None:
    folder = write_tones(tmp_path / "tones", takes=2).folder
    lm = arpa(tmp_path / "words.arpa", {"low": -0.5, "mid": -0.5, "high": -0.5})
    settings = Settings(steps=120, learning_rates=(1e-2,), heads="small", lm=lm)
    (result,) = run("fbank", "asr", folder, tmp_path / "out", settings=settings)
    assert result.metric == "wer"
    assert set(result.metrics) == {"wer", "cer"}
    assert "lm:words.arpa#" in result.main.signature
    assert result.skipped == {}
    assert result.metrics["cer"].value < 0.6  # it learns; where nothing is learned it is 1
    (head,) = (tmp_path / "out").rglob("*.head.safetensors")
    card, task, probe = trained.load(head)
    assert card.heads == "small"
    assert task.outputs == probe.head.classifier.out_features == len(set("LOWMIDHIGH")) + 2
