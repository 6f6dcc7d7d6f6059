"""KS, SID and ER: data contracts, both protocols, bad data."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from utterances import emotions, keywords, utterance

from mynah import tasks
from mynah.tasks.core.contract import DataError, ProtocolName
from mynah.tasks.er import TASK as ER
from mynah.tasks.ks import COMMANDS
from mynah.tasks.ks import TASK as KS
from mynah.tasks.sid import TASK as SID

BOTH: tuple[ProtocolName, ...] = ("superb", "fixed")


def people(parts, name: str = "speaker"):  # type: ignore[no-untyped-def]
    return [{u.label(name) for u in split.utterances} for split in parts]


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


# -- ks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", BOTH)
def test_ks_on_any_words(protocol: ProtocolName) -> None:
    task = KS(protocol)
    data = task.load(keywords(10))
    assert data.classes == ("a", "b", "c")
    train, dev, test = people(data.folds[""])
    assert not (train & dev or train & test or dev & test)
    assert task.outputs == 3
    assert task.head(5)(torch.zeros(2, 5)).shape == (2, 3)


def test_ks_takes_the_label_label_and_words_of_a_subset() -> None:
    corpus = [
        dataclasses.replace(u, labels={"label": u.labels["keyword"], "subset": "w"})
        for u in keywords()
    ]
    corpus += [utterance("read-1", speaker="s1", subset="read")]
    assert KS().load(corpus).classes == ("a", "b", "c")


def commands(silence_split: str = "train") -> list:  # type: ignore[type-arg]
    out = []
    for split, speakers in (("train", "pqr"), ("dev", "st"), ("test", "uv")):
        for s in speakers:
            out += [
                utterance(f"{s}-{w}", speaker=s, split=split, keyword=w)
                for w in (*COMMANDS, "bird", "cat")
            ]
        out.append(utterance(f"noise-{split}", speaker=f"n-{silence_split}" if split != "test" else None,
                             split=split, seconds=60.0 if split != "test" else 1.0, keyword="_silence_"))  # fmt: skip
    return out


def test_ks_on_speech_commands_has_twelve_classes() -> None:
    task = KS("superb")
    data = task.load(commands())
    assert data.classes == (*COMMANDS, "_unknown_", "_silence_")
    assert task.reference(utterance("x", keyword="bird")) == "_unknown_"


def test_ks_superb_shares_silence_and_fixed_refuses() -> None:
    KS("superb").load(commands())
    with pytest.raises(DataError, match="train and dev share speaker n-train"):
        KS("fixed").load(commands())


def seconds_of_noise(name: str, split: str, first: int, last: int) -> list:  # type: ignore[type-arg]
    return [
        dataclasses.replace(
            utterance(f"{name}-{split}-{s:03d}", split=split, keyword="_silence_"),
            path=f"/nowhere/{name}.wav", start=float(s),
        )
        for s in range(first, last)
    ]  # fmt: skip


def test_ks_seconds_of_one_recording_of_silence() -> None:
    words = [u for u in commands() if u.split == "test" or not u.id.startswith("noise")]
    noise = [*seconds_of_noise("hum", "train", 0, 9), *seconds_of_noise("hum", "dev", 9, 10)]
    train, dev, _ = KS("fixed").load([*words, *noise]).folds[""]
    assert sum(u.labels["keyword"] == "_silence_" for u in train.utterances) == 9
    assert sum(u.labels["keyword"] == "_silence_" for u in dev.utterances) == 1
    train, dev, test = KS("superb").load([*words, *noise]).folds[""]
    silent = [{u.id for u in part.utterances if u.labels["keyword"] == "_silence_"} for part in (train, dev, test)]  # fmt: skip
    assert silent == [{u.id for u in noise}, {u.id for u in noise}, {"noise-test"}]
    assert len(train.utterances) == 3 * 12 + 10
    leaky = [*noise, *seconds_of_noise("hum", "dev", 8, 9)]
    with pytest.raises(DataError, match="hum-train-008 of train and hum-dev-008 of dev"):
        KS("fixed").load([*words, *leaky])


def test_ks_silence_is_cropped_to_seconds_that_can_be_kept() -> None:
    task = KS("superb")
    data = task.load(commands())
    noise = next(u for u in data.folds[""][0].utterances if u.id.startswith("noise"))
    crops = task.views(noise)
    assert len({u.id for u in crops}) == len(crops) == 16
    assert all(u.duration == 1.0 and 0 <= u.start <= 59 for u in crops)
    assert len({u.start for u in crops}) > 10
    assert crops == task.views(noise)
    assert task.views(data.folds[""][2].utterances[0]) == (data.folds[""][2].utterances[0],)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([utterance("u", speaker="s")], "none of the 1 utterances has it"),
        ([*keywords(4), utterance("bare", speaker="s9")], "without it: bare"),
        (keywords(2), "there are only 2"),
        (keywords(6, words="a"), "only one class"),
    ],
)
def test_ks_bad_data_is_named(corpus: list, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError, match=message):
        KS().load(corpus)


def test_ks_a_class_that_train_lacks_and_shared_speakers() -> None:
    def parts(**change: str) -> list:  # type: ignore[type-arg]
        made = [
            utterance(f"{split}{s}-{w}", speaker=f"{split}{s}", split=split, keyword=w)
            for split in ("train", "dev", "test")
            for s in range(2)
            for w in "ab"
        ]
        return (
            [*made, utterance("odd", speaker="odd", split="test", keyword="zebra")]
            if change
            else made
        )

    assert KS().load(parts()).notes == ("splits are the corpus's own",)
    with pytest.raises(DataError, match=r"test has classes that train has not: zebra of odd"):
        KS().load(parts(odd="yes"))
    shared = [dataclasses.replace(u, speaker="everyone") for u in parts()]
    with pytest.raises(DataError, match=r"train and dev share speaker everyone.*--splits made"):
        KS().load(shared)
    mixed = [dataclasses.replace(u, speaker=f"p{i % 5}") for i, u in enumerate(parts())]
    people(KS(splits="made").load(mixed).folds[""])  # made anew, so it passes its own check


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
