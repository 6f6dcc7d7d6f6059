"""Log-mel front-end and AudioNTT: against torchaudio, librosa and the unfolded encoder."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mynah.upstream.core import audiontt, logmel
from mynah.upstream.core.audiontt import AudioNTT, PackedAudioNTT
from mynah.upstream.core.logmel import LogMel


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(time_pools: tuple[int, ...], channels: tuple[int, ...] = (3, 5, 4)) -> AudioNTT:
    """Return an encoder whose batch norms have statistics of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = AudioNTT(
            num_mels=20, channels=channels, time_pools=time_pools, dim=12, dropout=0.3
        )
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.get_buffer("running_mean").normal_()
                module.get_buffer("running_var").uniform_(0.5, 2)
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return encoder.eval()


@pytest.mark.parametrize("samples", [513, 1000, 15200])
def test_htk_filters_equal_torchaudio(samples: int) -> None:
    torchaudio = pytest.importorskip("torchaudio")
    wav = 0.1 * noise(2, samples)
    theirs = torchaudio.transforms.MelSpectrogram(
        16000, n_fft=1024, win_length=1024, hop_length=160, n_mels=64, f_min=60.0, f_max=7800.0
    )(wav)
    theirs = (theirs + torch.finfo(torch.float32).eps).log()
    ours = LogMel(num_mels=64, window=1024, low=60, high=7800, scale="htk")(wav)
    assert ours.shape == theirs.shape == (2, 64, 1 + samples // 160)
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def test_slaney_filters_equal_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    wav = 0.1 * noise(1, 4000)
    filters = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=64, fmin=60, fmax=7800)
    spectrum = librosa.stft(wav[0].numpy(), n_fft=1024, hop_length=160, pad_mode="reflect")
    theirs = np.log(filters @ np.abs(spectrum) ** 2 + np.finfo(np.float32).eps)
    front = LogMel(num_mels=64, window=1024, low=60, high=7800, scale="slaney")
    assert torch.allclose(front.filters_FM.T, torch.from_numpy(filters), atol=1e-8)
    assert torch.allclose(front(wav)[0], torch.from_numpy(theirs), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 159, 160, 200, 512, 513])
def test_short_waveforms_are_padded(samples: int) -> None:
    front = LogMel(num_mels=8, window=1024, low=0, high=8000, scale="htk")
    out = front(0.1 * noise(1, samples))
    assert out.shape == (1, 8, 1 + samples // 160)
    assert bool(out.isfinite().all())


def test_long_and_many_waveforms_are_cut_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    front = LogMel(num_mels=8, window=400, low=0, high=8000, scale="htk")
    wav = 0.1 * noise(3, 5000)
    whole = front(wav)
    monkeypatch.setitem(logmel._CHUNK, "cpu", 400 * 3 * 7)
    assert torch.allclose(front(wav), whole, atol=1e-5)
    assert torch.allclose(front(wav[1:2])[0], whole[1], atol=1e-5)


@pytest.mark.parametrize("time_pools", [(2, 2, 2), (2, 1, 1), (1, 3, 1)])
@pytest.mark.parametrize("frames", [8, 9, 63, 64, 65, 200])
def test_packed_pieces_equal_the_encoder(
    time_pools: tuple[int, ...], frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make(time_pools)
    x_MT = noise(20, frames)
    with torch.no_grad():
        expected = [state[0] for state in encoder(x_MT[None])]
    packed = PackedAudioNTT(encoder, dtype=torch.float32)
    for piece in (16, 24, 512):
        monkeypatch.setitem(audiontt._PIECE, "cpu", piece)
        for ours, theirs in zip(packed(x_MT), expected, strict=True):
            assert ours.shape == theirs.shape
            assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


def test_widths_strides_and_embedding() -> None:
    encoder = make((2, 2, 2))
    assert encoder.widths == [3 * 10, 5 * 5, 4 * 2, 12]
    assert encoder.strides == [2, 4, 8, 8]
    x = noise(2, 20, 33)
    states = encoder(x)
    assert [tuple(s.shape) for s in states] == [(2, 16, 30), (2, 8, 25), (2, 4, 8), (2, 4, 12)]
    embedding = encoder.embed(x)
    expected = states[-1].max(dim=1).values + states[-1].mean(dim=1)
    assert torch.allclose(embedding, expected)


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"as many and at least one, got \[8, 8\] and \[2\]"):
        AudioNTT(num_mels=16, channels=(8, 8), time_pools=(2,), dim=4, dropout=0)
    with pytest.raises(ValueError, match=r"num_mels must be at least 8, got 7"):
        AudioNTT(num_mels=7, channels=(8, 8, 8), time_pools=(2, 2, 2), dim=4, dropout=0)
    with pytest.raises(ValueError, match=r"scale must be 'htk' or 'slaney', got 'bark'"):
        LogMel(num_mels=8, window=400, low=0, high=8000, scale="bark")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"even number of samples, got 401"):
        LogMel(num_mels=8, window=401, low=0, high=8000, scale="htk")
    with pytest.raises(ValueError, match=r"got 9000 and 8000"):
        LogMel(num_mels=8, window=400, low=9000, high=8000, scale="htk")
