"""SF: tags and values as targets, marks, loss, decoding, scores by hand, bad data, end to end."""

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
from mynah.tasks.core.contract import DataError
from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.sf import SUPERB_CHARACTERS
from mynah.tasks.sf import TASK as SF

SENTENCES = [
    ("play the beatles", "O B-artist I-artist"),
    ("weather in new york", "O O B-city I-city"),
    ("fly paris rome now", "O B-city B-city O"),
    ("stop", "O"),
]


def corpus(sentences: list[tuple[str, str]] = SENTENCES) -> list[Utterance]:
    return [
        utterance(f"s{s}-{i}", speaker=f"s{s}", seconds=1.0 + i, text=text, slots=tags)
        for s in range(8)
        for i, (text, tags) in enumerate(sentences)
    ]


def orders(**more: str) -> list[Utterance]:
    """A corpus that says what fills each slot, and not the sentence."""
    values = [
        {"slot1_size": "large", "slot2_drink": "iced coffee"},
        {"slot2_drink": "mocha", "slot3_milk": "milk"},
        {"slot1_size": "small", **more},
    ]
    return [
        utterance(f"s{s}-{i}", speaker=f"s{s}", **labels)
        for s in range(8)
        for i, labels in enumerate(values)
    ]


def test_targets_of_tags() -> None:
    fixed, superb = SF(), SF("superb")
    for task in (fixed, superb):
        task.load(corpus())
    one = corpus()[1]
    wanted = [*"WEATHER IN ", "B-city", *"NEW YORK", "E-city"]
    assert fixed.spelled(one) == wanted
    assert [fixed.symbols[i] for i in fixed.target(one)] == wanted
    assert [superb.symbols[i] for i in superb.target(one)] == [*wanted, "<eos>"]
    assert superb.target_length(one) == fixed.target_length(one) + 1 == len(wanted) + 1
    assert fixed.reference(one) == "WEATHER IN B-city NEW YORK E-city"
    assert fixed.reference(corpus()[3]) == "STOP"


def test_neighbours_of_one_slot_are_one_span_in_superb() -> None:
    fixed, superb = SF(), SF("superb")
    for task in (fixed, superb):
        task.load(corpus())
    one = corpus()[2]
    assert fixed.reference(one) == "FLY B-city PARIS E-city B-city ROME E-city NOW"
    assert superb.reference(one) == "FLY B-city PARIS ROME E-city NOW"


def test_symbols_of_both_protocols() -> None:
    fixed, superb = SF(), SF("superb")
    marks = ("B-artist", "B-city", "E-artist", "E-city")
    assert fixed.load(corpus()).classes == (*sorted(set("".join(t.upper() for t, _ in SENTENCES))), *marks)  # fmt: skip
    assert fixed.symbols[0] == "<pad>"
    superb.load(corpus())
    assert superb.symbols == ("<pad>", "<eos>", "<unk>", *SUPERB_CHARACTERS, *marks)
    assert len(SUPERB_CHARACTERS) == 28
    snips = [(f"w{i}", f"B-slot{i}") for i in range(39)]
    superb.load(corpus(snips))
    assert superb.outputs == 109


def test_superb_spells_what_it_lacks_as_unknown() -> None:
    task = SF("superb")
    data = task.load([*corpus(), utterance("m", speaker="s0", text="olé 7", slots="B-artist O")])
    assert "spelled <unk>: 7, É" in data.notes[1]
    assert task.reference(utterance("m", text="olé 7", slots="B-artist O")) == (
        "B-artist OL<unk> E-artist <unk>"
    )


def test_targets_of_values_are_in_the_order_of_their_numbers() -> None:
    task = SF()
    task.load(orders())
    first, second = orders()[:2]
    assert task.reference(first) == "B-size LARGE E-size B-drink ICED COFFEE E-drink"
    assert task.reference(second) == "B-drink MOCHA E-drink B-milk MILK E-milk"
    assert task.spelled(second)[:7] == ["B-drink", *"MOCHA", "E-drink"]
    by_name = utterance("u", slot_size="large", slot_drink="tea", slot10_milk="no", slot9_ice="no")
    assert task.reference(by_name).split()[::3] == ["B-drink", "B-size", "B-ice", "B-milk"]
    assert [m.name for m in task.metrics()] == [
        "slot_type_f1", "slot_value_cer", "slot_value_wer", "slot_edit_f1_full", "slot_edit_f1_part",
    ]  # fmt: skip


def test_columns_of_a_table_become_slots(tmp_path: Path) -> None:
    from mynah.recipes import prepare

    tones = write_tones(tmp_path / "tones", speakers=3, takes=1)
    lines = ["path\tid\tspeaker\tsize\tdrink"]
    lines += [
        f"{u.path}\t{u.id}\t{u.speaker}\t{'' if i % 3 == 0 else 'large'}\ticed coffee"
        for i, u in enumerate(tones.utterances())
    ]
    (tmp_path / "manifest.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    args = prepare.Args(
        name="tsv", source=str(tmp_path / "manifest.tsv"), out=tmp_path / "out",
        rename=("size=slot1_size", "drink=slot2_drink"),
    )  # fmt: skip
    assert prepare.main(args) == 0
    task = SF()
    data = task.load(Corpus.open(tmp_path / "out").utterances())
    said = {task.reference(u) for split in data.folds[""] for u in split.utterances}
    assert said == {
        "B-size LARGE E-size B-drink ICED COFFEE E-drink",
        "B-drink ICED COFFEE E-drink",
    }


def test_numbers_of_the_protocols() -> None:
    superb, fixed = SF("superb").protocol, SF().protocol
    assert (superb.batch_size, superb.accumulate, superb.steps, superb.eval_every) == (32, 1, 200_000, 2_000)  # fmt: skip
    assert (superb.sampler, superb.ties) == ("length-window", "first")
    assert fixed.steps <= 20_000
    assert SF().window_limit(utterance("u", seconds=18.76))
    assert not SF().window_limit(utterance("u", seconds=18.75))


def test_heads() -> None:
    task = SF("superb")
    task.load(corpus([(f"w{i}", f"B-slot{i}") for i in range(39)]))
    with torch.device("meta"):
        head = task.head(768)
    assert round(sum(p.numel() for p in head.parameters()) / 1e6) == 43
    assert (head.specaug.adaptive, head.specaug.frequency_width) == (0.04, 49)
    small = SF(heads="small")
    small.load(corpus())
    head = small.head(240)
    assert (head.projector.out_features, head.layers[1].lstm.hidden_size) == (128, 128)
    assert (head.specaug.adaptive, head.specaug.frequency_width) == (0.04, 15)


def test_losses_are_those_of_torch() -> None:
    torch.manual_seed(0)
    task = SF()
    task.load(corpus())
    batch = corpus()[:2]
    logits, lengths = torch.randn(2, 2, 30, task.outputs), torch.tensor([30, 25])
    losses = task.losses(logits, lengths, batch)
    spelled = [
        [*"PLAY ", "B-artist", *"THE BEATLES", "E-artist"],
        [*"WEATHER IN ", "B-city", *"NEW YORK", "E-city"],
    ]
    for k in range(2):
        for b, symbols in enumerate(spelled):
            target = [task.symbols.index(s) for s in symbols]
            theirs = torch.nn.CTCLoss()(
                logits[k, b, : lengths[b], None].log_softmax(-1), torch.tensor([target]),
                lengths[b : b + 1], torch.tensor([len(target)]),
            )  # fmt: skip
            assert float(losses[k, b]) == pytest.approx(float(theirs), rel=1e-5)


def path_of(task: SF, symbols: list[str]) -> torch.Tensor:  # type: ignore[valid-type]
    index = torch.tensor([[task.symbols.index(s) for s in symbols]])  # type: ignore[attr-defined]
    return torch.nn.functional.one_hot(index, task.outputs).float()  # type: ignore[attr-defined]


def test_decoding_puts_spaces_round_marks() -> None:
    for task in (SF(), SF("superb")):
        task.load(corpus())
        path = [*"FLY", " ", "B-city", "B-city", *"ROME", "<pad>", "E-city", " ", "E-city", *"NOW"]
        (text,) = task.decode(path_of(task, path), torch.tensor([len(path)]), ())
        assert text == "FLY B-city ROME E-city E-city NOW"
        assert task.said(text) == "FLY ROME NOW"
        shown = task.present(text, corpus()[0])
        assert shown.json == {"text": text, "slots": [{"slot": "city", "value": "ROME"}]}
    path = [*"FLY", "<eos>", "<unk>"]
    assert task.decode(path_of(task, path), torch.tensor([5]), ()) == ["FLY<unk>"]


REFERENCES = ["PLAY B-artist THE BEATLES E-artist", "WEATHER IN B-city ROME E-city"]
PREDICTIONS = ["PLAY B-artist THE BEETLES E-artist", "WEATHER B-artist IN ROME E-artist"]


def test_scores_by_hand() -> None:
    task = SF()
    task.load(corpus())
    assert task.score(REFERENCES, PREDICTIONS) == {
        "slot_type_f1": pytest.approx((1 + 0) / 2),
        "slot_value_cer": pytest.approx((1 + 4) / (11 + 4)),
        "slot_value_wer": pytest.approx((1 + 1) / (2 + 1)),
        "slot_edit_f1_full": pytest.approx(0.0),
        "slot_edit_f1_part": pytest.approx(0.0),
        "wer": pytest.approx(1 / 6),  # BEETLES
        "cer": pytest.approx(1 / 31),
    }
    superb = SF("superb")
    superb.load(corpus())
    # with marks: BEETLES; two marks and the moved IN of the other sentence
    assert superb.score(REFERENCES, PREDICTIONS)["wer"] == pytest.approx(4 / 10)
    assert [t.metrics()[-2].signature for t in (task, superb)] == [
        "wer|norm:unmarked|unit:word|v1",
        "wer|norm:marked|unit:word|v1",
    ]
    assert task.dev_metric().name == "slot_type_f1" == task.SPEC.metric


def test_a_perfect_prediction() -> None:
    for task in (SF(), SF("superb")):
        task.load(corpus())
        references = [task.reference(u) for u in corpus()]
        perfect = task.score(references, references)
        assert perfect == {m.name: 1.0 if m.higher_is_better else 0.0 for m in task.metrics()}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (utterance("bare", speaker="s9", text="stop"), "label slots on every utterance; without it: bare"),
        (utterance("few", speaker="s9", text="stop now", slots="O"), r"few \(2 words, 1 tags\)"),
        (utterance("mute", speaker="s9", slots="O"), r"mute \(0 words, 1 tags\)"),
        (utterance("odd", speaker="s9", text="stop", slots="city"), r"odd \('city' is neither O nor B-slot nor I-slot\)"),
        (utterance("lost", speaker="s9", text="stop", slots="I-city"), r"lost \(I-city follows O\)"),
        (utterance("swap", speaker="s9", text="a b", slots="B-city I-artist"), r"swap \(I-artist follows B-city\)"),
    ],
)  # fmt: skip
def test_bad_tags_are_named(more: Utterance, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SF().load([*corpus(), more])


def test_many_bad_tags_are_counted() -> None:
    with pytest.raises(DataError, match=r"s0-0 .*s4-0 \(2 words, 1 tags\) \(8 in all\)"):
        SF().load(corpus([("a b", "O")]))


@pytest.mark.parametrize(
    ("utterances", "message"),
    [
        ([*orders(), utterance("bare", speaker="s9")], "without it: bare"),
        (orders(slot2_size="tall"), r"s0-2 \(size is there twice\).*\(8 in all\)"),
        (orders(slot2_drink="\u00a0"), r"s0-2 \(drink is empty\)"),
        ([utterance("u", speaker="s", text="words only")], "the label slots or slot_NAME"),
        (corpus([("stop", "O")]), "no utterance of train fills a slot"),
    ],
)
def test_bad_values_are_named(utterances: list[Utterance], message: str) -> None:
    with pytest.raises(DataError, match=message):
        SF().load(utterances)


def test_parts_share_no_speaker() -> None:
    parts = SF().load(corpus()).folds[""]
    seen = [{u.speaker for u in split.utterances} for split in parts]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_state_is_enough_to_decode() -> None:
    for utterances, count in ((corpus(), 7), (orders(), 5)):
        task, other = SF(), SF()
        task.load(utterances)
        other.restore(task.state())
        slot = task.symbols[-1][2:]
        path = [f"B-{slot}", *"RI", f"E-{slot}"] if "R" in task.symbols else [f"B-{slot}"]
        outputs, lengths = path_of(task, path), torch.tensor([len(path)])
        assert other.decode(outputs, lengths, ()) == task.decode(outputs, lengths, ()) != [""]
        assert len(other.metrics()) == len(task.metrics()) == count


def test_a_probe_learns_slots(tmp_path: Path) -> None:
    tones = write_tones(tmp_path / "tones", takes=2).utterances()
    tagged = [
        dataclasses.replace(u, labels={"slots": f"B-{'pitch' if u.text != 'mid' else 'place'}"})
        for u in tones
    ]
    folder = write_corpus(tmp_path / "tagged", tagged, name="tagged").folder
    settings = Settings(steps=120, learning_rates=(1e-2,), heads="small")
    (result,) = run("fbank", "sf", folder, tmp_path / "out", settings=settings)
    assert result.metric == "slot_type_f1"
    assert result.main.value > 0.6  # it learns; where nothing is learned it is 0
    assert len(result.metrics) == 7
    assert result.higher_is_better
    (head,) = (tmp_path / "out").rglob("*.head.safetensors")
    _, task, probe = trained.load(head)
    assert task.outputs == probe.head.classifier.out_features
    assert task.symbols[-4:] == ("B-pitch", "B-place", "E-pitch", "E-place")
