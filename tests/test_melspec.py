"""Log-mel spectrograms: against librosa, torchaudio and the formula of HiFi-GAN's authors; by hand."""

import math
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import torchaudio
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from buzzes import speechlike

from mynah.downstream.core.melspec import LogMelSpectrogram, MelSpec, mel_filters, require_same


def test_the_usual_one_is_librosas() -> None:
    wav = speechlike(0.7)
    found = LogMelSpectrogram(MelSpec())(wav[None])[0].numpy()
    theirs = librosa.feature.melspectrogram(
        y=wav.numpy(), sr=16000, n_fft=1024, win_length=640, hop_length=160, n_mels=80, power=1.0,
        fmin=0, fmax=8000, pad_mode="reflect",
    )  # fmt: skip
    # in what is nearly silent HiFi-GAN's addend of 1e-9 is seen
    np.testing.assert_allclose(np.exp(found), np.maximum(theirs.T, 1e-5), rtol=1e-3, atol=3e-6)
    assert len(found) == MelSpec().num_frames(len(wav)) == 1 + len(wav) // 160


def test_vocos_is_torchaudios() -> None:
    spec = MelSpec(
        sample_rate=24000, n_fft=1024, window=1024, hop=256, num_mels=100, high=12000.0, scale="htk",
        area=False, floor=1e-7,
    )  # fmt: skip
    wav = torch.cat([torch.zeros(3000), speechlike(0.5, 24000), torch.zeros(3000)])
    theirs = torchaudio.transforms.MelSpectrogram(
        24000, n_fft=1024, hop_length=256, n_mels=100, power=1
    )
    expected = theirs(wav).T.clamp(min=1e-7).log()
    found = LogMelSpectrogram(spec)(wav[None])[0]
    assert torch.allclose(found, expected, atol=2e-3)
    assert float(found.min()) == pytest.approx(math.log(1e-7))  # silence reaches the floor


@pytest.mark.parametrize("size", [8192, 5000, 256])
def test_hifigan_is_its_authors_formula(size: int) -> None:
    spec = MelSpec(sample_rate=22050, n_fft=1024, window=1024, hop=256, high=8000.0, centred=False)
    wav = speechlike(1.0, 22050)[:size]
    padded = F.pad(wav[None, None], (384, 384), mode="reflect" if size > 384 else "constant")[0]
    if size > 384:
        complex_ = torch.stft(
            padded, 1024, 256, 1024, torch.hann_window(1024), center=False, return_complex=True
        )
        magnitude = (complex_.real**2 + complex_.imag**2 + 1e-9).sqrt()
        basis = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=8000)
        expected = torch.from_numpy(basis).matmul(magnitude[0]).clamp(min=1e-5).log().T
        found = LogMelSpectrogram(spec)(wav[None])[0]
        assert found.shape == expected.shape == (size // 256, 80)
        assert torch.allclose(found, expected, atol=1e-4)
    else:
        assert LogMelSpectrogram(spec)(wav[None]).shape == (1, 1, 80)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("area", [False, True])
def test_filters_are_librosas(scale: str, area: bool) -> None:
    spec = MelSpec(num_mels=40, low=60.0, high=7600.0, scale=scale, area=area)  # type: ignore[arg-type]
    theirs = librosa.filters.mel(
        sr=16000, n_fft=1024, n_mels=40, fmin=60, fmax=7600, htk=scale == "htk",
        norm="slaney" if area else None,
    )  # fmt: skip
    np.testing.assert_allclose(mel_filters(spec).numpy(), theirs.T, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 159, 160, 511, 512, 513, 1600])
@pytest.mark.parametrize("centred", [True, False])
def test_every_length_has_its_frames(size: int, centred: bool) -> None:
    spec = MelSpec(centred=centred)
    mel = LogMelSpectrogram(spec)(torch.ones(2, size) * 0.1)
    assert mel.shape == (2, spec.num_frames(size), 80)
    assert torch.isfinite(mel).all()


@pytest.mark.parametrize("centred", [True, False])
def test_a_click_is_loudest_in_the_frame_that_it_is_the_middle_of(centred: bool) -> None:
    spec = MelSpec(n_fft=512, window=320, centred=centred)
    wav = torch.zeros(4000)
    wav[round(spec.centre(9) * spec.sample_rate)] = 1.0
    loudness = LogMelSpectrogram(spec)(wav[None])[0].mean(1)
    assert int(loudness.argmax()) == 9
    assert loudness[8] == pytest.approx(float(loudness[10]), abs=1e-3)


def test_edges_are_reflected_with_their_gradient() -> None:
    spec = MelSpec(n_fft=64, window=64, hop=16, num_mels=8)
    wav = speechlike(0.02).double().requires_grad_()
    module = LogMelSpectrogram(spec).double()
    found = module.magnitudes(wav[None])
    padded = F.pad(wav[None, None], (32, 32), mode="reflect")[0]
    windows = padded.unfold(1, 64, 16) * torch.hann_window(64).double()
    expected = (torch.fft.rfft(windows).abs().square() + 1e-9).sqrt()
    assert torch.allclose(found, expected)
    for a, b in zip(
        torch.autograd.grad(found.sum(), wav), torch.autograd.grad(expected.sum(), wav), strict=True
    ):
        assert torch.allclose(a, b)


@pytest.mark.parametrize("floor", [1e-5, 1e-10])
def test_silence_has_a_value_and_a_gradient(floor: float) -> None:
    spec = MelSpec(log="log10", floor=floor)
    wav = torch.zeros(1, 1600, requires_grad=True)
    mel = LogMelSpectrogram(spec)(wav)
    assert mel.detach().unique().tolist() == pytest.approx([spec.silence])
    assert spec.silence == pytest.approx(math.log10(floor))
    mel.sum().backward()
    assert wav.grad is not None
    assert torch.isfinite(wav.grad).all()


def test_a_tone_is_in_its_filter_and_logs_are_undone() -> None:
    time = torch.arange(16000) / 16000
    for spec in (MelSpec(), MelSpec(log="log10", power=2.0)):
        module = LogMelSpectrogram(spec)
        mel = module(0.5 * torch.sin(2 * math.pi * 1000 * time)[None])[0, 50]
        # 80 filters: 1 kHz is 15 mels (Slaney), 8 kHz 45.2456: the centres lie 0.5586 mels apart
        assert int(mel.argmax()) == round(15 / (45.2456 / 81)) - 1
        energies = module.energies(mel)
        assert torch.allclose(
            energies.log() if spec.log == "ln" else energies.log10(), mel, atol=1e-5
        )
    # of amplitude 0.5 the window's sum times 0.25 stands in the bin: 64 bins up, between two filters
    assert float(LogMelSpectrogram(MelSpec()).magnitudes(
        0.5 * torch.sin(2 * math.pi * 1000 * time)[None])[0, 50, 64]
    ) == pytest.approx(0.25 * 320, rel=1e-3)  # fmt: skip


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="0 < hop <= window <= n_fft"):
        MelSpec(hop=700)
    with pytest.raises(ValueError, match="0 <= low < high <= 8000 Hz, got 0 and 9000"):
        MelSpec(high=9000.0)
    with pytest.raises(ValueError, match="power 1 or 2"):
        MelSpec(power=3.0)
    require_same(MelSpec(), MelSpec(), names=("a", "b"))
    with pytest.raises(ValueError, match=r"hop: 160 and 200; centred: True and False.*made for"):
        require_same(MelSpec(), MelSpec(hop=200, centred=False), names=("the vocoder x", "y"))
