"""IC: slots of three kinds of corpora, losses and decoding by hand, scores, bad data, end to end."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, sound
from tones import write_tones
from utterances import utterance

from mynah.recipes import probe
from mynah.recipes.probing.settings import Settings
from mynah.tasks.core.contract import DataError
from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.ic import TASK as IC
from mynah.tasks.metrics.accuracy import part_accuracy

INTENTS = [("on", "light", "none"), ("off", "light", "hall"), ("on", "heat", "hall")]


def commands(speakers: int = 8) -> list[Utterance]:
    return [
        utterance(f"s{s}-{i}", speaker=f"s{s}", action=a, object=o, location=place)
        for s in range(speakers)
        for i, (a, o, place) in enumerate(INTENTS)
    ]


def loaded(**kwargs: str) -> IC:
    task = IC(**kwargs)
    task.load(commands())
    return task


def test_numbers_of_superb() -> None:
    p = IC.PROTOCOLS["superb"]
    assert (p.optimizer, p.batch_size, p.accumulate, p.clip) == ("adam", 32, 1, 1.0)
    assert (p.steps, p.eval_every, p.sampler, p.ties) == (200_000, 5_000, "shuffle", "first")
    assert IC.PROTOCOLS["fixed"].steps <= 20_000


def test_three_slots_share_one_head() -> None:
    task = loaded()
    assert task.slots == {
        "action": ("off", "on"), "object": ("heat", "light"), "location": ("hall", "none"),
    }  # fmt: skip
    assert task.outputs == 6
    assert task.head(5)(torch.zeros(2, 5)).shape == (2, 6)
    assert task.loaded.classes[:3] == ("action:off", "action:on", "object:heat")
    assert task.reference(commands()[1]) == "off|light|hall"
    assert "action (2), object (2), location (2)" in task.loaded.notes[1]
    seen = [{u.speaker for u in split.utterances} for split in task.loaded.folds[""]]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_loss_is_the_sum_of_the_slots_cross_entropies() -> None:
    torch.manual_seed(0)
    task = loaded()
    batch = [commands()[0], commands()[2]]
    logits = torch.randn(3, 2, 6)
    found = task.losses(logits, torch.ones(2), batch)
    for k in range(3):
        expected = 0.0
        for at, targets in ((0, [1, 1]), (2, [1, 0]), (4, [1, 0])):
            part = logits[k, :, at : at + 2]
            expected = expected + torch.logsumexp(part, 1) - part[[0, 1], targets]
        torch.testing.assert_close(found[k], expected)
        # s3prl: a mean over the batch for each slot, summed over slots
        theirs = sum(
            torch.nn.CrossEntropyLoss()(logits[k, :, at : at + 2], torch.tensor(targets))
            for at, targets in ((0, [1, 1]), (2, [1, 0]), (4, [1, 0]))
        )
        torch.testing.assert_close(found[k].mean(), theirs)


def test_decoding_is_slot_by_slot() -> None:
    logits = torch.tensor([[5.0, 1, 0, 2, 3, 9], [0, 1, 2, 0, 1, 0]])
    assert loaded().decode(logits, torch.ones(2), commands()[:2]) == [
        "off|light|none",
        "on|heat|hall",
    ]


def test_all_slots_must_be_right_and_each_has_its_own_score() -> None:
    task = loaded()
    references = ["on|light|none", "off|light|hall", "on|heat|hall", "on|heat|hall"]
    predictions = ["on|light|none", "on|light|hall", "on|light|none", "on|heat|hall"]
    assert task.score(references, predictions) == {
        "accuracy": pytest.approx(2 / 4),
        "action_accuracy": pytest.approx(3 / 4),
        "object_accuracy": pytest.approx(3 / 4),
        "location_accuracy": pytest.approx(3 / 4),
    }
    assert task.metrics()[0].name == task.SPEC.metric
    signatures = {m.signature for m in task.metrics()}
    assert len(signatures) == 4
    assert part_accuracy(1, "x").score(["a|b", "a|b"], ["z|b", "b|a"]) == 0.5


def test_state_is_enough_to_decode() -> None:
    task, other = loaded(), IC()
    other.restore(json.loads(json.dumps(task.state())))
    assert other.slots == task.slots
    assert other.outputs == 6
    logits = torch.randn(4, 6)
    assert other.decode(logits, torch.ones(4), ()) == task.decode(logits, torch.ones(4), ())
    assert [m.signature for m in other.metrics()] == [m.signature for m in task.metrics()]


def test_intent_alone_is_one_slot() -> None:
    task = IC()
    corpus = [
        utterance(f"s{s}-{i}", speaker=f"s{s}", intent=f"a|{i}") for s in range(6) for i in range(2)
    ]
    assert task.load(corpus).classes == ("a|0", "a|1")
    assert task.reference(corpus[1]) == "a|1"
    assert [m.name for m in task.metrics()] == ["accuracy"]
    assert task.decode(torch.tensor([[0.0, 1.0]]), torch.ones(1), corpus[:1]) == ["a|1"]


@pytest.mark.parametrize(
    ("milk", "size"), [("slot_milk", "slot_size"), ("slot1_milk", "slot2_size")]
)
def test_other_slots_may_be_absent_and_numbered(milk: str, size: str) -> None:
    corpus = [utterance(f"u{i}", **({milk: "oat"} if i % 2 else {size: "big"})) for i in range(20)]
    task = IC()
    task.load(corpus)
    assert task.slots == {milk: ("none", "oat"), size: ("big", "none")}
    assert task.reference(corpus[0]) == "none|big"


def test_only_the_subset_of_commands_counts() -> None:
    read = [utterance(f"r{i}", speaker=f"s{i}", subset="read") for i in range(3)]
    corpus = [dataclasses.replace(u, labels={**u.labels, "subset": "c"}) for u in commands()]
    train, dev, test = IC().load([*read, *corpus]).folds[""]
    assert len(train.utterances) + len(dev.utterances) + len(test.utterances) == len(corpus)


def given() -> list[Utterance]:
    parts = {0: "dev", 1: "test"}
    return [
        dataclasses.replace(u, split=parts.get(int(str(u.speaker)[1:]), "train"))
        for u in commands()
    ]


def strange(split: str, **labels: str) -> Utterance:
    good = {"action": "on", "object": "light", "location": "none"}
    return utterance("odd", speaker="odd", split=split, **{**good, **labels})


def only_strange(split: str) -> list[Utterance]:
    return [
        dataclasses.replace(u, labels={**u.labels, "location": "attic"}) if u.split == split else u
        for u in given()
    ]


def test_superb_refuses_values_that_train_lacks_and_says_what_to_do() -> None:
    for split, labels, named in (
        ("test", {"location": "attic"}, "location 'attic' of odd"),
        ("dev", {"action": "dim"}, "action 'dim' of odd"),
    ):
        message = f"{split} has values that train has not: {named}; .* take the fixed protocol"
        with pytest.raises(DataError, match=message):
            IC("superb").load([*given(), strange(split, **labels)])


def test_values_that_train_lacks_are_errors_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    task = IC()
    odd = [
        strange("test", location="attic"),
        dataclasses.replace(strange("dev", action="dim"), id="x", speaker="s8"),
    ]
    data = task.load([*given(), *odd])
    assert task.slots["location"] == ("hall", "none")  # of train alone
    assert data.notes[2:] == tuple(caplog.messages[i].removeprefix("ic: ") for i in (0, 1))
    assert data.notes[2:] == (
        "1 of 4 dev utterances count as errors, for train lacks a value of theirs: action 'dim' of x",
        "1 of 4 test utterances count as errors, for train lacks a value of theirs: "
        "location 'attic' of odd",
    )
    references = [task.reference(u) for u in data.folds[""][2].utterances]
    assert "on|light|attic" in references
    best = ["on|light|none" if r.endswith("attic") else r for r in references]
    scores = task.score(references, best)
    assert scores["accuracy"] == scores["attainable"] == 3 / 4
    assert scores["location_accuracy"] == 3 / 4
    assert scores["action_accuracy"] == 1
    assert task.score(references, ["off|heat|none"] * 4)["attainable"] == 3 / 4
    # nothing is said of it where there is none
    other = IC()
    other.load([*given(), odd[1]])
    assert "attainable" not in {m.name for m in other.metrics()}


def test_dev_loss_leaves_out_slots_whose_value_train_lacks() -> None:
    task = IC()
    dim = strange("dev", action="dim")
    task.load([*given(), dim])
    logits = torch.randn(1, 1, 6)
    found = task.losses(logits, torch.ones(1), [dim])
    known = task.losses(logits, torch.ones(1), [strange("dev", action="on")])
    own = torch.logsumexp(logits[0, 0, :2], 0) - logits[0, 0, 1]
    torch.testing.assert_close(found[0, 0], known[0, 0] - own)


def test_an_intent_that_train_lacks_is_an_error() -> None:
    corpus = [
        utterance(f"s{s}-{i}", speaker=f"s{s}", intent=f"a|{i}", split=split)
        for s, split in enumerate(["train", "train", "dev", "test"])
        for i in range(2)
    ]
    task = IC()
    task.load([*corpus, utterance("odd", speaker="s9", intent="b", split="test")])
    assert [m.name for m in task.metrics()] == ["accuracy", "attainable"]
    scores = task.score(["a|0", "a|1", "b"], ["a|0", "a|0", "a|1"])
    assert scores == {"accuracy": pytest.approx(1 / 3), "attainable": pytest.approx(2 / 3)}


def test_made_splits_show_train_as_many_values_as_they_can() -> None:
    """Every value is in train where any of 50 orders does that, whatever values go together."""
    corpus = [
        utterance(f"u{i}", slot1_size=f"s{i % 20}", slot2_milk=f"m{i % 19}") for i in range(80)
    ]
    task = IC()
    train = task.load(corpus).folds[""][0].utterances
    combined = {task.reference(u) for u in corpus}
    assert combined > {task.reference(u) for u in train}
    assert [len(values) for values in task.slots.values()] == [20, 19]
    rare = [*corpus, *(utterance(f"r{i}", slot1_size=f"only{i}") for i in range(4))]
    task = IC()
    data = task.load(rare)
    shown = {u.label("slot1_size") for u in data.folds[""][0].utterances}
    assert len(shown) >= 22  # four that cannot all be hoped for


@pytest.mark.parametrize("protocol", ["superb", "fixed"])
@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([utterance("u", speaker="s")], "needs the label intent"),
        ([*given(), utterance("u", speaker="s", split="dev", action="on")], "without it: u"),
        (only_strange("test"), "no utterance of test has only values that train has: location 'attic' of s1-0|test has values that train has not"),
        ([*given(), strange("train", object="a|b")], "must not hold '|': object 'a|b' of odd".replace("|", r"\|")),
        ([dataclasses.replace(u, labels=strange("train").labels) for u in given()], "nothing to tell apart"),
        ([dataclasses.replace(u, speaker="s9") if u.split else u for u in given()], "share speaker s9"),
        (commands(2), "there are only 2"),
    ],
)  # fmt: skip
def test_bad_data_is_named(corpus: list[Utterance], message: str, protocol: str) -> None:
    with pytest.raises(DataError, match=message):
        IC(protocol).load(corpus)  # type: ignore[arg-type]


def test_the_official_corpus_in_miniature(tmp_path: Path) -> None:
    home = tmp_path / "fluent"
    header = ",path,speakerId,transcription,action,object,location"
    rows = {"train": "a", "valid": "b", "test": "c"}
    for part, who in rows.items():
        table = []
        for i, (action, thing, place) in enumerate(INTENTS):
            sound(home / f"wavs/speakers/s{who}/{who}{i}.wav")
            table.append(f"{i},wavs/speakers/s{who}/{who}{i}.wav,s{who},Words,{action},{thing},{place}")  # fmt: skip
        lines(home / f"data/{part}_data.csv", header, *table)
    assert prepare("fluent_speech_commands", home, tmp_path / "out") == 0
    data = IC("superb").load(Corpus.open(tmp_path / "out").utterances())
    assert [[u.id for u in split.utterances] for split in data.folds[""]] == [
        ["a0", "a1", "a2"], ["b0", "b1", "b2"], ["c0", "c1", "c2"],
    ]  # fmt: skip


@pytest.mark.parametrize("protocol", ["superb", "fixed"])
def test_end_to_end_it_learns_two_slots(tmp_path: Path, protocol: str) -> None:
    tones = write_tones(tmp_path / "tones")
    slots = {
        "low": ("down", "same", "x"), "mid": ("up", "same", "x"), "high": ("up", "far", "x"),
    }  # fmt: skip
    marked = [
        dataclasses.replace(
            u, labels=dict(zip(("action", "object", "location"), slots[str(u.text)], strict=True))
        )
        for u in tones.utterances()
    ]
    corpus = write_corpus(tmp_path / "tones", marked, name="tones")
    settings = Settings(protocol=protocol, steps=40, learning_rates=(1e-2,))  # type: ignore[arg-type]
    (result,) = probe.run("fbank", "ic", corpus.folder, tmp_path / "out", settings=settings)
    assert result.main.value > 0.9
    assert result.metrics["location_accuracy"].value == 1.0
    assert result.features == "pooled"
