"""Augmentations: against the published code where there is one, else against their definition."""

import importlib
import math
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mynah.upstream.core import views

FREQ, TIME, CANVAS = (0.6, 1.5), (0.6, 1.5), 1.5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


@pytest.fixture(scope="module")
def published() -> ModuleType:
    """BYOL-A's augmentations, as s3prl ships them."""
    s3prl = pytest.importorskip("mynah.upstream.interop.s3prl")
    s3prl.ensure_importable()
    pytest.importorskip("s3prl")
    return importlib.import_module("s3prl.upstream.byol_s.byol_a.augmentations")


def test_crops_are_stretches_and_short_sounds_stay_in_the_middle() -> None:
    long, short = torch.arange(1.0, 101), torch.arange(1.0, 6)
    firsts = set()
    for seed in range(60):
        row, padded = views.crops([long, short], 98, generator=generator(seed))
        firsts.add(int(row[0]))
        assert torch.equal(row, torch.arange(row[0], row[0] + 98))
        assert torch.equal(padded, F.pad(short, (46, 47)))
    assert firsts == {1, 2, 3}


def test_running_norm_is_exact_over_batches() -> None:
    norm = views.RunningNorm(mean=-5.0, std=2.0, limit=12)
    assert torch.equal(norm(torch.tensor([-5.0, -3.0])), torch.tensor([0.0, 1.0]))
    x = 3 * noise(12, 4, 5) - 7
    for part in x.split([3, 8, 1]):
        norm.update(part)
    assert float(norm.mean) == pytest.approx(float(x.double().mean()), rel=1e-6)
    assert float(norm.variance) == pytest.approx(float(x.double().var(unbiased=False)), rel=1e-6)
    assert int(norm.count) == 12
    norm.update(x + 100)  # beyond the limit
    assert float(norm.mean) == pytest.approx(float(x.double().mean()), rel=1e-6)
    again = views.RunningNorm(mean=0.0, std=1.0, limit=12)
    again.load_state_dict(norm.state_dict())
    assert torch.equal(again(x), norm(x))


def test_own_norm_is_over_the_frames_of_each_sound_and_bin() -> None:
    x = 3 * noise(2, 4, 6) - 7
    x[1, 2] = -15.9
    out = views.OwnNorm()(x)
    mean, std = x.mean(dim=2, keepdim=True), x.std(dim=2, keepdim=True)
    expected = torch.where(std > 1e-3, (x - mean) / std, 0.0)
    assert torch.allclose(out, expected, atol=1e-5)
    assert not out[1, 2].any()
    assert torch.equal(views.OwnNorm()(x[:, :, :1]), torch.zeros(2, 4, 1))
    assert not views.OwnNorm().state_dict()


def test_mix_is_the_logarithm_of_mixed_energies(published: ModuleType) -> None:
    x, z = noise(3, 4, 5), noise(3, 4, 5, seed=1)
    share = torch.tensor([0.0, 0.25, 0.4])
    out = views.mix(x, z, share)
    for row, s in enumerate(share.tolist()):
        expected = published.log_mixup_exp(x[row], z[row], 1 - s)
        assert torch.allclose(out[row], expected, atol=1e-6)
    assert torch.allclose(out[0], x[0], atol=1e-5)


def test_mixup_draws_from_earlier_sounds_only() -> None:
    mixup = views.Mixup(ratio=0.4, rows=6, mels=2, frames=3)
    x = noise(4, 2, 3)
    assert torch.equal(mixup(x, generator=generator()), x)
    mixup.remember(torch.full((4, 2, 3), 2.0))
    low, high = x, views.mix(x, torch.full_like(x, 2.0), torch.full((4,), 0.4))
    for seed in range(20):
        mixed = mixup(x, generator=generator(seed))
        assert torch.equal(mixed, mixup(x, generator=generator(seed)))
        between = (mixed - low) * (high - mixed)
        assert bool((between >= -1e-4).all())
    shares = torch.stack([mixup(x, generator=generator(s)) - x for s in range(40)]).flatten(1)
    assert shares.std(dim=0).min() > 0
    mixup.remember(noise(5, 2, 3, seed=3))
    assert int(mixup.memory.filled) == 6


def reference_crop(x_MT: Tensor, top: int, first: int, height: int, length: int) -> Tensor:
    """Cut from a canvas of zeros and let torch stretch it."""
    mels, frames = x_MT.shape
    width = int(CANVAS * frames)
    canvas = torch.zeros(mels, width)
    left = (width - frames) // 2
    canvas[:, left : left + frames] = x_MT
    cut = canvas[top : top + height, first : first + length]
    out = F.interpolate(
        cut[None, None].double(), size=(mels, frames), mode="bicubic", align_corners=True
    )
    return out[0, 0].float()


def test_resize_crop_is_torchs_bicubic_of_the_drawn_rectangle() -> None:
    x = noise(16, 9, 14)
    out = views.resize_crop(x, freq=FREQ, time=TIME, canvas=CANVAS, generator=generator(5))
    u = torch.rand(4, 16, generator=generator(5), dtype=torch.float64)
    seen = set()
    for row in range(16):
        height = min(max(int((0.6 + 0.9 * float(u[0, row])) * 9), 1), 9)
        length = min(max(int((0.6 + 0.9 * float(u[1, row])) * 14), 1), 21)
        top = int(float(u[2, row]) * (9 - height + 1))
        first = int(float(u[3, row]) * (21 - length + 1))
        seen.add((height, length, top, first))
        expected = reference_crop(x[row], top, first, height, length)
        assert torch.allclose(out[row], expected, atol=2e-6)
    assert len(seen) > 12


def test_resize_crop_has_the_published_distribution(published: ModuleType) -> None:
    """Rectangles of the published code and ours: means of height, length and corners agree."""
    module = published.RandomResizeCrop()
    mels, frames, n = 20, 30, 4000
    theirs = torch.tensor(
        [module.get_params((mels, 45), (mels, frames), TIME, FREQ) for _ in range(n)],
        dtype=torch.float64,
    )
    u = torch.rand(4, n, generator=generator(), dtype=torch.float64)
    height = ((0.6 + 0.9 * u[0]) * mels).long().clamp(1, mels)
    length = ((0.6 + 0.9 * u[1]) * frames).long().clamp(1, 45)
    ours = [(u[2] * (mels - height + 1)).long(), (u[3] * (45 - length + 1)).long(), height, length]
    for mine, column in zip(ours, theirs.T, strict=True):
        scale = float(column.std()) / math.sqrt(n)
        assert abs(float(mine.double().mean() - column.mean())) < 6 * scale
        assert float(mine.double().std()) == pytest.approx(float(column.std()), rel=0.1)


def test_whole_rectangle_without_canvas_is_the_identity() -> None:
    x = noise(3, 8, 11)
    out = views.resize_crop(x, freq=(1.0, 1.0), time=(1.0, 1.0), canvas=1.0, generator=generator())
    assert torch.allclose(out, x, atol=1e-6)
    one = views.resize_crop(noise(2, 1, 1), freq=FREQ, time=TIME, canvas=1, generator=generator())
    assert torch.allclose(one, noise(2, 1, 1), atol=1e-6)


def test_gain_changes_the_level_within_its_range() -> None:
    wav = noise(64, 50)
    out = views.gain(wav, decibels=(-6.0, 3.0), generator=generator())
    change = 20 * (out.norm(dim=1) / wav.norm(dim=1)).log10()
    assert -6 <= float(change.min()) < -5
    assert 2 < float(change.max()) <= 3


def test_noise_has_the_drawn_ratio_and_colour() -> None:
    wav = noise(32, 4000)
    out = views.noise(wav, snr=(5.0, 15.0), generator=generator(1))
    added = out - wav
    ratio = 20 * (wav.norm(dim=1) / added.norm(dim=1)).log10()
    drawn = 5 + 10 * torch.rand(32, 1, generator=generator(1))[:, 0]
    assert torch.allclose(ratio, drawn, atol=1e-2)
    power = torch.fft.rfft(added).abs().square()
    tilt = power[:, 1:200].mean(dim=1) / power[:, -200:].mean(dim=1)
    assert float(tilt.min()) < 5
    assert float(tilt.max()) > 50
    assert torch.equal(
        views.noise(torch.zeros(2, 100), snr=(5, 15), generator=generator()), torch.zeros(2, 100)
    )


def test_mask_time_silences_one_stretch() -> None:
    out = views.mask_time(torch.ones(200, 40), share=0.25, generator=generator())
    hidden = out == 0
    edges = (hidden[:, 1:] != hidden[:, :-1]).sum(dim=1)
    assert int(edges.max()) <= 2
    lengths = hidden.sum(dim=1)
    assert set(lengths.tolist()) == set(range(11))
    assert bool(hidden[:, 0].any())
    assert bool(hidden[:, -1].any())


def test_bad_settings_are_refused() -> None:
    x = noise(2, 3, 4)
    with pytest.raises(ValueError, match=r"freq must be \(low, high\).*got 1.5, 0.5"):
        views.resize_crop(x, freq=(1.5, 0.5), time=TIME, canvas=1.5, generator=generator())
    with pytest.raises(ValueError, match=r"canvas must be at least 1, got 0.5"):
        views.resize_crop(x, freq=FREQ, time=TIME, canvas=0.5, generator=generator())
    with pytest.raises(ValueError, match=r"ratio must be between 0 and 1, got 2"):
        views.Mixup(ratio=2, rows=3, mels=2, frames=2)
    with pytest.raises(ValueError, match=r"std must be above 0, got 0"):
        views.RunningNorm(mean=0, std=0, limit=1)
    with pytest.raises(ValueError, match=r"share must be between 0 and 1, got 1.5"):
        views.mask_time(noise(2, 8), share=1.5, generator=generator())
