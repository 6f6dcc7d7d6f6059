"""Pseudo-labels: aligned with frames and crops, kept on disk, iteration by iteration."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import mynah.upstream
from mynah.files import beside
from mynah.recipes import cli
from mynah.recipes.errors import BadDataError
from mynah.recipes.labelling.iterations import make_labels, publish, recipe_of
from mynah.recipes.labelling.make import labels_for
from mynah.recipes.labelling.sources import MfccSource, StateSource
from mynah.recipes.labelling.store import Labels, write
from mynah.recipes.pretrain import Args
from mynah.recipes.training import config, runfolder
from mynah.recipes.training.data import AudioStream
from mynah.recipes.training.distributed import World
from mynah.recipes.training.values import LabelsConfig, TrainConfig
from mynah.tasks.corpora.corpus import write_corpus
from mynah.tasks.corpora.utterance import Utterance
from mynah.upstream.core import modelfolder
from mynah.upstream.core.spec import load

RATE = 16000


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Twelve utterances of steps between tones, as loud as speech."""
    generator = np.random.default_rng(0)
    found = []
    for index in range(12):
        seconds = 1.0 + 0.13 * index
        pieces = [
            0.1
            * np.sin(2 * np.pi * generator.choice([220, 440, 880, 1760]) * np.arange(2400) / RATE)
            for _ in range(int(seconds * RATE / 2400))
        ]
        wav = np.concatenate(pieces) + 0.003 * generator.standard_normal(2400 * len(pieces))
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, wav.astype(np.float32), RATE)
        found.append(
            Utterance(
                id=f"u{index}",
                path=str(path),
                start=0.0,
                duration=len(wav) / RATE,
                sample_rate=RATE,
            )
        )
    return found


def make(folder: Path, utterances: list[Utterance], clusters: int = 4, **changes: object) -> Labels:
    return labels_for(
        folder,
        utterances,
        mynah.upstream.build("hubert/tiny"),
        MfccSource(),
        LabelsConfig.model_validate({"tries": 1, **changes}),
        clusters=clusters,
        seed=0,
        data={"corpus": "tones"},
    )


def test_every_frame_has_a_label_and_labels_follow_the_sound(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    model = mynah.upstream.build("hubert/tiny")
    labels = make(tmp_path / "labels", utterances)
    assert (labels.clusters, labels.stride) == (4, 320)
    for utterance in utterances:
        samples = round(utterance.duration * RATE)
        assert len(labels.of(utterance.id)) == model.num_frames(samples)
    used = set(np.concatenate([labels.of(u.id) for u in utterances]).tolist())
    assert used == {0, 1, 2, 3}
    assert labels.centroids().shape == (4, 39)
    with pytest.raises(BadDataError, match="'nobody' has no labels"):
        labels.of("nobody")


def test_labels_are_made_once(tmp_path: Path, utterances: list[Utterance]) -> None:
    folder = tmp_path / "labels"
    first = make(folder, utterances)
    written = (folder / "index.json").stat().st_mtime_ns
    again = make(folder, utterances)
    assert (folder / "index.json").stat().st_mtime_ns == written
    assert np.array_equal(first.of("u3"), again.of("u3"))
    with pytest.raises(ValueError, match="made from something else"):
        make(folder, utterances, clusters=5)


def test_damaged_labels_are_named(tmp_path: Path, utterances: list[Utterance]) -> None:
    folder = tmp_path / "labels"
    make(folder, utterances)
    whole = (folder / "labels.npy").read_bytes()
    (folder / "labels.npy").write_bytes(whole[:-40])
    with pytest.raises(BadDataError, match="damaged"):
        Labels(folder)
    (folder / "labels.npy").write_bytes(whole)
    (folder / "index.json").write_text("{")
    with pytest.raises(BadDataError, match="damaged"):
        Labels(folder)
    with pytest.raises(FileNotFoundError, match="holds no labels"):
        Labels(tmp_path)


def test_crops_carry_the_labels_of_their_frames(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    """A label that tells the frame's own number shows whether crop and label belong together."""
    model = mynah.upstream.build("hubert/tiny")
    numbers = [
        (u.id, np.arange(model.num_frames(round(u.duration * RATE)), dtype=np.int32))
        for u in utterances
    ]
    labels = write(
        tmp_path / "labels",
        numbers,
        centroids_KD=np.zeros((200, 1), np.float32),
        stride=model.stride,
        identity={},
        inertia=0.0,
    )
    train = TrainConfig(crop_seconds=0.7, batch_seconds=4.0, workers=0)
    stream = AudioStream(
        utterances,
        train,
        sample_rate=RATE,
        labels=labels.stretches(model.num_frames),
        grid=labels.stride,
    )
    starts = set()
    for number in range(12):
        batch = stream.load(number).batch
        assert batch.labels is not None
        for wav, part, name in zip(batch.wavs(), batch.labels, batch.ids, strict=True):
            assert len(part) == model.num_frames(len(wav))
            assert torch.equal(part, torch.arange(int(part[0]), int(part[0]) + len(part)))
            whole, _ = soundfile.read(tmp_path / f"{name[1:]}.wav", dtype="float32")
            start = int(part[0]) * model.stride
            assert np.array_equal(wav.numpy(), whole[start : start + len(wav)])
            starts.add(int(part[0]))
    assert len(starts) > 5


def test_a_state_of_another_frame_rate_is_read_where_it_starts_next() -> None:
    source = StateSource(load("apc/tiny"), -1)
    assert source.name == "apc/tiny, layer 2"
    model = mynah.upstream.build("hubert/tiny-wav")
    wav = torch.randn(9000, generator=torch.Generator().manual_seed(0)) * 0.1
    (x_TD,) = source.aligned([wav], model)
    assert x_TD.shape == (model.num_frames(9000), source.dim)
    with pytest.raises(ValueError, match=r"labels\.layer must be between -3 and 2"):
        StateSource(load("apc/tiny"), 3)


def test_each_iteration_has_its_clusters_and_steps() -> None:
    recipe = config.load(
        "hubert/tiny", overrides=["labels.clusters=[8,16]", "labels.first_steps=20"], steps=50
    )
    first, second, third = (recipe_of(recipe, n) for n in (1, 2, 3))
    assert [r.model.clusters for r in (first, second, third)] == [8, 16, 16]
    assert [r.train.steps for r in (first, second, third)] == [20, 50, 50]
    base = config.load("hubert/base")
    assert base.labels is not None
    assert base.labels.clusters == (100, 500)
    assert config.load("apc/tiny").labels is None
    with pytest.raises(config.ConfigError, match="labels: unknown key"):
        config.load("apc/tiny", overrides=["labels.layer=1"])


def test_two_iterations_from_audio_to_model(
    tmp_path: Path, utterances: list[Utterance], capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "tones", utterances, name="tones", source="made", skipped={})
    out = tmp_path / "run"
    command = ["pretrain", "hubert/tiny", "--corpus", str(tmp_path / "tones"), "--out", str(out)]
    small = ["model.dim=16", "model.heads=2", "model.ffn=16", "model.layers=2"]
    small += ["labels.clusters=[4,6]", "labels.layer=1", "train.min_seconds=0"]
    small += ["train.batch_seconds=8", "train.crop_seconds=1"]
    assert cli.main([*command, *small, "--steps", "3", "--iterations", "2"]) == 0
    said = capsys.readouterr().err
    assert "iteration 1 of 2" in said
    assert "4 clusters of mfcc: mean squared distance" in said
    assert "6 clusters of iteration-1, layer 1: mean squared distance" in said
    model = load(str(out))
    assert model.config.clusters == 6
    head = modelfolder.verify(out / "final")
    assert head["sha256"] == modelfolder.verify(out / "iteration-2" / "final")["sha256"]
    second = json.loads((out / "iteration-2" / "labels" / "index.json").read_text())
    first = load(str(out / "iteration-1"))
    assert second["identity"]["source"] == {"features": first.fingerprint(), "layer": 1}
    # again: everything is there already
    assert cli.main([*command, *small, "--steps", "3", "--iterations", "2"]) == 0
    assert "finished already" in capsys.readouterr().err
    # one more iteration on top of what is there
    assert cli.main([*command, *small, "--steps", "3", "--iterations", "3"]) == 0
    third = modelfolder.verify(out / "iteration-3" / "final")
    assert modelfolder.verify(out / "final")["sha256"] == third["sha256"]


def hubert(corpus: Path, out: Path) -> list[str]:
    """Return the arguments of one step of a very small hubert."""
    small = ["model.dim=16", "model.heads=2", "model.ffn=16", "model.layers=2"]
    small += ["labels.clusters=[4]", "train.min_seconds=0", "train.schedule.kind=constant"]
    return ["hubert/tiny", *small, "--corpus", str(corpus), "--out", str(out), "--steps", "1"]


def test_a_folder_in_use_gets_no_labels(
    tmp_path: Path, utterances: list[Utterance], capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "tones", utterances, name="tones", source="made", skipped={})
    out = tmp_path / "run"
    with runfolder.locked(out):
        assert cli.main(["pretrain", *hubert(tmp_path / "tones", out)]) == 2
    assert "in use by another run" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["lock"]


@dataclass(frozen=True, kw_only=True)
class Second(World):
    """The second of two processes; what the first finds, it would find as well."""

    def from_first(self, function):  # type: ignore[no-untyped-def]
        return World().from_first(function)


def test_no_process_goes_on_with_labels_that_are_refused(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    write_corpus(tmp_path / "tones", utterances, name="tones", source="made", skipped={})
    make(tmp_path / "labels", utterances)
    with pytest.raises(ValueError, match="made from something else"):
        make_labels(
            Args(model="hubert/tiny", corpus=(tmp_path / "tones",), out=tmp_path / "run"),
            config.load("hubert/tiny", overrides=["labels.clusters=[5]"]),
            Second(rank=1, size=2),
            tmp_path / "labels",
            MfccSource(),
        )


def test_one_speaker_alone_is_clustered(
    tmp_path: Path, utterances: list[Utterance], capsys: pytest.CaptureFixture[str]
) -> None:
    told = [replace(u, speaker=f"s{i % 3}") for i, u in enumerate(utterances)]
    write_corpus(tmp_path / "tones", told, name="tones", source="made", skipped={})
    command = hubert(tmp_path / "tones", tmp_path / "run")
    code = cli.main(["pretrain", *command, "--speaker", "s1"])
    assert code == 0, capsys.readouterr().err
    labels = Labels(tmp_path / "run" / "iteration-1" / "labels")
    assert [u.id for u in told if u.id in labels] == [u.id for u in told if u.speaker == "s1"]
    assert labels.identity["data"]["0"]["speakers"] == ["s1"]


def test_publishing_replaces_an_older_model(tmp_path: Path) -> None:
    for seed in (0, 1):
        modelfolder.save(mynah.upstream.build("hubert/tiny", seed=seed), tmp_path / f"m{seed}")
        publish(tmp_path / f"m{seed}", tmp_path / "final")
        new = modelfolder.verify(tmp_path / "final")["sha256"]
        assert new == modelfolder.verify(tmp_path / f"m{seed}")["sha256"]


def test_publishing_that_is_killed_keeps_the_older_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        modelfolder.save(mynah.upstream.build("hubert/tiny", seed=seed), tmp_path / f"m{seed}")
    publish(tmp_path / "m0", tmp_path / "run" / "final")

    def killed(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(tmp_path / "m1", tmp_path / "run" / "final")
    first = modelfolder.verify(tmp_path / "m0")["sha256"]
    assert modelfolder.verify(tmp_path / "run" / "final")["sha256"] == first
    beside(tmp_path / "run" / "final").mkdir()  # what SIGKILL leaves
    publish(tmp_path / "m1", tmp_path / "run" / "final")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["final"]


def test_teachers_and_iterations_go_where_they_belong(
    tmp_path: Path, utterances: list[Utterance], capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "tones", utterances, name="tones", source="made", skipped={})
    tail = ["--corpus", str(tmp_path / "tones"), "--out", str(tmp_path / "run"), "--steps", "2"]
    assert cli.main(["pretrain", "apc/tiny", *tail, "--iterations", "2"]) == 2
    assert "predicts no labels" in capsys.readouterr().err
    assert cli.main(["pretrain", "apc/tiny", *tail, "--teacher", "hubert/tiny"]) == 2
    assert "learns from audio alone" in capsys.readouterr().err
    assert cli.main(["pretrain", "distilhubert/tiny", *tail]) == 2
    assert "give --teacher SPEC" in capsys.readouterr().err
    small = ["train.schedule.kind=constant", "train.batch_seconds=8", "train.min_seconds=0"]
    code = cli.main(["pretrain", "distilhubert/tiny", *small, *tail, "--teacher", "apc/tiny"])
    assert code == 0, capsys.readouterr().err
    assert load(str(tmp_path / "run")).config.teacher_dim == load("apc/tiny").dim
