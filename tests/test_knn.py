"""``knn``: what each part of its recipe is for, and the command with a run's hidden states."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from mynah.downstream.conversion.core.contract import Heard, Sizes
from mynah.downstream.conversion.knn import KNN, Config
from mynah.downstream.core.melspec import MelSpec
from mynah.recipes import cli
from mynah.recipes.conversion import engine
from mynah.recipes.conversion.checks import Recording
from mynah.recipes.conversion.opening import Choice, open_engine
from mynah.upstream.core.spec import load

PHONES, D, M = 8, 16, 12
SIZES = Sizes(dim=D, spec=MelSpec(num_mels=M), speakers=0)


def said(phones: Tensor, speaker: int, *, apart: float, noise: float = 0.3, take: int = 0) -> Heard:
    """Return frames of a speaker: what a phone is like, moved and stretched by who says it."""
    draw = torch.Generator().manual_seed(100 * speaker + take)
    alike_PD = torch.randn(PHONES, D, generator=torch.Generator().manual_seed(9))
    mels_PM = torch.randn(PHONES, M, generator=torch.Generator().manual_seed(8))
    own = torch.Generator().manual_seed(speaker)
    offset_D = apart * torch.randn(D, generator=own)
    stretch_D = (apart * 0.5 * torch.randn(D, generator=own)).exp()
    x_TD = alike_PD[phones] + noise * torch.randn(len(phones), D, generator=draw)
    mel_TM = mels_PM[phones] - 4 + speaker + noise * torch.randn(len(phones), M, generator=draw)
    return Heard(x_TD=x_TD * stretch_D + offset_D, mel_TM=mel_TM)


def spoken(frames: int, seed: int) -> Tensor:
    """Return phones that last five frames each."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, PHONES, (frames // 5,), generator=draw).repeat_interleave(5)


def share_kept(config: Config, *, apart: float) -> float:
    """Return how often a frame becomes one of the same phone."""
    phones, others = spoken(400, 1), spoken(1000, 2)
    source = said(phones, 1, apart=apart, noise=0.6)
    target = said(others, 2, apart=apart, noise=0.6)
    converter = KNN(config, SIZES)
    found = converter.neighbours(
        converter.encode_content(source), converter.encode_speaker([target])
    )
    return float((others[found[:, 0]] == phones).float().mean())


def test_speakers_are_normalised_so_that_their_offsets_do_not_hide_the_phones() -> None:
    plain, normalised = Config(normalise=False), Config(normalise=True)
    assert share_kept(plain, apart=0.0) > 0.95
    assert share_kept(plain, apart=1.5) < 0.6
    assert share_kept(normalised, apart=1.5) > 0.9


def test_a_mean_of_neighbours_jumps_less_than_the_nearest() -> None:
    phones = spoken(400, 1)
    source, target = said(phones, 1, apart=0.0), said(spoken(2000, 2), 2, apart=0.0)
    clean = said(phones, 2, apart=0.0, noise=0.0).mel_TM
    off = {}
    for k in (1, 4):
        out_TM = KNN(Config(neighbours=k), SIZES).convert(source, [target])
        off[k] = float((out_TM - clean).square().mean())
    assert off[4] < 0.5 * off[1]  # noise of one frame, and of the mean of four


def test_silence_is_no_part_of_the_pool() -> None:
    one = said(spoken(200, 2), 2, apart=0.0)
    quiet = one.mel_TM.clone()
    quiet[:80] = SIZES.spec.silence
    pool = KNN(Config(), SIZES).encode_speaker([Heard(x_TD=one.x_TD, mel_TM=quiet)])
    assert torch.equal(pool.mel_NM, quiet[80:])
    assert len(pool.keys_ND) == 120


def test_a_pool_is_cut_to_frames_of_all_of_it() -> None:
    heard = [said(spoken(500, n), 2, apart=0.0, take=n) for n in range(4)]
    whole = KNN(Config(), SIZES).encode_speaker(heard)
    pool = KNN(Config(pool_seconds=3.0), SIZES).encode_speaker(heard)
    assert len(whole.mel_NM) == 2000
    assert len(pool.mel_NM) == len(pool.keys_ND) == 300  # frames of 10 ms
    places = [int((whole.mel_NM == row).all(1).nonzero()) for row in pool.mel_NM]
    assert np.diff(places).min() >= 6
    assert np.diff(places).max() <= 7
    assert torch.equal(pool.keys_ND, whole.keys_ND[places])
    with pytest.raises(ValueError, match="pool_seconds 1 or more, got 4, 0 and 0.5"):
        Config(pool_seconds=0.5)


# -- with an upstream -----------------------------------------------------------------------------


def buzz(seconds: float, *, pitch: float, seed: int = 0) -> Recording:
    """Return a buzz whose formants move, with pauses."""
    time = np.arange(int(seconds * 16000)) / 16000
    phase = 2 * np.pi * pitch * time
    wave = sum(
        np.sin(k * phase) / k * (1 + np.sin(2 * np.pi * time * (k % 5 + 1) / 3))
        for k in range(1, 20)
    )
    wave = wave * (np.sin(2 * np.pi * time * 0.7) > -0.8)
    noise = np.random.default_rng(seed).standard_normal(len(time)) * 0.01
    return Recording(wav_S=(0.05 * wave + 0.05 * noise).astype(np.float32), sample_rate=16000)


@pytest.fixture
def heard_at_once(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that the upstream is given at once, as they come."""
    seconds: list[float] = []
    kind = type(load("hubert/tiny"))
    own = kind.hidden_states

    def hidden_states(self: object, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        seconds.extend(len(wav_S) / 16000 for wav_S in wavs)
        return own(self, wavs)

    monkeypatch.setattr(kind, "hidden_states", hidden_states)
    return seconds


def test_long_recordings_are_heard_in_stretches(
    heard_at_once: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "STRETCH", 10.0)
    knn = open_engine(Choice(method="knn", upstream="hubert/tiny", layer=1, vocoder="griffin_lim"))
    source, target = buzz(12.0, pitch=120.0), buzz(25.0, pitch=210.0)
    result = knn.convert(source, [target])
    assert max(heard_at_once) <= 10.0
    assert len(heard_at_once) == 2 + 3
    assert result.mel_TM.shape[1] == 80
    assert len(result.wav_S) == 12 * 16000
    heard = knn.hear(target)
    whole = knn.hearing([torch.from_numpy(target.wav_S)])[0]
    assert heard.mel_TM.shape == whole.mel_TM.shape  # each frame once
    assert heard.x_TD.shape == whole.x_TD.shape
    same = torch.isclose(heard.mel_TM, whole.mel_TM, atol=1e-4).all(1)
    assert int((~same).sum()) <= 2 * 3  # where a stretch begins, its edge is mirrored


def test_the_command_reads_the_layer_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for speaker, pitch in (("a", 120.0), ("b", 210.0)):
        (tmp_path / "audio" / speaker).mkdir(parents=True)
        wave = buzz(6.0, pitch=pitch)
        soundfile.write(tmp_path / "audio" / speaker / "1.wav", wave.wav_S, 16000)
    corpus, run = tmp_path / "corpus", tmp_path / "run"
    command = ["prepare", "folder", str(tmp_path / "audio"), str(corpus)]
    assert cli.main([*command, "--from-path", "speaker=parent"]) == 0
    small = ["train.steps=1", "train.schedule.warmup=0"]
    command = ["pretrain", "apc/tiny", "--corpus", str(corpus), "--out", str(run)]
    assert cli.main([*command, *small]) == 0

    def convert(layer: int, name: str, *more: str) -> int:
        one, other = (str(tmp_path / "audio" / speaker / "1.wav") for speaker in "ab")
        return cli.main(
            ["convert", "--upstream", str(run), "--layer", str(layer), "--vocoder", "griffin_lim",
             "--source", one, "--target", other, "--out", str(tmp_path / name), *more]
        )  # fmt: skip

    assert convert(1, "1.wav", "--method", "knn") == 0
    assert convert(2, "2.wav") == 0  # which is the method where an upstream is given
    pages = [json.loads((tmp_path / f"{n}.wav.json").read_text()) for n in (1, 2)]
    assert [page["converter"]["method"] for page in pages] == ["knn", "knn"]
    assert [page["converter"]["layer"] for page in pages] == [1, 2]
    assert pages[0]["converter"]["fingerprint"] == pages[1]["converter"]["fingerprint"]
    assert pages[0]["sha256"] != pages[1]["sha256"]
    assert convert(2, "3.wav", "--setting", "neighbours=9", "--setting", "normalise=false") == 0
    page = json.loads((tmp_path / "3.wav.json").read_text())
    found = page["converter"]["settings"]
    assert (found["neighbours"], found["normalise"]) == (9, False)
    assert page["sha256"] != pages[1]["sha256"]
    capsys.readouterr()
    assert convert(2, "4.wav", "--setting", "neighbors=9") == 2
    assert "Closest: neighbours" in capsys.readouterr().err
    assert convert(2, "4.wav", "--setting", "neighbours") == 2
    assert "NAME=VALUE" in capsys.readouterr().err
    assert convert(99, "99.wav") == 2
    assert "layer must be between" in capsys.readouterr().err
