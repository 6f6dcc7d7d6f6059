"""Vocoders without weights, and pitch: against librosa, WORLD itself, and by hand."""

import math
import sys
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import pyworld
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from buzzes import buzz, speechlike

from mynah.downstream import vocoders
from mynah.downstream.core.melspec import LogMelSpectrogram, MelSpec
from mynah.downstream.vocoders import griffin_lim, world
from mynah.downstream.vocoders.core import prosody
from mynah.downstream.vocoders.core.contract import Prosody
from mynah.downstream.vocoders.core.inversion import Inversion
from mynah.downstream.vocoders.core.prosody import F0Stats, analyse_prosody, move_f0
from mynah.downstream.vocoders.griffin_lim import GriffinLim
from mynah.downstream.vocoders.world import World, noise, smoothed
from mynah.recipes import cli

SPEC = MelSpec()
HIFI = MelSpec(sample_rate=22050, n_fft=1024, window=1024, hop=256, high=8000.0, centred=False)


def mel_of(wav: torch.Tensor, spec: MelSpec = SPEC) -> torch.Tensor:
    return LogMelSpectrogram(spec)(wav[None])[0]


def convergence(wav: np.ndarray, wanted: np.ndarray) -> float:
    """Spectral convergence to wanted magnitudes (F, T) of centred frames."""
    found = np.abs(librosa.stft(wav, n_fft=1024, hop_length=160, win_length=640))
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def test_names() -> None:
    assert vocoders.available() == ["griffin_lim", "hifigan", "vocos", "world"]
    assert vocoders.get("griffin_lim").VOCODER is GriffinLim
    with pytest.raises(LookupError, match="Closest: griffin_lim"):
        vocoders.get("grifinlim")


def test_inversion_gives_the_mel_spectrogram_back() -> None:
    mel = mel_of(speechlike(0.5))
    module = Inversion(SPEC)
    magnitude = module(mel)
    assert float(magnitude.min()) >= 0
    again = (magnitude @ module.mel.filters_FM).clamp(min=1e-5)
    error = (again - mel.exp()).norm() / mel.exp().norm()
    assert float(error) < 0.03
    squared = MelSpec(power=2.0)  # magnitudes again, not their squares
    mel = mel_of(speechlike(0.5), squared)
    again = (Inversion(squared)(mel).square() @ module.mel.filters_FM).clamp(min=1e-5)
    assert float((again - mel.exp()).norm() / mel.exp().norm()) < 0.05
    with pytest.raises(ValueError, match=r"expected \(T, 80\) with T >= 1, got shape \(3, 81\)"):
        module(torch.zeros(3, 81))


def test_griffin_lim_is_librosas() -> None:
    wav = speechlike(0.8)
    wanted = LogMelSpectrogram(SPEC).magnitudes(wav[None])[0].T
    options: dict[str, Any] = {
        "hop_length": 160,
        "win_length": 640,
        "n_fft": 1024,
        "momentum": 0.99,
    }
    ours = GriffinLim(SPEC).from_magnitudes(wanted).numpy()
    theirs = librosa.griffinlim(
        wanted.numpy(), n_iter=32, random_state=0, length=len(ours), **options
    )
    assert convergence(ours, wanted.numpy()) <= 1.2 * convergence(theirs, wanted.numpy())
    # from the same first phases the two are the same algorithm
    vocoder = GriffinLim(SPEC, iterations=4)
    ours = vocoder.from_magnitudes(wanted, torch.zeros_like(wanted)).numpy()
    theirs = librosa.griffinlim(
        wanted.numpy(), n_iter=4, init=None, length=len(ours), pad_mode="reflect", **options
    )
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


def test_griffin_lim_on_spectrograms() -> None:
    wav = speechlike(0.5)
    mel = mel_of(wav)
    vocoder = GriffinLim(SPEC)
    out = vocoder(mel)
    assert out.shape == (len(mel) * 160,)
    assert torch.equal(out, vocoder(mel))
    loud = mel > math.log(1e-3)
    distance = (mel_of(out)[: len(mel)] - mel)[loud].abs().mean()
    assert float(distance) < 0.15
    more = GriffinLim(SPEC, iterations=1)(mel)
    assert (mel_of(more)[: len(mel)] - mel)[loud].abs().mean() > distance
    assert not vocoder.needs_prosody
    assert vocoder.identity == "griffin_lim|iterations:32|momentum:0.99|v1"
    assert vocoder(mel[:1]).shape == (160,)  # a single frame


def test_griffin_lim_keeps_a_tones_pitch_and_loudness() -> None:
    time = torch.arange(8000) / 16000
    out = GriffinLim(SPEC)(mel_of(0.3 * torch.sin(2 * math.pi * 440 * time)))[1600:6400]
    spectrum = torch.fft.rfft(out * torch.hann_window(len(out))).abs()
    assert abs(float(spectrum.argmax()) * 16000 / len(out) - 440) < 8
    assert float(out.square().mean().sqrt()) == pytest.approx(0.3 / math.sqrt(2), rel=0.25)


@pytest.mark.parametrize("spec", [SPEC, HIFI])
@pytest.mark.parametrize("name", ["griffin_lim", "world"])
def test_sound_stays_where_it_was(spec: MelSpec, name: str) -> None:
    """A burst comes out at its time, to a quarter of a hop, centred frames or not."""
    generator = torch.Generator().manual_seed(0)
    wav = torch.zeros(spec.sample_rate // 2)
    first, last = int(0.2 * spec.sample_rate), int(0.32 * spec.sample_rate)
    wav[first:last] = 0.1 * torch.randn(last - first, generator=generator)
    mel = mel_of(wav, spec)
    out = vocoders.get(name).VOCODER(spec)(mel, Prosody(f0_T=torch.zeros(len(mel))))
    assert out.shape == (len(mel) * spec.hop,)
    power = out.square()
    power = power / power.sum()
    middle = float((power * torch.arange(len(out))).sum())
    # WORLD's noise is drawn anew, so that its burst is as long as the pulses it is made of
    room = 0.25 if name == "griffin_lim" else 0.75
    assert abs(middle - (first + last) / 2) < room * spec.hop


def test_griffin_lim_refuses() -> None:
    with pytest.raises(ValueError, match="iterations must be 1 or more"):
        GriffinLim(SPEC, iterations=0)
    with pytest.raises(ValueError, match=r"momentum in \[0, 1\)"):
        GriffinLim(SPEC, momentum=1.0)
    with pytest.raises(ValueError, match="a window of 640 samples every 400 overlaps too little"):
        GriffinLim(MelSpec(hop=400))


def test_smoothing_by_hand() -> None:
    power = np.array([[1.0, 2.0, 4.0, 8.0, 16.0]])
    # of width 1 nothing changes; of width 2 half of each neighbour, mirrored at the ends
    assert smoothed(power, np.array([0.5])) == pytest.approx(power)
    assert smoothed(power, np.array([2.0]))[0] == pytest.approx(
        [(1 + 2 * 0.5 * 2) / 2, (2 + 0.5 * (1 + 4)) / 2, (4 + 0.5 * (2 + 8)) / 2,
         (8 + 0.5 * (4 + 16)) / 2, (16 + 2 * 0.5 * 8) / 2]
    )  # fmt: skip


@pytest.mark.parametrize("pitch", [110.0, 220.0])
def test_worlds_envelope_is_near_cheaptricks(pitch: float) -> None:
    """A buzz of 1 / k falls by 6 dB per octave, whatever its pitch."""
    wav = buzz(pitch)
    mel = mel_of(wav)
    f0 = np.full(len(mel), pitch)
    times = np.arange(len(mel)) * 0.01
    theirs = pyworld.cheaptrick(wav.double().numpy(), f0, times, 16000, fft_size=1024)
    ours = World(SPEC).envelope(mel, f0)
    inside = (slice(20, 40), slice(16, 400))
    x, y = (10 * np.log10(z[inside].mean(0)) for z in (theirs, ours))
    assert np.abs(x - y).max() < 7.0
    assert abs(np.mean(x - y)) < 3.5
    # between harmonics there are no valleys left, which the magnitudes have
    raw = 20 * np.log10(Inversion(SPEC)(mel).numpy()[inside].mean(0) + 1e-9)
    assert np.abs(np.diff(y[:48], n=2)).max() < 1.5
    assert np.ptp(raw[:48] - x[:48]) > 3 * np.ptp(y[:48] - x[:48])


@pytest.mark.parametrize("pitch", [120.0, 250.0])
def test_world_says_the_pitch_it_is_given(pitch: float) -> None:
    wav = buzz(150.0)
    mel = mel_of(wav)
    vocoder = World(SPEC)
    out = vocoder(mel, Prosody(f0_T=torch.full((len(mel),), pitch)))
    assert out.shape == (len(mel) * 160,)
    again = analyse_prosody(out, SPEC).f0_T
    assert float(again[again > 0].median()) == pytest.approx(pitch, rel=0.01)
    same = vocoder(mel, Prosody(f0_T=torch.full((len(mel),), 150.0)))
    assert float(same.square().mean()) == pytest.approx(float(wav.square().mean()), rel=0.3)
    silent = vocoder(torch.full_like(mel, SPEC.silence), Prosody(f0_T=torch.zeros(len(mel))))
    assert float(silent.abs().max()) < 1e-4
    low = vocoder(mel, Prosody(f0_T=torch.full((len(mel),), 1e-3)))  # WORLD itself would crash
    assert torch.isfinite(low).all()


def test_world_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder, mel = World(SPEC), torch.zeros(4, 80)
    with pytest.raises(ValueError, match="needs the excitation"):
        vocoder(mel)
    with pytest.raises(ValueError, match="has 4 frames and F0 5"):
        vocoder(mel, Prosody(f0_T=torch.zeros(5)))
    with pytest.raises(ValueError, match=r"aperiodicity must have shape \(4, 513\)"):
        vocoder(mel, Prosody(f0_T=torch.zeros(4), aperiodicity_TF=torch.zeros(4, 257)))
    guess = noise(Prosody(f0_T=torch.tensor([0.0, 100.0])), SPEC)
    assert guess[0].tolist() == [1.0] * 513
    assert guess[1, [0, 256, 512]] == pytest.approx([0.05, 0.05 + 0.55 * 0.5**1.5, 0.6])
    monkeypatch.setattr(world, "has_world", lambda: False)
    with pytest.raises(ValueError, match=r"pip install 'mynah\[audio\]', or choose 'griffin_lim'"):
        World(SPEC)


# -- pitch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 16000])
def test_pitch_at_the_spectrograms_frames(rate: int) -> None:
    """Also at 8 kHz, where D4C with its own threshold takes everything for unvoiced."""
    spec = MelSpec(sample_rate=rate, n_fft=512, window=320, hop=rate // 100, high=rate / 2)
    wav = torch.cat([torch.zeros(rate // 4), buzz(180.0, 0.5, rate), torch.zeros(rate // 4)])
    found = analyse_prosody(wav, spec)
    assert found.f0_T.shape == (spec.num_frames(len(wav)),)
    assert found.f0_T[35:65].tolist() == pytest.approx([180.0] * 30, rel=0.01)
    assert not found.f0_T[:15].any()
    assert found.aperiodicity_TF is not None
    assert found.aperiodicity_TF.shape == (len(found.f0_T), 257)
    assert float(found.aperiodicity_TF[40:60, 20:60].mean()) < 0.3
    assert found.aperiodicity_TF[:15].eq(1).all()


def test_frames_that_are_not_centred_are_half_a_hop_later() -> None:
    time = torch.arange(22050) / 22050
    phase = 2 * math.pi * (150 * time + 60 * time**2)  # F0 = 150 + 120 t
    wav = 0.1 * sum(torch.sin(k * phase) / k for k in range(1, 20))
    found = analyse_prosody(wav, HIFI).f0_T
    assert len(found) == 22050 // 256
    expected = 150 + 120 * (torch.arange(len(found)) + 0.5) * 256 / 22050
    assert (found - expected)[20:60].abs().max() < 0.3


def test_pitch_without_world(monkeypatch: pytest.MonkeyPatch) -> None:
    wav = torch.cat([buzz(180.0, 0.3), torch.zeros(3200)])
    monkeypatch.setattr(prosody, "has_world", lambda: False)
    found = analyse_prosody(wav, SPEC)
    assert found.aperiodicity_TF is None
    assert found.f0_T.shape == (SPEC.num_frames(len(wav)),)
    assert found.f0_T[8:22].tolist() == pytest.approx([180.0] * 14, rel=0.02)
    assert not found.f0_T[-12:].any()


@pytest.mark.parametrize("size", [1, 100, 1600])
def test_pitch_of_next_to_nothing(size: int) -> None:
    found = analyse_prosody(torch.zeros(size), SPEC)
    assert found.f0_T.tolist() == [0.0] * SPEC.num_frames(size)
    with pytest.raises(ValueError, match="0 < low < high, got 500 and 60 Hz"):
        analyse_prosody(torch.zeros(size), SPEC, f0_range=(500.0, 60.0))


def test_moving_pitch_by_hand() -> None:
    source = F0Stats.of(
        [torch.tensor([100.0, 0.0, 200.0]), torch.tensor([100.0, 200.0, 0.0, 200.0, 100.0])]
    )
    assert source is not None
    assert source.frames == 6
    assert source.hertz == pytest.approx(math.sqrt(100 * 200))
    assert source.deviation == pytest.approx(math.log(2) / 2)
    target = F0Stats(mean=math.log(300.0), deviation=math.log(2) / 4, frames=9)
    f0 = torch.tensor([100.0, 0.0, 200.0])
    # half an octave apart around 300 Hz: a quarter of an octave down and up
    assert move_f0(f0, source, target).tolist() == pytest.approx([300 / 2**0.25, 0, 300 * 2**0.25])
    up = move_f0(f0, source, target, semitones=12)
    assert up.tolist() == pytest.approx([600 / 2**0.25, 0, 600 * 2**0.25])
    for unknown in ((None, target), (source, None)):
        assert move_f0(f0, *unknown, semitones=-12).tolist() == pytest.approx([50, 0, 100])
    wild = F0Stats(mean=math.log(100.0), deviation=10.0, frames=9)  # its ratio is cut at 2
    assert move_f0(torch.tensor([200.0]), source, wild).tolist() == pytest.approx(
        [100 * (200 / source.hertz) ** 2]
    )
    flat = F0Stats(mean=math.log(100.0), deviation=0.0, frames=9)
    assert move_f0(torch.tensor([100.0]), flat, target).tolist() == pytest.approx([300.0])
    assert F0Stats.of([torch.zeros(100), torch.full((4,), 100.0)]) is None
    assert F0Stats.of([]) is None


def test_a_median_takes_octave_jumps_away() -> None:
    f0 = torch.tensor([0.0, 100.0, 101.0, 202.0, 103.0, 104.0, 0.0, 0.0, 90.0])
    out = move_f0(f0, None, None, median=3)
    # of two voiced frames at an edge the lower is taken; unvoiced ones stay and do not count
    assert out.tolist() == pytest.approx([0, 100, 101, 103, 104, 103, 0, 0, 90])
    with pytest.raises(ValueError, match="odd number of frames, got 4"):
        move_f0(f0, None, None, median=4)


def test_griffin_lim_file_is_the_vocoder() -> None:
    assert griffin_lim.VOCODER.trained is False


def test_copies_are_compared_within_the_recordings_band(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "audio").mkdir()
    wave_S = 0.1 * speechlike(1.0, 8000).clamp(-5, 5)
    soundfile.write(tmp_path / "audio" / "a.wav", wave_S.numpy(), 8000)
    corpus, out = tmp_path / "corpus", tmp_path / "v.json"
    assert cli.main(["prepare", "folder", str(tmp_path / "audio"), str(corpus)]) == 0
    command = ["judge", "vocoders", "--corpus", str(corpus), "--vocoder", "griffin_lim"]
    assert cli.main([*command, "--out", str(out)]) == 0
    assert "at 8000 Hz" in capsys.readouterr().out
    assert cli.main([*command, "--out", str(out), "--rate", "16000"]) == 0
    assert "at 16000 Hz" in capsys.readouterr().out
