"""OOD-ASR: languages, what is counted, 20 ms outputs, symbols, bad data, end to end."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from tones import write_tones
from utterances import utterance

from mynah.recipes.probing import trained
from mynah.recipes.probing.job import run
from mynah.recipes.probing.settings import Settings
from mynah.tasks.core.contract import DataError, Facts
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.ood_asr import TASK as OOD

SPANISH = ["hola señor", "el niño", "qué tal"]
CHINESE = ["你好 吗", "我很好", "好"]


def facts(stride: int = 160, rate: int = 16000) -> Facts:
    return Facts(dim=8, layers=2, stride=stride, sample_rate=rate)


def corpus(texts: list[str] = SPANISH, language: str = "es", **more: str) -> list[Utterance]:
    labels = {"language": language} if language else {}
    return [
        utterance(f"s{s}-{i}", speaker=f"s{s}", seconds=1.0 + i, text=text, **labels, **more)
        for s in range(8)
        for i, text in enumerate(texts)
    ]


def split(utterances: list[Utterance]) -> list[Utterance]:
    parts = ["train"] * 4 + ["dev"] * 2 + ["test"] * 2
    return [dataclasses.replace(u, split=parts[int(u.id[1])]) for u in utterances]


def test_symbols_of_both_protocols() -> None:
    rare = utterance("rare", speaker="s7", split="test", text="kilo", language="es")
    fixed, superb = OOD(), OOD("superb")
    data = fixed.load([*split(corpus()), rare])
    train = sorted(set("HOLA SEÑOREL NIÑOQUÉ TAL"))
    assert fixed.symbols == ("<pad>", *sorted({*train, "K"}))
    assert "not in train: K" in data.notes[1]
    noted = superb.load([*split(corpus()), rare]).notes
    assert superb.symbols == ("<pad>", "<eos>", "<unk>", *train)
    assert "spelled <unk>: K" in noted[1]
    assert noted[2] == "es: errors of words are counted"
    assert [superb.symbols[i] for i in superb.target(rare)] == ["<unk>", "I", "L", "O", "<eos>"]
    assert (superb.reference(rare), fixed.reference(rare)) == ("<unk>ILO", "KILO")


@pytest.mark.parametrize(
    ("language", "unit"), [("es", "word"), ("ar", "word"), ("en", "word"), ("", "word"), ("zho", "word"),
                           ("zh-CN", "char"), ("zh", "char"), ("zh_TW", "char"), ("ja", "char")],
)  # fmt: skip
def test_what_is_counted(language: str, unit: str) -> None:
    task = OOD()
    task.load(corpus(language=language))
    names = [m.name for m in task.metrics()]
    assert names == ["error_rate", "wer", "cer"] if unit == "word" else ["error_rate", "cer"]
    assert task.metrics()[0].signature == f"error_rate|norm:upper|unit:{unit}|v1"
    assert task.dev_metric().name == task.SPEC.metric


def test_scores_by_hand() -> None:
    task = OOD()
    task.load(corpus())
    assert task.score(["EL NIÑO", "HOLA"], ["EL NINO", "HOLA"]) == {
        "error_rate": pytest.approx(1 / 3),
        "wer": pytest.approx(1 / 3),
        "cer": pytest.approx(1 / 11),
    }
    task.load(corpus(CHINESE, "zh-CN"))
    assert task.score(["你好吗"], ["你吗"]) == {"error_rate": pytest.approx(1 / 3), "cer": pytest.approx(1 / 3)}  # fmt: skip


def test_chinese_has_no_spaces() -> None:
    task = OOD()
    task.load(corpus(CHINESE, "zh-CN"))
    assert " " not in task.symbols
    assert task.reference(utterance("u", text="你好 吗")) == "你好吗"


def test_numbers_of_the_protocols() -> None:
    for language, every in (("es", 2_000), ("en", 2_000), ("ar", 5_000), ("zh-CN", 5_000)):
        task = OOD("superb")
        task.load(corpus(language=language))
        numbers = task.protocol
        assert (numbers.batch_size, numbers.accumulate, numbers.steps) == (16, 1, 500_000)
        assert (numbers.eval_every, numbers.sampler) == (every, "length-window")
    assert OOD("superb").protocol.eval_every == 2_000
    fixed = OOD()
    fixed.load(corpus(language="ar"))
    assert fixed.protocol == OOD.PROTOCOLS["fixed"]
    assert fixed.protocol.steps <= 20_000


def test_windows_are_in_the_order_of_duration() -> None:
    task = OOD("superb")
    task.load(corpus())
    long, short = (
        utterance("a", seconds=9.0, text="el"),
        utterance("b", seconds=2.0, text="hola el"),
    )
    assert task.target_length(long) == 9 * 16_000 > task.target_length(short)
    assert task.window_limit(utterance("u", seconds=18.76, text="el"))


@pytest.mark.parametrize(
    ("stride", "rate", "factor"),
    [(160, 16000, 2), (320, 16000, 1), (80, 16000, 4), (240, 24000, 2), (640, 16000, 1)],
)
def test_outputs_every_20_ms(stride: int, rate: int, factor: int) -> None:
    task = OOD(heads="small")
    task.load(corpus())
    task.bind(facts(stride, rate))
    assert task.stride_factor == factor
    head = task.head(8).eval()
    lengths = torch.tensor([21, 12])
    outputs = head(torch.randn(2, 21, 8), lengths)
    assert outputs.shape == (2, 21 // factor, task.outputs)
    assert task.output_lengths(lengths).tolist() == head.output_lengths(lengths).tolist()
    assert len(head.projections) == 2
    assert task.too_short(utterance("u", text="el"), 2 * factor) is None
    why = task.too_short(utterance("u", text="ell"), 3 * factor)
    assert why == "3 frames for a target that needs 4"


def test_losses_are_those_of_torch_over_the_frames_that_are_left() -> None:
    torch.manual_seed(0)
    task = OOD("superb")
    task.load(corpus())
    task.bind(facts())
    batch = [utterance("a", text="hola"), utterance("b", text="el")]
    logits = torch.randn(2, 2, 10, task.outputs)
    losses = task.losses(logits, torch.tensor([21, 13]), batch)
    for k in range(2):
        for b, (text, left) in enumerate((("HOLA", 10), ("EL", 6))):
            target = [task.symbols.index(c) for c in (*text, "<eos>")]
            theirs = torch.nn.CTCLoss()(
                logits[k, b, :left, None].log_softmax(-1), torch.tensor([target]),
                torch.tensor([left]), torch.tensor([len(target)]),
            )  # fmt: skip
            assert float(losses[k, b]) == pytest.approx(float(theirs), rel=1e-5)


def test_greedy_decoding_stops_where_the_audio_does() -> None:
    task = OOD("superb")
    task.load(corpus())
    task.bind(facts())
    spelled = ["E", "E", "<pad>", "L", " ", " ", "<pad>", " ", "<unk>", "<eos>", "A"]
    outputs = torch.nn.functional.one_hot(
        torch.tensor([[task.symbols.index(s) for s in spelled]]), task.outputs
    ).float()
    assert task.decode(outputs, torch.tensor([22]), ()) == ["EL <unk>A"]
    assert task.decode(outputs, torch.tensor([9]), ()) == ["EL"]


def test_sessions_stand_in_for_speakers() -> None:
    unknown = [
        dataclasses.replace(u, speaker=None, labels={**u.labels, "session": f"SBC{u.id[1]}"})
        for u in corpus(language="en")
    ]
    task = OOD()
    data = task.load(unknown)
    assert data.notes[0] == "splits were made here, disjoint by session"
    test = data.folds[""][2]
    rows = task.rows(test, ["HOLA"] * len(test.utterances))
    assert rows.unit == "session"
    assert rows.units == [u.labels["session"] for u in test.utterances]
    known = OOD()
    test = known.load(corpus()).folds[""][2]
    assert known.rows(test, [""] * len(test.utterances)).unit == "speaker"


def test_in_the_embedded_corpus_test_is_the_accents() -> None:
    far = utterance("far", speaker="s8", split="test", text="el", language="es", subset="accent")
    near = split(corpus(subset="sentences"))
    assert [u.id for u in OOD().load([*near, far]).folds[""][2].utterances] == ["far"]
    made = OOD(splits="made").load([*near, far])
    assert sum(len(s.utterances) for s in made.folds[""]) == len(near) + 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (utterance("zh", speaker="s9", text="好", language="zh-CN"), r"one language at a time.*es \(s7-2\), zh-CN \(zh\)"),
        (utterance("none", speaker="s9", text="hola"), r"es \(s7-2\), none \(none\)"),
        (utterance("bare", speaker="s9", language="es"), "without it: bare"),
        (utterance("gap", speaker="s9", text="\t\u00a0", language="es"), "nothing to recognise in the text of gap"),
    ],
)  # fmt: skip
def test_bad_data_is_named(more: Utterance, message: str) -> None:
    with pytest.raises(DataError, match=message):
        OOD().load([*corpus(), more])


def test_state_is_enough_to_decode() -> None:
    task, other = OOD("superb"), OOD("superb")
    task.load(corpus(CHINESE, "zh-CN"))
    other.restore(task.state())
    for one in (task, other):
        one.bind(facts(320))
    path = torch.tensor([[task.symbols.index(s) for s in "你好"]])
    outputs = torch.nn.functional.one_hot(path, task.outputs).float()
    assert other.decode(outputs, torch.tensor([2]), ()) == ["你好"]
    assert [m.name for m in other.metrics()] == ["error_rate", "cer"]


def test_a_probe_end_to_end(tmp_path: Path) -> None:
    folder = write_tones(tmp_path / "tones", takes=2).folder
    settings = Settings(steps=4, learning_rates=(1e-3,), heads="small", protocol="superb")
    (result,) = run("fbank", "ood_asr", folder, tmp_path / "out", settings=settings)
    assert result.metric == "error_rate"
    assert set(result.metrics) == {"error_rate", "wer", "cer"}
    (head,) = (tmp_path / "out").rglob("*.head.safetensors")
    _, task, probe = trained.load(head)
    assert probe.head.stride_factor == 2
    assert task.outputs == len(set("LOWMIDHIGH")) + 3
