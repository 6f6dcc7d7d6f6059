"""Splits share nothing, are the same everywhere, and bad ones are named."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from utterances import keywords, utterance

from mynah.tasks.core import splits
from mynah.tasks.core.contract import DataError
from mynah.tasks.core.sampling import Pool, balanced_draw, batches, epoch_batches


def speaker(u):  # type: ignore[no-untyped-def]
    return u.speaker


@pytest.mark.parametrize(
    ("name", "part"),
    [("train", "train"), ("train-clean-100", "train"), ("dev-clean", "dev"), ("valid", "dev"),
     ("validation", "dev"), ("test", "test"), ("Eval", "test"), ("other", None), (None, None)],
)  # fmt: skip
def test_part_names(name: str | None, part: str | None) -> None:
    assert splits.part_of(name) == part


def test_made_parts_are_disjoint_complete_and_do_not_depend_on_order() -> None:
    everyone = keywords(20)
    made = splits.make(everyone, speaker, unit_name="speaker", seed=0)
    splits.check_disjoint(made, speaker, unit_name="speaker")
    assert sorted(u.id for part in made.values() for u in part) == sorted(u.id for u in everyone)
    assert 0.1 < len(made["dev"]) / len(everyone) < 0.25
    assert 0.1 < len(made["test"]) / len(everyone) < 0.3
    again = splits.make(everyone[::-1], speaker, unit_name="speaker", seed=0)
    assert {k: {u.id for u in v} for k, v in made.items()} == {
        k: {u.id for u in v} for k, v in again.items()
    }
    assert len({u.speaker for u in made["test"]}) >= 5  # enough for an interval by speaker
    other = splits.make(everyone, speaker, unit_name="speaker", seed=1)
    assert {u.id for u in other["test"]} != {u.id for u in made["test"]}


def test_made_parts_keep_every_class_in_train() -> None:
    """One class is said by two of ten speakers only: they must not both leave train."""
    everyone = [
        utterance(f"s{s}-{i}", speaker=f"s{s}", keyword="rare" if s < 2 and i == 0 else "ab"[i % 2])
        for s in range(10)
        for i in range(4)
    ]
    for seed in range(20):
        made = splits.make(everyone, speaker, unit_name="speaker", seed=seed,
                           classes=lambda u: str(u.label("keyword")))  # fmt: skip
        assert {u.label("keyword") for u in made["train"]} == {"rare", "a", "b"}


def test_dev_is_carved_where_the_corpus_has_none() -> None:
    everyone = [
        utterance(f"s{s}-{i}", speaker=f"s{s}", split="test" if s < 2 else "train")
        for s in range(8)
        for i in range(5)
    ]
    parts, note = splits.given_or_made(
        everyone, speaker, unit_name="speaker", seed=0, take_given=True
    )
    assert {u.speaker for u in parts["test"]} == {"s0", "s1"}
    splits.check_disjoint(parts, speaker, unit_name="speaker")
    assert len({u.speaker for u in parts["dev"]}) == 1
    assert "carved" in note


def test_what_is_wrong_is_named_and_counted() -> None:
    one = [utterance(f"u{i}", speaker="s", split="train") for i in range(3)]
    with pytest.raises(DataError, match="share speaker s;"):
        splits.check_disjoint(
            {"train": one[:1], "dev": one[1:2], "test": one[2:]}, speaker, unit_name="speaker"
        )
    with pytest.raises(DataError, match="the dev part is empty"):
        splits.check_disjoint({"train": one, "dev": []}, speaker, unit_name="speaker")
    with pytest.raises(DataError, match="share utterance u0"):
        splits.check_disjoint(
            {"train": one, "test": one[:1]}, lambda u: u.id, unit_name="utterance"
        )
    with pytest.raises(DataError, match="only 2"):
        splits.make(one[:2], lambda u: u.id, unit_name="utterance", seed=0)
    mixed = [utterance("a", split="train"), utterance("b", split="test"), utterance("c", split="x")]
    with pytest.raises(DataError, match=r"c \(split 'x'\)"):
        splits.given(mixed)
    many = [utterance(f"u{i}") for i in range(9)]
    with pytest.raises(DataError, match=r"u0, u1, u2, u3, u4 \(8 in all\)"):
        splits.labelled([*many[:8], utterance("z", keyword="w")],
                        lambda u: u.label("keyword"), task="ks", name="keyword")  # fmt: skip


def test_subsets_choose_the_utterances() -> None:
    corpus = keywords(4, subset="words") + [
        utterance(f"r{i}", speaker="s0", subset="read") for i in range(5)
    ]
    kept = splits.labelled(corpus, lambda u: u.label("keyword"), task="ks", name="keyword")
    assert len(kept) == 24


POOL = Pool(classes=["a"] * 30 + ["b"] * 10, seconds=[float(i % 7) for i in range(40)],
            target_lengths=list(range(40)), halved=[i == 39 for i in range(40)])  # fmt: skip


@pytest.mark.parametrize("sampler", ["shuffle", "bucket"])
def test_epochs_hold_everyone_once_and_differ(sampler: str) -> None:
    first, second = (epoch_batches(POOL, sampler, 8, seed=0, epoch=e) for e in (0, 1))  # type: ignore[arg-type]
    assert sorted(i for batch in first for i in batch) == list(range(40))
    assert first != second
    assert first == epoch_batches(POOL, sampler, 8, seed=0, epoch=0)  # type: ignore[arg-type]
    assert first != epoch_batches(POOL, sampler, 8, seed=1, epoch=0)  # type: ignore[arg-type]


def test_buckets_are_of_like_length() -> None:
    spread = [
        max(POOL.seconds[i] for i in b) - min(POOL.seconds[i] for i in b)
        for b in epoch_batches(POOL, "bucket", 8, seed=0, epoch=0)
    ]
    assert max(spread) <= 2


def test_balanced_batches_are_balanced_and_whole() -> None:
    drawn = [
        i for e in range(40) for b in epoch_batches(POOL, "balanced", 7, seed=0, epoch=e) for i in b
    ]
    share = sum(POOL.classes[i] == "b" for i in drawn) / len(drawn)
    assert share == pytest.approx(0.5, abs=0.04)
    assert {len(b) for b in epoch_batches(POOL, "balanced", 7, seed=0, epoch=0)} == {7}
    import numpy as np

    assert len(balanced_draw(POOL.classes, np.random.default_rng(0))) == 40


def test_windows_follow_superb() -> None:
    """One window per utterance over descending target length; the longest one's loses its half."""
    made = epoch_batches(POOL, "length-window", 8, seed=0, epoch=0)
    assert len(made) == 40
    starts = {batch[0]: batch for batch in made}
    assert starts[39] == [39, 38, 37, 36]
    assert starts[20] == [20, 19, 18, 17, 16, 15, 14, 13]
    assert starts[2] == [2, 1, 0]


def test_batches_go_on_for_ever() -> None:
    stream = batches(POOL, "shuffle", 16, seed=0)
    assert sum(len(next(stream)) for _ in range(9)) == 120
    with pytest.raises(ValueError, match="nothing to train on"):
        next(
            batches(
                Pool(classes=[], seconds=[], target_lengths=[], halved=[]), "shuffle", 4, seed=0
            )
        )
