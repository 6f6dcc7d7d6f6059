"""Batches too small and utterances too short for an objective never reach it."""

import math
from bisect import bisect_left
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah import upstream
from mynah.recipes import cli
from mynah.recipes.training.material import Material, usable
from mynah.recipes.training.values import TrainConfig
from mynah.tasks.corpora.batching import duration_batches
from mynah.tasks.corpora.corpus import write_corpus
from mynah.tasks.corpora.utterance import Utterance
from mynah.upstream.core.contract import Batch, Loss, Upstream

TINY = [
    (family, variant)
    for family in upstream.available()
    if family not in ("fbank", "distilhubert")  # nothing to learn, or only from a teacher
    for variant in upstream.get(family).CONFIGS
    if variant.startswith("tiny")
]


@settings(max_examples=150, deadline=None)
@given(
    durations=st.lists(st.floats(0.1, 4.0), min_size=3, max_size=60),
    least=st.integers(1, 3),
    spare=st.floats(0.0, 20.0),
    epoch=st.integers(0, 5),
)
def test_no_batch_is_smaller_than_the_least(
    durations: list[float], least: int, spare: float, epoch: int
) -> None:
    budget = least * max(durations) + spare
    batches = duration_batches(durations, budget, seed=0, epoch=epoch, least=least)
    assert sorted(i for batch in batches for i in batch) == list(range(len(durations)))
    assert min(map(len, batches)) >= least
    over = [b for b in batches if max(durations[i] for i in b) * len(b) > budget * (1 + 1e-12)]
    assert len(over) <= (least > 1)
    assert all(len(batch) < 2 * least for batch in over)


def test_refusals() -> None:
    for durations, budget in (([1.0], 10.0), ([3.0, 1.0], 4.0)):
        with pytest.raises(ValueError, match="cannot be made"):
            duration_batches(durations, budget, seed=0, epoch=0, least=2)
    with pytest.raises(ValueError, match="for one process"):
        duration_batches([1.0] * 8, 4, seed=0, epoch=0, least=2, world_size=2)


def loss_of(model: Upstream, items: int, frames: int) -> Loss:
    """Return the loss of ``items`` utterances of the fewest samples that make so many frames."""
    samples = bisect_left(range(200_000), frames, lo=1, key=model.num_frames)
    generator = torch.Generator().manual_seed(items)
    counted = range(items)
    labels = None
    if model.needs_labels:
        labels = tuple(torch.arange(model.num_frames(samples)) % 4 for _ in counted)
    return model.loss(
        Batch(
            wav_BS=0.1 * torch.randn(items, samples, generator=generator),
            lengths_B=torch.full((items,), samples),
            ids=tuple(map(str, counted)),
            generator=generator,
            labels=labels,
        )
    )


@pytest.mark.parametrize(("family", "variant"), TINY)
def test_the_least_batch_can_be_learnt_from(family: str, variant: str) -> None:
    model = upstream.build(f"{family}/{variant}").train()
    for more in (0, 1):
        found = loss_of(model, model.least_items + more, model.least_frames + more)
        assert math.isfinite(found.total.detach())
        assert found.weight > 0


@pytest.mark.parametrize("family", ["apc", "cpc", "context_prediction", "wav2vec", "vq_wav2vec"])
def test_shorter_ones_are_of_no_use(family: str) -> None:
    model = upstream.build(f"{family}/tiny").train()
    with pytest.raises(ValueError, match="leave out the shortest"):
        loss_of(model, 2, model.least_frames - 1)


@pytest.mark.parametrize("family", ["moco", "speech_simclr"])
def test_fewer_cannot_be_told_apart(family: str) -> None:
    model = upstream.build(f"{family}/tiny").train()
    with pytest.raises(ValueError, match="the batch holds one"):
        loss_of(model, 1, 50)


def heard(*seconds: float) -> Material:
    utterances = [
        Utterance(id=f"u{i}", path="x.wav", start=0.0, duration=d, sample_rate=16000)
        for i, d in enumerate(seconds)
    ]
    return Material(utterances=utterances, key={}, details={})


def test_what_is_too_little_is_said_before_the_first_step() -> None:
    moco, apc = upstream.build("moco/tiny"), upstream.build("apc/tiny")
    train = TrainConfig(crop_seconds=3.0, batch_seconds=5.0)
    with pytest.raises(ValueError, match="there are 1: add audio"):
        usable(moco, heard(1.0), train)
    with pytest.raises(ValueError, match="does not hold so many of 3 s: raise it to 6 or more"):
        usable(moco, heard(1.0, 4.0), train)
    assert usable(moco, heard(1.0, 2.5), train)[1] == 0
    with pytest.raises(ValueError, match=r"4 frames or more, and train\.crop_seconds=0.05"):
        usable(apc, heard(1.0), TrainConfig(crop_seconds=0.05))
    with pytest.raises(ValueError, match="utterances of 4 frames or more at a time"):
        usable(apc, heard(0.05, 0.06), train)
    kept, left_out = usable(apc, heard(0.05, 1.0, 0.06, 2.0), train)
    assert [u.id for u in kept.utterances] == ["u1", "u3"]
    assert left_out == 2


def corpus(folder: Path, *seconds: float) -> Path:
    """Write utterances of noise."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    utterances = []
    for i, duration in enumerate(seconds):
        path = folder / f"{i}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(int(duration * 16000)), 16000)
        one = heard(duration).utterances[0]
        utterances.append(replace(one, id=f"u{i}", path=str(path)))
    return write_corpus(folder, utterances, name=folder.name).folder


def test_no_batch_of_one_ends_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three utterances, of which a batch holds two: one is left over in each epoch."""
    said = corpus(tmp_path / "three", 1.0, 1.0, 1.0)
    small = ["model.hidden=16", "model.queue=32", "train.min_seconds=0"]
    small += [f"model.{size}" for size in ("dim=24", "layers=1", "heads=3", "ffn=24")]
    small += ["model.pos_groups=4", "train.crop_seconds=1", "train.batch_seconds=2.5"]
    command = ["pretrain", "moco/tiny", *small, "--steps", "4", "--corpus"]
    assert cli.main([*command, str(said), "--out", str(tmp_path / "run")]) == 0
    one = corpus(tmp_path / "one", 1.0)
    capsys.readouterr()
    assert cli.main([*command, str(one), "--out", str(tmp_path / "none")]) == 2
    assert "add audio" in capsys.readouterr().err
    assert not (tmp_path / "none" / "run.json").exists()


def test_a_batch_of_the_shortest_does_not_end_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = corpus(tmp_path / "said", 0.05, 0.06, 1.0, 1.1)
    command = ["pretrain", "apc/tiny", "model.width=8", "train.batch_seconds=1.5"]
    command += ["train.crop_seconds=1", "train.min_seconds=0", "--steps", "20"]
    assert cli.main([*command, "--corpus", str(said), "--out", str(tmp_path / "run")]) == 0
    assert "2 utterances of fewer than 4 frames are left out" in capsys.readouterr().err
