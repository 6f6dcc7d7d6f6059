"""SID, ER and what they share with KS and PR: data contracts, both protocols, bad data."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from parts import BOTH, people
from utterances import emotions, keywords, utterance

from mynah import tasks
from mynah.tasks.core.contract import DataError, ProtocolName
from mynah.tasks.er import TASK as ER
from mynah.tasks.ks import TASK as KS
from mynah.tasks.sid import TASK as SID


def test_every_task_has_both_protocols_and_facts() -> None:
    assert {"ks", "sid", "er", "pr"} <= set(tasks.available())
    for name in tasks.available():
        module = tasks.get(name)
        assert module.TASK.SPEC is module.SPEC
        assert module.SPEC.name == name
        assert set(module.TASK.PROTOCOLS) == {"superb", "fixed"}
        assert "``superb``" in module.__doc__
        assert "``fixed``" in module.__doc__
        if not module.TASK.TRAINED:
            continue
        assert module.TASK.PROTOCOLS["fixed"].patience is not None
        for protocol in module.TASK.PROTOCOLS.values():
            assert 3 <= len(protocol.learning_rates) <= 5


def test_superb_numbers_are_s3prls() -> None:
    numbers = {
        name: (p.batch_size, p.accumulate, p.clip, p.steps, p.eval_every)
        for name in ("ks", "sid", "er", "pr")
        for p in [tasks.get(name).TASK.PROTOCOLS["superb"]]
    }
    assert numbers == {
        "ks": (32, 1, 1.0, 200_000, 5_000),
        "sid": (8, 4, 1.0, 200_000, 5_000),
        "er": (4, 8, 1.0, 30_000, 1_000),
        "pr": (16, 2, 1.0, 100_000, 1_000),
    }


# -- sid ----------------------------------------------------------------------------------------


def sessions(n: int = 4, each: int = 3, speakers: int = 5) -> list:  # type: ignore[type-arg]
    return [
        utterance(f"s{s}-{k}-{i}", speaker=f"s{s}", session=f"{k}")
        for s in range(speakers)
        for k in range(n)
        for i in range(each)
    ]


@pytest.mark.parametrize("protocol", BOTH)
def test_sid_shares_speakers_and_not_sessions(protocol: ProtocolName) -> None:
    data = SID(protocol).load(sessions())
    parts = data.folds[""]
    assert people(parts) == [{f"s{i}" for i in range(5)}] * 3
    seen = [{(u.speaker, u.labels["session"]) for u in split.utterances} for split in parts]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert "session" in data.notes[0]


def test_sid_without_enough_sessions_goes_by_utterance() -> None:
    data = SID().load(sessions(n=2))
    assert "utterance" in data.notes[0]
    assert people(data.folds[""])[2] == {f"s{i}" for i in range(5)}


def test_sid_skips_speakers_with_too_little() -> None:
    few = [utterance("lone-1", speaker="lone"), utterance("lone-2", speaker="lone")]
    data = SID().load(
        [*(utterance(f"s{s}-{i}", speaker=f"s{s}") for s in range(3) for i in range(6)), *few]
    )
    assert set(data.skipped) == {"lone-1", "lone-2"}
    assert "too few" in data.skipped["lone-1"]
    assert data.classes == ("s0", "s1", "s2")
    with pytest.raises(DataError, match="nothing to tell apart"):
        SID().load(few)


def test_sid_uses_its_own_split_label_first() -> None:
    corpus = [
        dataclasses.replace(u, split="train" if u.speaker < "s3" else "test",
                            labels={**u.labels, "sid_split": {"0": "dev", "1": "test"}.get(u.labels["session"], "train")})
        for u in sessions()
    ]  # fmt: skip
    parts = SID().load(corpus).folds[""]
    assert {u.labels["session"] for u in parts[1].utterances} == {"0"}
    assert people(parts)[0] == {f"s{i}" for i in range(5)}


def test_sid_remakes_splits_that_are_disjoint_by_speaker() -> None:
    corpus = [
        dataclasses.replace(u, split="train" if u.speaker < "s3" else "test") for u in sessions()
    ]
    data = SID().load(corpus)
    assert people(data.folds[""])[0] == {f"s{i}" for i in range(5)}
    assert "made here" in data.notes[0]


def test_sid_refuses_half_shared_speakers_and_shared_sessions() -> None:
    half = [
        dataclasses.replace(
            u, split="test" if u.speaker == "s4" or u.labels["session"] == "0" else "train"
        )
        for u in sessions()
    ]
    with pytest.raises(DataError, match="test has speakers that train has not: s4"):
        SID().load(half)
    leaky = [
        dataclasses.replace(u, split=("train", "dev", "test")[i % 3])
        for i, u in enumerate(sessions())
    ]
    with pytest.raises(DataError, match="share session"):
        SID().load(leaky)
    assert SID(splits="made").load(leaky)


def test_sid_superb_trains_on_eight_second_crops() -> None:
    task = SID("superb")
    long = utterance("long", speaker="s", seconds=20.0)
    crops = task.views(long)
    assert len(crops) == 8
    assert all(c.duration == 8.0 and 0 <= c.start <= 12.0 for c in crops)
    assert SID("fixed").views(long) == (long,)
    short = utterance("short", speaker="s", seconds=7.0)
    assert task.views(short) == (short,)


# -- er -----------------------------------------------------------------------------------------


def test_er_leaves_every_speaker_out_once() -> None:
    data = ER().load(emotions())
    tested = [u.id for _, _, test in data.folds.values() for u in test.utterances]
    assert sorted(tested) == sorted(u.id for u in emotions())
    for parts in data.folds.values():
        train, dev, test = people(parts)
        assert not (train & dev or train & test or dev & test)


def test_er_superb_dev_shares_speakers_but_test_does_not() -> None:
    data = ER("superb").load(emotions())
    for parts in data.folds.values():
        train, dev, test = people(parts)
        assert train & dev
        assert not (train | dev) & test
        assert len(parts[1].utterances) == 8  # 20 % of 40
    assert data.folds == ER("superb").load(emotions()[::-1]).folds


def test_er_groups_by_session_where_speakers_have_one() -> None:
    corpus = [
        dataclasses.replace(u, labels={**u.labels, "session": f"ses{int(u.speaker[1:]) // 2}"})
        for u in emotions()
    ]
    assert list(ER().load(corpus).folds) == ["ses0", "ses1", "ses2"]
    several = [dataclasses.replace(u, labels={**u.labels, "session": u.id[-1]}) for u in emotions()]
    assert list(ER().load(several).folds) == [f"s{i}" for i in range(6)]


def test_er_joins_many_speakers_to_ten_groups() -> None:
    assert len(ER().load(emotions(speakers=23)).folds) == 10


def test_er_scores() -> None:
    refs, hyps, folds = list("xxxxyy"), list("xxxyyx"), list("aaaabb")
    superb, fixed = ER("superb"), ER()
    corpus = [utterance(f"{s}{i}", speaker=s, emotion="xy"[i % 2]) for s in "abc" for i in range(4)]
    for task in (superb, fixed):
        task.load(corpus)
    assert superb.score(refs, hyps, folds) == {"accuracy": pytest.approx((3 / 4 + 1 / 2) / 2)}
    assert fixed.score(refs, hyps, folds) == {
        "accuracy": pytest.approx(4 / 6),
        "fold_accuracy": pytest.approx((3 / 4 + 1 / 2) / 2),
        "uar": pytest.approx((3 / 4 + 1 / 2) / 2),
    }
    assert superb.metrics()[0].signature != fixed.metrics()[0].signature


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        (emotions(speakers=2), "three are needed"),
        ([*emotions(), utterance("u", emotion="x")], "needs the speaker.*without: u"),
        ([*emotions(), utterance("u", speaker="s0")], "without it: u"),
        ([*emotions(), utterance("u", speaker="s0", emotion="rare")], "rare"),
    ],
)
def test_er_bad_data_is_named(corpus: list, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError, match=message):
        ER().load(corpus)


# -- common -------------------------------------------------------------------------------------


def test_losses_and_decoding_by_hand() -> None:
    task = KS()
    task.load(keywords())
    batch = [utterance("u", keyword="b"), utterance("v", keyword="c")]
    logits = torch.tensor([[[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0], [0.0, 0.0, 9.0]]])
    losses = task.losses(logits, torch.ones(2), batch)
    expected = -torch.stack([torch.log_softmax(logits[k], 1)[[0, 1], [1, 2]] for k in (0, 1)])
    torch.testing.assert_close(losses, expected)
    assert task.decode(
        logits[1], torch.ones(2), task.loaded.folds[next(iter(task.loaded.folds))][2].utterances
    ) == ["a", "c"]


def test_a_task_needs_its_data_and_its_options() -> None:
    with pytest.raises(RuntimeError, match="no data yet"):
        KS().outputs  # noqa: B018
    with pytest.raises(ValueError, match="protocol must be one of"):
        KS("paper")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no use for a lexicon"):
        SID(lexicon=Path("x"))
    with pytest.raises(ValueError, match="splits must be"):
        ER(splits="random")  # type: ignore[arg-type]
