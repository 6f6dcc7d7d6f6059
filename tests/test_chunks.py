"""Recordings cut into chunks and put together again, and conversations kept apart."""

import dataclasses

import numpy as np
import pytest
import torch

from mynah.tasks.core.activities import array, head_of, marked, targets
from mynah.tasks.core.apart import conversations_apart
from mynah.tasks.core.chunks import Chunks
from mynah.tasks.core.contract import DataError, Split
from mynah.tasks.core.turns import TIER, Grid, names
from mynah.tasks.corpora.utterance import Interval, Utterance

GRID = Grid(160, 16_000)  # 0.01 s


def recording(name: str, *turns: tuple[str, float, float], seconds: float = 5.0) -> Utterance:
    tier = tuple(Interval(symbol, start, end) for symbol, start, end in turns)
    return Utterance(
        id=name, path=f"{name}.wav", sample_rate=16_000, start=0.0, duration=seconds, channel=0,
        intervals={TIER: tier},
    )  # fmt: skip


def test_chunks_go_together_again_in_their_order() -> None:
    chunks = Chunks(GRID, 200, even=False, hole=False)
    whole = [recording("a", ("x", 0.5, 4.5)), recording("b", ("y", 0, 1), seconds=1.5)]
    split = chunks.of(Split(name="test", utterances=tuple(whole)))
    assert [u.id for u in split.utterances] == ["a@0-200", "a@200-400", "a@400-500", "b"]
    said = [np.full((n, 2), i, dtype=np.float32) for i, n in enumerate((200, 200, 100, 150))]
    recordings, joined = chunks.joined(split.utterances, said)
    assert recordings == whole
    assert [len(one) for one in joined] == [500, 150]
    assert joined[0][::100, 0].tolist() == [0, 0, 1, 1, 2]
    other = recording("c", ("x", 0, 1))
    assert chunks.joined([other], said[:1])[0] == [other]  # never cut


def test_targets_are_cut_to_the_frames_that_there_are() -> None:
    batch = [recording("a", ("x", 0, 0.1), seconds=0.3), recording("b", ("y", 0, 0.2), seconds=0.2)]
    target_BTS, valid_B = targets(batch, torch.tensor([25, 25]), (25, 2), GRID)
    assert valid_B.tolist() == [25, 20]
    assert target_BTS.sum(dim=1).tolist() == [[10, 0], [20, 0]]
    assert target_BTS[1, 20:].sum() == 0


def test_activities_know_their_head() -> None:
    said = [marked(np.zeros((3, 2), dtype=np.float32), "abc")]
    assert head_of(said) == "abc"
    assert head_of([np.zeros((3, 2), dtype=np.float32)]) == head_of([]) == ""
    assert array(said[0]) is said[0]
    with pytest.raises(TypeError, match="expected activities"):
        array("x 0 1")


def test_names_of_one_recording_only_do_not_tie_it_to_others() -> None:
    """A and B in every recording are nobody; X and Y, of more names than a recording has, are."""
    local = [recording(f"r{i}", ("A", 0, 1), ("B", 1, 2)) for i in range(10)]
    parts, speakers, notes = conversations_apart(local, names, most=6, seed=0, take_given=False)
    assert speakers == 2
    assert sum(map(len, parts.values())) == 10
    assert notes[1:] == ["2 speakers in a recording", "names are taken as local to their recording"]
    shared = [recording(f"r{i}", ("X", 0, 1), (f"Y{i}", 1, 2)) for i in range(10)]
    with pytest.raises(DataError, match="there are only 1"):
        conversations_apart(shared, names, most=6, seed=0, take_given=False)


def test_more_speakers_than_train_has_or_heads_can_tell_apart() -> None:
    many = [(str(i), float(i), i + 1.0) for i in range(3)]
    given = [
        dataclasses.replace(
            recording(f"r{i}", *((f"{i}-{s}", a, b) for s, a, b in turns)), split=split
        )
        for i, (split, turns) in enumerate([("train", many[:2]), ("dev", many[:2]), ("test", many)])
    ]
    with pytest.raises(DataError, match="no training recording has more than 2 speakers.*r2"):
        conversations_apart(given, names, most=6, seed=0, take_given=True)
    swapped = [dataclasses.replace(u, split=s) for u, s in zip(given, ("dev", "test", "train"), strict=True)]  # fmt: skip
    with pytest.raises(DataError, match="up to 3 speakers; 2 can be told apart"):
        conversations_apart(swapped, names, most=2, seed=0, take_given=True)
