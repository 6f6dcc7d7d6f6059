"""SD: data and chunks, the loss, decoding, a tiny probe."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from diarizing import FACTS, bound, corpus, recording
from voices import write_voices

from mynah.downstream.core.featurizer import Featurizer, Probe
from mynah.downstream.diarizer import Diarizer
from mynah.recipes.probing import job, trained
from mynah.recipes.probing.settings import Settings
from mynah.tasks.core.contract import DataError
from mynah.tasks.core.turns import Setting
from mynah.tasks.corpora.mixture_plan import Options
from mynah.tasks.corpora.mixtures import build
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.rttm import Turn
from mynah.tasks.sd import CHUNK
from mynah.tasks.sd import TASK as SD

# -- data -----------------------------------------------------------------------------------


def test_the_corpus_says_how_many_speakers() -> None:
    task = bound()
    assert task.outputs == 2
    assert task.loaded.classes == ("speaker1", "speaker2")
    assert [[u.id for u in s.utterances] for s in task.loaded.folds[""]] == [
        [f"{p}{i}" for i in range(3)] for p in ("train", "dev", "test")
    ]
    three = [*corpus(), recording("three", "train", ("a", 0, 1), ("b", 0, 1), ("g", 0, 1))]
    assert bound(utterances=three).outputs == 3


def test_names_of_no_meaning_outside_their_recording() -> None:
    local = [
        recording(f"{part}{i}", part, ("A", 0.0, 0.5), ("B", 0.4, 0.9))
        for part in ("train", "dev", "test")
        for i in range(2)
    ]
    assert "local to their recording" in SD().load(local).notes[-1]
    assert len(SD(splits="made").load(local).folds[""]) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([recording("x", "test", ("a", 0.0, 0.5))], "train and test share the speakers a"),
        ([recording("x", "test", ("g", 0.0, 1.2))], r"x: a turn ends at 1.2 s, the recording at 1 s"),
        ([recording("x", "test", ("g", 0.5, 0.5))], "x: a duration must be positive"),
        ([recording("x", "test", ("g", -0.1, 0.5))], "x: a turn cannot start before 0 s"),
        ([recording("x", "test", ("g h", 0.0, 0.5))], "x: the name of a speaker"),
        ([recording("x", "test")], "timed turns of speakers.*without it: x"),
        (
            [recording("x", "dev", ("g", 0, 1), ("h", 0, 1), ("i", 0, 1))],
            "no training recording has more than 2 speakers, but these have: x",
        ),
        (
            [recording("x", "train", *[(f"n{i}", 0, 1) for i in range(7)])],
            "up to 7 speakers; 6 can be told apart",
        ),
        ([recording("x", "other", ("g", 0.0, 0.5))], "in no part: x"),
    ],
)  # fmt: skip
def test_bad_data_is_named(more: list[Utterance], message: str) -> None:
    with pytest.raises(DataError, match=message):
        SD().load([*corpus(), *more])


def test_no_turns_at_all() -> None:
    bare = [dataclasses.replace(u, intervals={}) for u in corpus()]
    with pytest.raises(DataError, match="timed turns of speakers"):
        SD().load(bare)


def test_chunks_are_of_the_upstreams_frames() -> None:
    long = corpus(train_seconds=45.0)
    fixed, superb = bound(utterances=long), bound("superb", long)
    ids = {p: [u.id for u in t.loaded.folds[""][0].utterances][:3]
           for p, t in (("fixed", fixed), ("superb", superb))}  # fmt: skip
    assert ids["fixed"] == ["train0@0-1500", "train0@1500-3000", "train0@3000-4500"]
    assert ids["superb"] == ["train0@0-2000", "train0@2000-4000", "train0@4000-4500"]
    fixed.bind(dataclasses.replace(FACTS, stride=320))  # another upstream
    assert [u.id for u in fixed.loaded.folds[""][0].utterances][:2] == [
        "train0@0-1125", "train0@1125-2250"]  # fmt: skip
    test = [dataclasses.replace(u, duration=45.0) if u.split == "test" else u for u in corpus()]
    assert len(bound(utterances=test).loaded.folds[""][2].utterances) == 3
    assert len(bound("superb", test).loaded.folds[""][2].utterances) == 9


# -- training -------------------------------------------------------------------------------


def test_the_loss_by_an_independent_formula() -> None:
    task = bound()
    batch = task.loaded.folds[""][0].utterances
    torch.manual_seed(0)
    outputs = torch.randn(2, 3, 102, 2)
    lengths = torch.tensor([102, 98, 100])  # labels have 100 frames
    losses = task.losses(outputs, lengths, batch)
    for k in range(2):
        for b, (u, n) in enumerate(zip(batch, (100, 98, 100), strict=True)):
            target = torch.zeros(100, 2)
            for turn in u.intervals["speakers"]:
                column = 0 if turn.symbol == "a" else 1
                target[round(turn.start * 100) : round(turn.end * 100), column] = 1
            both = [
                F.binary_cross_entropy_with_logits(outputs[k, b, :n], t[:n], reduction="sum") / 2
                for t in (target, target.flip(1))
            ]
            assert float(losses[k, b]) == pytest.approx(float(min(both)) / 100, rel=1e-5)


def test_heads_of_both_sizes() -> None:
    task = bound()
    assert isinstance(task.head(4), Diarizer)
    assert task.head(4).lstm.hidden_size == 512
    small = SD(heads="small")
    small.load(corpus())
    assert small.head(4).lstm.hidden_size == 128  # type: ignore[union-attr]


# -- decoding -------------------------------------------------------------------------------


def test_activities_have_the_frames_of_the_audio() -> None:
    task = bound()
    outputs = torch.linspace(-2, 2, 2 * 102 * 2).view(2, 102, 2)
    long, short = task.decode(outputs, torch.tensor([102, 97]), corpus()[:2])
    assert long.shape == short.shape == (100, 2)
    assert long.dtype == np.float32
    np.testing.assert_allclose(long, outputs[0, :100].sigmoid(), rtol=1e-6)
    np.testing.assert_allclose(short[97:], np.repeat(short[96:97], 3, axis=0))
    assert short[96, 0] != short[95, 0]


def test_turns_and_what_is_shown() -> None:
    task = bound()
    task.setting = Setting(0.6, 3)
    activity = np.zeros((100, 2), np.float32)
    activity[10:50, 0] = 0.7
    activity[20, 0] = 0.0
    activity[40:, 1] = 0.65
    activity[5, 1] = 0.9
    assert task.turns(activity) == [
        Turn(10 * 0.01, 40 * 0.01, "speaker1"),
        Turn(40 * 0.01, 60 * 0.01, "speaker2"),
    ]
    shown = task.present(activity, corpus()[0])
    assert shown.text == "speaker1 0.10-0.50, speaker2 0.40-1.00"
    assert shown.rttm == task.turns(activity)
    assert json.loads(json.dumps(shown.json))["threshold"] == 0.6
    assert task.present(0 * activity, corpus()[0]).text == "nobody speaks"
    with pytest.raises(TypeError, match="got text"):
        task.turns("text")


def test_superb_hears_the_padding_of_a_rest() -> None:
    long = [dataclasses.replace(u, duration=25.0) if u.split == "test" else u for u in corpus()]
    task = bound("superb", long)
    test = task.loaded.folds[""][2]
    assert [u.id for u in test.utterances][:2] == ["test0@0-2000", "test0@2000-2500"]
    torch.manual_seed(0)
    probe = Probe(Featurizer(2), task.head(4)).eval()
    features = torch.randn(2, 1, 498, 4)
    (rest,) = task.infer(probe, features, torch.tensor([498]), test.utterances[1:2])
    assert rest.shape == (CHUNK, 2)
    filled = F.pad(features, (0, 0, 0, CHUNK - 498))
    expected = probe.head(probe.featurizer(filled)).sigmoid()[0]
    np.testing.assert_allclose(np.asarray(rest), expected.detach(), rtol=1e-4)
    fixed = bound("fixed", long)
    (whole,) = fixed.infer(probe, features, torch.tensor([498]), corpus()[:1])
    assert whole.shape == (100, 2)


def test_state_and_back() -> None:
    task = bound()
    task.setting = Setting(0.3, 11)
    kept = json.loads(json.dumps(task.state()))
    other = SD()
    other.restore(kept)
    other.bind(FACTS)
    assert other.setting == Setting(0.3, 11)
    assert other.outputs == 2
    activity = np.random.RandomState(0).rand(100, 2).astype(np.float32)
    assert other.turns(activity) == task.turns(activity)


# -- end to end -----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["fixed", "superb"])
def test_a_probe_end_to_end(tmp_path: Path, protocol: str) -> None:
    voices = write_voices(tmp_path / "voices")
    mixed = build(tmp_path / "mixed", voices, Options(kind="diarization", seconds=2.0, count=14))
    settings = Settings(
        protocol=protocol, steps=15, learning_rates=(1e-2, 1e-3), heads="small",  # type: ignore[arg-type]
    )  # fmt: skip
    (result,) = job.run("fbank", "sd", mixed.folder, tmp_path / "out", settings=settings)
    assert result.metric == "der"
    assert {"der", "miss", "false_alarm", "confusion"} == set(result.metrics)
    total = sum(result.metrics[m].value for m in ("miss", "false_alarm", "confusion"))
    assert result.main.value == pytest.approx(total)
    assert 0 < result.main.value < 1.5
    assert result.skipped == {}
    (name,) = result.heads.values()
    card, task, probe = trained.load(tmp_path / "out" / "fbank-base" / name)
    assert card.state["speakers"] == 2
    assert task.setting.threshold in (0.3, 0.4, 0.5, 0.6, 0.7)  # type: ignore[attr-defined]
    with torch.no_grad():
        (shown,) = task.predict(probe, torch.randn(1, 1, 98, 240), torch.tensor([98]), corpus()[:1])
    assert shown.rttm is not None
