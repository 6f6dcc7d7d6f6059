"""The transform against librosa, there and back; its end; frames that match."""

import numpy as np
import pytest
import torch
from torch import nn

from mynah.downstream.core.frames import ItemError
from mynah.tasks.core.stft import OnTransform, Stft, match_frames, without_burst

SIZES = [(512, 160, 16000), (512, 320, 15990), (512, 256, 5000), (1024, 320, 3217), (512, 100, 40)]


def noise(samples: int) -> np.ndarray:
    return np.random.RandomState(samples).standard_normal(samples).astype(np.float32)


@pytest.mark.parametrize(("n_fft", "hop", "samples"), SIZES)
def test_it_is_librosas(n_fft: int, hop: int, samples: int) -> None:
    import librosa

    wav, stft = noise(samples), Stft(n_fft=n_fft, hop=hop)
    ours = stft(torch.from_numpy(wav)[None])[0]
    theirs = librosa.stft(np.pad(wav, (0, max(0, n_fft - samples))), n_fft=n_fft, hop_length=hop).T
    assert ours.shape == (stft.frames(samples), stft.bins)
    np.testing.assert_allclose(ours.numpy(), theirs[: len(ours)], atol=2e-4)


@pytest.mark.parametrize(("n_fft", "hop", "samples"), SIZES)
def test_back_is_librosas_without_the_mending(n_fft: int, hop: int, samples: int) -> None:
    import librosa

    stft = Stft(n_fft=n_fft, hop=hop)
    torch.manual_seed(0)
    spectra = torch.randn(stft.frames(samples), stft.bins, dtype=torch.complex128)
    spectra[:, [0, -1]] = spectra[:, [0, -1]].real.to(spectra.dtype)
    ours = stft.inverse(spectra[None], samples, steady=False)[0].numpy()
    theirs = librosa.istft(
        spectra.T.numpy(), n_fft=n_fft, hop_length=hop, length=samples, dtype=np.float64
    )
    # librosa leaves the very last sample of a window, of which next to nothing is left, as it is
    sure = np.abs(theirs) < 50
    assert sure.mean() > 0.98
    np.testing.assert_allclose(ours[sure], theirs[sure], atol=1e-6)


@pytest.mark.parametrize(("n_fft", "hop", "samples"), SIZES)
def test_there_and_back_is_the_signal(n_fft: int, hop: int, samples: int) -> None:
    wav, stft = torch.from_numpy(noise(samples)).double(), Stft(n_fft=n_fft, hop=hop)
    back = stft.inverse(stft(wav[None]), samples)[0]
    assert back.shape == wav.shape
    covered = min(samples, (stft.frames(samples) - 1) * hop)  # the last frame's centre
    torch.testing.assert_close(back[:covered], wav[:covered], atol=1e-9, rtol=0)
    assert bool((back[covered:].abs() <= wav[covered:].abs() + 1e-9).all())  # it fades out


def test_the_end_does_not_burst() -> None:
    stft = Stft(n_fft=512, hop=320)
    samples = 320 * 20 + 250  # 250 of the last window's 256 samples on its falling side
    torch.manual_seed(0)
    masked = stft(torch.randn(1, samples)) * torch.rand(1, 21, 257)
    steady = stft.inverse(masked, samples)[0].abs()
    raw = stft.inverse(masked, samples, steady=False)[0].abs()
    middle = float(steady[:6000].max())
    assert float(raw[-10:].max()) > 10 * middle
    assert float(steady[-50:].max()) < middle


def test_padding_does_not_change_frames() -> None:
    stft = Stft(n_fft=512, hop=160)
    wav = torch.randn(1, 3000)
    padded = stft(torch.nn.functional.pad(wav, (0, 2000)))
    torch.testing.assert_close(padded[:, : stft.frames(3000)], stft(wav))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="a window of 512 samples cannot hop by 512"):
        Stft(n_fft=512, hop=512)
    with pytest.raises(ValueError, match="even number of samples, got 511"):
        Stft(n_fft=511)
    with pytest.raises(ValueError, match="1000 samples have 7 frames of 257 bins, got 6 of 257"):
        Stft().inverse(torch.zeros(1, 6, 257, dtype=torch.complex64), 1000)


def test_frames_are_cut_or_filled_up() -> None:
    x = torch.arange(1.0, 13.0).view(2, 6, 1)
    out = match_frames(x, torch.tensor([6, 3]), torch.tensor([4, 7]))
    assert out[..., 0].tolist() == [[1, 2, 3, 4, 5, 6, 0], [7, 8, 9, 0, 0, 0, 0]]
    assert match_frames(x, torch.tensor([6, 3]), torch.tensor([4, 3])).shape == (2, 4, 1)
    with pytest.raises(ItemError, match="item 1 has 3 frames of features but 8 of the transform"):
        match_frames(x, torch.tensor([6, 3]), torch.tensor([6, 8]))


def test_a_head_sees_the_frames_of_the_transform() -> None:
    seen = []

    class Head(nn.Module):
        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            seen.append((x.shape, lengths.tolist()))
            return x

    OnTransform(Head())(torch.ones(2, 6, 3), torch.tensor([6, 4]), torch.tensor([8, 5]))
    assert seen == [((2, 8, 3), [8, 5])]


def test_without_burst_by_hand() -> None:
    wav = np.full(3000, 0.5, np.float32)
    wav[2900:] = 0.0  # the last sound is at 2899, so 2388 ... 2899 are looked at
    assert without_burst(wav) is wav
    loud = wav.copy()
    loud[[2500, 2700]] = 0.9
    quiet = without_burst(loud)
    assert np.array_equal(quiet[:2500], wav[:2500])
    assert not quiet[2500:].any()
    assert loud[2500] == np.float32(0.9)  # it was not changed in place
    before = wav.copy()
    before[[100, 2500]] = 0.9, 0.8  # something before is louder
    assert without_burst(before) is before
    early = np.pad(loud[:2901], (0, 2100))  # ends in more than 2048 zeros
    assert without_burst(early) is early
    short = loud[2400:2900]
    assert without_burst(short) is short
    silence = np.zeros(3000, np.float32)
    assert without_burst(silence) is silence
