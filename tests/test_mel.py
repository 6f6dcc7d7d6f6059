"""Front-ends against torchaudio, and the ragged layout against one utterance at a time."""

import warnings

import pytest
import torch
from torch import Tensor
from torchaudio.compliance import kaldi
from torchaudio.functional import compute_deltas
from torchaudio.transforms import MelSpectrogram

from mynah.upstream.core import mel

NASTY = (1, 399, 400, 559, 560, 561, 7919, 48000)


def speechlike(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(n) / 16000
    tone = 0.1 * torch.sin(2 * torch.pi * 170 * t) + 0.05 * torch.sin(2 * torch.pi * 1330 * t)
    return tone + 0.02 * torch.randn(n, generator=generator) + 0.01


def waves() -> list[Tensor]:
    return [speechlike(n, seed) for seed, n in enumerate(NASTY)]


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("window", ["povey", "hamming"])
@pytest.mark.parametrize("num_mels", [40, 80])
def test_kaldi_fbank_equals_torchaudio(window: str, num_mels: int) -> None:
    ours, counts = mel.KaldiFbank(num_mels=num_mels, window=window)(waves())
    assert counts == [1, 1, 1, 1, 2, 2, 47, 298]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchaudio builds empty filters at 80 bins
        theirs = [
            kaldi.fbank(
                torch.nn.functional.pad(wav, (0, max(0, 400 - len(wav))))[None],
                num_mel_bins=num_mels,
                window_type=window,
            )
            for wav in waves()
        ]
    assert relative(ours, torch.cat(theirs)) < 2e-6
    assert (ours - torch.cat(theirs)).abs().max() < 1e-3


def test_log_spectrogram_equals_torchaudio() -> None:
    front = mel.LogSpectrogram(level=None)
    long = waves()[2:]
    ours, linear, counts = front(long, linear=True)
    reference = MelSpectrogram(16000, n_fft=400, hop_length=160, n_mels=80)
    theirs = [(reference(wav).T + 1e-10).log() for wav in long]
    assert counts == [len(part) for part in theirs]
    assert relative(ours, torch.cat(theirs)) < 2e-6
    power = torch.cat([(reference.spectrogram(wav).T + 1e-10).log() for wav in long])
    assert linear is not None
    assert relative(linear, power) < 2e-6


def test_level_sets_the_loudness() -> None:
    front, wav = mel.LogSpectrogram(level=-25.0), speechlike(8000, 0)
    quiet, _, _ = front([wav * 0.01])
    loud, _, _ = front([wav])
    assert relative(quiet, loud) < 1e-6
    scaled = wav * 10 ** (-25 / 20) / wav.square().mean().sqrt()
    assert relative(loud, mel.LogSpectrogram(level=None)([scaled])[0]) < 1e-6


@pytest.mark.parametrize("front", [mel.KaldiFbank(), mel.LogSpectrogram()])
def test_an_utterance_does_not_depend_on_its_neighbours(
    front: mel.KaldiFbank | mel.LogSpectrogram,
) -> None:
    together, *_, counts = front(waves())
    for wav, part, count in zip(waves(), together.split(counts), counts, strict=True):
        alone, *_, (alone_count,) = front([wav])
        assert count == alone_count == front.num_frames(len(wav)) == len(part)
        assert relative(part, alone) < 1e-6


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, counts = mel.KaldiFbank()(waves())
    monkeypatch.setattr(mel, "_CHUNK", {"cpu": 7})
    pieces, again = mel.KaldiFbank()(waves())
    assert counts == again
    assert relative(pieces, whole) < 1e-6


def test_autocast_leaves_features_in_full_precision() -> None:
    exact, _ = mel.KaldiFbank()(waves())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, _ = mel.KaldiFbank()(waves())
    assert cast.dtype == torch.float32
    assert torch.equal(cast, exact)


def test_deltas_equal_torchaudio() -> None:
    counts = [1, 2, 3, 5, 40]
    x_ND = torch.randn(sum(counts), 8, generator=torch.Generator().manual_seed(0))
    ours = mel.with_deltas(x_ND, counts, order=2)
    assert ours.shape == (len(x_ND), 24)
    for part, got in zip(x_ND.split(counts), ours.split(counts), strict=True):
        first = compute_deltas(part.T[None])
        second = compute_deltas(first)
        expected = torch.cat([part, first[0].T, second[0].T], dim=1)
        assert (got - expected).abs().max() < 1e-6


def test_cmvn_is_the_unbiased_one_and_survives_degenerate_input() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = [1, 2, 50]
    x_ND = 3 + 2 * torch.randn(53, 4, generator=generator)
    x_ND[3:, 2] = -15.942385  # digital silence in one band
    out = mel.cmvn(x_ND, counts)
    assert torch.equal(out[0], torch.zeros(4))
    for part, got in list(zip(x_ND.split(counts), out.split(counts), strict=True))[1:]:
        expected = (part - part.mean(0)) / (part.std(0) + 1e-10)
        varying = part.std(0) > 1e-3
        assert (got - expected)[:, varying].abs().max() < 1e-5
        assert torch.equal(got[:, ~varying], torch.zeros_like(got[:, ~varying]))
    assert not out[3:, 2].any()


def test_stack_joins_pairs_and_fills_the_odd_tail() -> None:
    x_ND = torch.arange(5.0)[:, None].repeat(1, 2) + 1
    out, counts = mel.stack(x_ND, [3, 2], factor=2)
    assert counts == [2, 1]
    assert out.tolist() == [[1, 1, 2, 2], [3, 3, 0, 0], [4, 4, 5, 5]]
    same, counts = mel.stack(x_ND, [3, 2], factor=1)
    assert counts == [3, 2]
    assert same is x_ND


@pytest.mark.parametrize("wav", [torch.zeros(0), torch.zeros(1, 400)])
def test_bad_waveforms_are_refused(wav: Tensor) -> None:
    with pytest.raises(ValueError, match="1-D waveform of at least one sample"):
        mel.KaldiFbank()([wav])


def test_unknown_window_is_refused() -> None:
    with pytest.raises(ValueError, match="povey"):
        mel.KaldiFbank(window="hann")
