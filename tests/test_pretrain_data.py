"""Training batches: a function of the seed and of their number, and of nothing else."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
import runs

from mynah.recipes.training.data import AudioCache, AudioStream, Loaded
from mynah.recipes.training.values import TrainConfig
from mynah.tasks.corpora.utterance import Utterance


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    return runs.noise_corpus(tmp_path_factory.mktemp("data") / "noise", count=11).utterances()


def stream(utterances: list[Utterance], **values: object) -> AudioStream:
    values = {"batch_seconds": 2.0, "crop_seconds": 0.6, "equalise": 0.0, **values}
    return AudioStream(utterances, TrainConfig.model_validate(values), sample_rate=16000)


def take(source: AudioStream, first: int, count: int, stride: int = 1) -> list[Loaded]:
    with source.turns(first, count, stride=stride) as turns:
        return list(turns)


def same(a: Loaded, b: Loaded) -> bool:
    return (
        a.batch.ids == b.batch.ids
        and torch.equal(a.batch.wav_BS, b.batch.wav_BS)
        and torch.equal(a.batch.generator.get_state(), b.batch.generator.get_state())
        and (a.number, a.epoch, a.seed) == (b.number, b.epoch, b.seed)
    )


def test_each_epoch_holds_every_utterance_once_in_another_order(
    utterances: list[Utterance],
) -> None:
    loaded = take(stream(utterances), 0, 40)
    orders = []
    for epoch in range(3):
        ids = [i for item in loaded if item.epoch == epoch for i in item.batch.ids]
        assert sorted(ids) == sorted(u.id for u in utterances)
        orders.append(ids)
    assert orders[0] != orders[1] != orders[2]
    assert [item.number for item in loaded] == list(range(40))


def test_workers_cache_and_history_change_nothing(utterances: list[Utterance]) -> None:
    wanted = take(stream(utterances, workers=0, cache_mb=0), 0, 30)
    for values in ({"workers": 3}, {"workers": 1, "cache_mb": 0}, {"workers": 0}):
        got = take(stream(utterances, **values), 0, 30)
        assert all(map(same, wanted, got))
    late = stream(utterances)
    epoch, start = stream(utterances).locate(20)
    late.seek(epoch, start)
    assert all(map(same, wanted[20:], take(late, 20, 10)))
    assert late.locate(20) == (epoch, start)


def test_ranks_share_what_one_process_would_see(utterances: list[Utterance]) -> None:
    alone = take(stream(utterances), 0, 12)
    shares = [take(stream(utterances), rank, 4, stride=3) for rank in range(3)]
    woven = [item for turn in zip(*shares, strict=True) for item in turn]
    assert all(map(same, alone, woven))


def test_another_seed_gives_other_batches_and_draws(utterances: list[Utterance]) -> None:
    one, other = (take(stream(utterances, seed=s), 0, 5) for s in (0, 1))
    assert [i.batch.ids for i in one] != [i.batch.ids for i in other]
    assert not {i.seed for i in one} & {i.seed for i in other}
    draws = {float(torch.rand((), generator=i.batch.generator)) for i in one}
    assert len(draws) == len(one)


def test_long_utterances_are_cropped_at_random_places(utterances: list[Utterance]) -> None:
    source = stream(utterances, crop_seconds=0.2, batch_seconds=1.0)
    long = max(utterances, key=lambda u: u.duration)
    whole, _ = soundfile.read(long.path, dtype="float32")
    places = set()
    for item in take(source, 0, 30):
        assert set(item.batch.lengths_B.tolist()) == {3200}
        assert 0.2 * len(item.batch.ids) <= 1.0 + 1e-9
        if long.id in item.batch.ids:
            wav_S = item.batch.wav_BS[item.batch.ids.index(long.id)].numpy()
            windows = np.lib.stride_tricks.sliding_window_view(whole, 3200)
            places.update(np.flatnonzero((windows == wav_S).all(1)).tolist())
    assert len(places) >= 3


def test_padding_is_zero_and_lengths_are_true(utterances: list[Utterance]) -> None:
    by_id = {u.id: u for u in utterances}
    for item in take(stream(utterances, crop_seconds=1.0), 0, 10):
        for row, name in enumerate(item.batch.ids):
            whole, _ = soundfile.read(by_id[name].path, dtype="float32")
            size = int(item.batch.lengths_B[row])
            assert size == len(whole)
            assert np.array_equal(item.batch.wav_BS[row, :size].numpy(), whole)
            assert not item.batch.wav_BS[row, size:].any()


def test_a_batch_is_equalised_only_where_little_is_lost(utterances: list[Utterance]) -> None:
    def lost(equalise: float) -> list[float]:
        source = stream(utterances, crop_seconds=1.0, batch_seconds=4.0, equalise=equalise)
        full = stream(utterances, crop_seconds=1.0, batch_seconds=4.0)
        shares = []
        for cut, whole in zip(take(source, 0, 9), take(full, 0, 9), strict=True):
            shares.append(1 - float(cut.batch.lengths_B.sum() / whole.batch.lengths_B.sum()))
            equal = len(set(cut.batch.lengths_B.tolist())) == 1
            assert equal == (shares[-1] > 0 or len(set(whole.batch.lengths_B.tolist())) == 1)
        return shares

    assert max(lost(1.0)) > 0.25
    assert 0 < max(lost(0.25)) <= 0.25
    assert max(lost(0.0)) == 0


def test_the_cache_loses_nothing_and_keeps_to_its_budget(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = {"PCM_16": 0.3, "FLOAT": 0.3, "PCM_24": 0.3}
    items = []
    for name, scale in files.items():
        soundfile.write(
            tmp_path / f"{name}.wav", rng.normal(size=4000) * scale, 16000, subtype=name
        )
        items.append(
            Utterance(
                id=name,
                path=str(tmp_path / f"{name}.wav"),
                start=0.0,
                duration=0.25,
                sample_rate=16000,
            )
        )
    cache = AudioCache(4000 * 2 + 4000 * 4, 16000)
    first = [cache.read(i, item) for i, item in enumerate(items)]
    assert cache.left == 0  # 16 bits took two bytes a sample, float32 four, the third had no room
    again = [cache.read(i, item) for i, item in enumerate(items)]
    for one, other in zip(first, again, strict=True):
        assert one.dtype == other.dtype == np.float32
        assert np.array_equal(one, other)


def test_leaving_early_stops_the_workers(utterances: list[Utterance]) -> None:
    import threading

    source = stream(utterances, workers=2)
    with source.turns(0, 10**6) as turns:
        next(turns)
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]
