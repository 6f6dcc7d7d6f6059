"""Two views of one sound: what may change without changing what was said.

On log-mel spectrograms, BYOL-A's chain (Niizumi et al. 2021, arXiv 2103.06695, section III-B; the
authors' ``augmentations.py``): normalise by running statistics (:class:`RunningNorm`), mix an
earlier sound in quietly (:class:`Mixup`), cut a random rectangle out and stretch it to the full
size (:func:`resize_crop`). :class:`OwnNorm` is the usual normalisation of speech instead. On
waveforms: :func:`gain`, :func:`noise` and :func:`mask_time`.

Every random choice comes from the given CPU generator, one draw for each row of a batch.

Shape suffixes: B batch, S samples, M mel bins, T frames, R rows of the memory, F frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.mel import cmvn
from mynah.upstream.core.twin_losses import Queue

_CUBIC = -0.75  # torch's and OpenCV's parameter of the bicubic kernel

Range = tuple[float, float]


def crops(wavs: Sequence[Tensor], samples: int, *, generator: torch.Generator) -> Tensor:
    """Return a random stretch of each waveform: (B, S).

    A shorter waveform is kept whole in the middle of silence, as in BYOL-A.

    Args:
        wavs: 1-D waveforms.
        samples: length S of a stretch.
        generator: CPU generator.
    """
    rows = []
    for wav in wavs:
        spare = len(wav) - samples
        if spare < 0:
            rows.append(F.pad(wav, (-spare // 2, -spare - -spare // 2)))
            continue
        first = int(torch.randint(spare + 1, (), generator=generator))
        rows.append(wav[first : first + samples])
    return torch.stack(rows)


class RunningNorm(nn.Module):
    """Subtract the mean of all values seen in training and divide by their standard deviation.

    One mean and one deviation for the whole spectrogram. BYOL-A's ``RunningNorm`` averages over
    single sounds and stops after ten epochs; this one averages over everything up to ``limit``
    sounds, exactly. The statistics belong to the model: they are saved with it.

    Attributes:
        mean: float32 scalar.
        variance: float32 scalar.
        count: int64 scalar, sounds that went into them.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, *, mean: float, std: float, limit: int) -> None:
        """Start from given values, which the first update replaces.

        Args:
            mean: before any update.
            std: before any update, above 0.
            limit: number of sounds after which the statistics stay as they are.

        Raises:
            ValueError: std that is not positive.
        """
        super().__init__()
        if not std > 0:
            raise ValueError(f"std must be above 0, got {std}")
        self.limit = limit
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("variance", torch.tensor(float(std)).square())
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, x_BMT: Tensor) -> None:
        """Take B more sounds of one size into account.

        Source: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for
        computing sample variances".
        """
        if int(self.count) >= self.limit:
            return
        variance, mean = torch.var_mean(x_BMT.double(), unbiased=False)
        share = len(x_BMT) / (self.count + len(x_BMT)).double()
        apart = mean - self.mean.double()
        spread = (1 - share) * self.variance.double() + share * variance
        self.variance.copy_(spread + share * (1 - share) * apart.square())
        self.mean.copy_(self.mean.double() + share * apart)
        self.count.add_(len(x_BMT))

    def forward(self, x: Tensor) -> Tensor:
        """Return (x - mean) / std."""
        return (x - self.mean) / self.variance.sqrt().clamp_min(torch.finfo(torch.float32).eps)


class OwnNorm(nn.Module):
    """Give each mel bin of each sound mean 0 and standard deviation 1 over its own frames.

    A bin that does not vary (one frame, digital silence) becomes 0, see
    :func:`mynah.upstream.core.mel.cmvn`.
    """

    def forward(self, x_BMT: Tensor) -> Tensor:
        """Return the normalised spectrograms (B, M, T)."""
        batch, mels, frames = x_BMT.shape
        x_ND = cmvn(x_BMT.transpose(1, 2).reshape(-1, mels), [frames] * batch)
        return x_ND.view(batch, frames, mels).transpose(1, 2)


def mix(x_BMT: Tensor, z_BMT: Tensor, share_B: Tensor) -> Tensor:
    """Return log((1 - share) exp(x) + share exp(z)): log-mixup-exp, a mixture of energies.

    Source: Niizumi et al. 2021 (arXiv 2103.06695) equation 4, whose lambda is 1 - share.
    """
    share_B11 = share_B.to(x_BMT)[:, None, None]
    mixed_BMT = (1 - share_B11) * x_BMT.exp() + share_B11 * z_BMT.exp()
    return (mixed_BMT + torch.finfo(torch.float32).eps).log()


class Mixup(nn.Module):
    """Mix each sound with one of the last R sounds of earlier batches.

    The share of the other sound is uniform between 0 and ``ratio``. As long as the memory is empty
    nothing is mixed. BYOL-A's memory gets each sound twice, once per view; this one once.
    """

    def __init__(self, *, ratio: float, rows: int, mels: int, frames: int) -> None:
        """Reserve the memory.

        Args:
            ratio: largest share of the other sound, 0 to 1.
            rows: R.
            mels: M of all sounds.
            frames: T of all sounds.

        Raises:
            ValueError: a ratio out of range, or a size below 1.
        """
        super().__init__()
        if not 0 <= ratio <= 1:
            raise ValueError(f"ratio must be between 0 and 1, got {ratio}")
        self.ratio = ratio
        self.memory = Queue(rows, mels * frames)

    def forward(self, x_BMT: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the mixtures (B, M, T)."""
        share_B = self.ratio * torch.rand(len(x_BMT), generator=generator)
        u_B = torch.rand(len(x_BMT), generator=generator, dtype=torch.float64)
        filled = int(self.memory.filled)
        if filled == 0:
            return x_BMT
        chosen_B = (u_B * filled).long().to(x_BMT.device)
        z_BMT = self.memory.rows_QD[chosen_B].view_as(x_BMT)
        return mix(x_BMT, z_BMT, share_B)

    def remember(self, x_BMT: Tensor) -> None:
        """Put sounds into the memory in place of the oldest ones."""
        self.memory.push(x_BMT.flatten(1))


def resize_crop(
    x_BMT: Tensor,
    *,
    freq: Range,
    time: Range,
    canvas: float,
    generator: torch.Generator,
) -> Tensor:
    """Cut a random rectangle out of each spectrogram and stretch it to the full size, bicubically.

    The spectrogram lies in the middle of a canvas of zeros that is ``canvas`` times as long, so a
    rectangle may be longer than the sound. BYOL-A's ``RandomResizeCrop`` with its virtual crop
    scale (1.0, canvas); the interpolation is that of ``torch.nn.functional.interpolate`` with
    ``align_corners``.

    Args:
        x_BMT: normalised log-mel spectrograms.
        freq: smallest and largest height of the rectangle, as a share of M (at most M is cut).
        time: the same of its length, as a share of T (at most the canvas).
        canvas: length of the canvas as a multiple of T, at least 1.
        generator: CPU generator.

    Raises:
        ValueError: a range that is empty or not positive, or a canvas below 1.
    """
    for name, (low, high) in (("freq", freq), ("time", time)):
        if not 0 < low <= high:
            raise ValueError(f"{name} must be (low, high) with 0 < low <= high, got {low}, {high}")
    if canvas < 1:
        raise ValueError(f"canvas must be at least 1, got {canvas}")
    batch, mels, frames = x_BMT.shape
    width = int(frames * canvas)
    left = (width - frames) // 2
    u = torch.rand(4, batch, generator=generator, dtype=torch.float64)
    height_B = ((freq[0] + (freq[1] - freq[0]) * u[0]) * mels).long().clamp(1, mels)
    length_B = ((time[0] + (time[1] - time[0]) * u[1]) * frames).long().clamp(1, width)
    low_B = (u[2] * (mels - height_B + 1)).long()
    first_B = (u[3] * (width - length_B + 1)).long()
    rows_BMM = _stretch(low_B, height_B, mels, mels).to(x_BMT)
    columns_BTW = _stretch(first_B, length_B, width, frames).to(x_BMT)
    # the canvas is zero outside of the sound: only the sound's columns count
    columns_BTT = columns_BTW[:, :, left : left + frames]
    with torch.autocast(x_BMT.device.type, enabled=False):
        return rows_BMM @ x_BMT @ columns_BTT.transpose(1, 2)


def _stretch(first_B: Tensor, length_B: Tensor, source: int, target: int) -> Tensor:
    """Return matrices (B, target, source) that interpolate a stretch of a line to ``target``."""
    step_B1 = (length_B - 1).double()[:, None] / max(target - 1, 1)
    place = step_B1 * torch.arange(target, dtype=torch.float64)
    whole = place.floor()
    part = place - whole
    matrix = torch.zeros(len(first_B), target, source, dtype=torch.float64)
    for tap in (-1, 0, 1, 2):
        at = (whole.long() + tap).clamp_min(0).minimum(length_B[:, None] - 1) + first_B[:, None]
        matrix.scatter_add_(2, at[..., None], _cubic((part - tap).abs())[..., None])
    return matrix


def _cubic(x: Tensor) -> Tensor:
    """Return the cubic convolution kernel at distance 0 <= x <= 2 (Keys 1981, equation 4)."""
    a = _CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, far)


def gain(wav_BS: Tensor, *, decibels: Range, generator: torch.Generator) -> Tensor:
    """Return the waveforms at other loudnesses.

    Args:
        wav_BS: waveforms.
        decibels: smallest and largest change of level.
        generator: CPU generator.
    """
    low, high = decibels
    change_B1 = low + (high - low) * torch.rand(len(wav_BS), 1, generator=generator)
    return wav_BS * (10 ** (change_B1 / 20)).to(wav_BS)


def noise(wav_BS: Tensor, *, snr: Range, generator: torch.Generator) -> Tensor:
    """Return the waveforms with stationary noise added.

    The noise is Gaussian with a power spectrum of 1 / f ** slope, the slope uniform between 0
    (white) and 2 (brown): rooms are nearer to the latter. Silence gets none.

    Args:
        wav_BS: waveforms.
        snr: smallest and largest ratio of signal to noise, in dB.
        generator: CPU generator.
    """
    batch, samples = wav_BS.shape
    low, high = snr
    ratio_B1 = low + (high - low) * torch.rand(batch, 1, generator=generator)
    slope_B1 = 2 * torch.rand(batch, 1, generator=generator)
    white_BS = torch.randn(batch, samples, generator=generator)
    tilt_BF = torch.arange(samples // 2 + 1).clamp_min(1).float() ** (-slope_B1 / 2)
    noise_BS = torch.fft.irfft(torch.fft.rfft(white_BS) * tilt_BF, n=samples).to(wav_BS)
    power_B1 = wav_BS.square().mean(dim=1, keepdim=True) * (10 ** (-ratio_B1 / 10)).to(wav_BS)
    own_B1 = noise_BS.square().mean(dim=1, keepdim=True)
    scaled_BS: Tensor = noise_BS * (power_B1 / own_B1).sqrt()
    return wav_BS + scaled_BS


def mask_time(wav_BS: Tensor, *, share: float, generator: torch.Generator) -> Tensor:
    """Return the waveforms with one stretch of each silenced.

    Args:
        wav_BS: waveforms.
        share: longest stretch as a share of the samples; the length is uniform from 0 to this.
        generator: CPU generator.

    Raises:
        ValueError: a share out of 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be between 0 and 1, got {share}")
    batch, samples = wav_BS.shape
    u = torch.rand(2, batch, 1, generator=generator, dtype=torch.float64)
    length_B1 = (u[0] * share * (samples + 1)).long().clamp_max(samples)
    first_B1 = (u[1] * (samples - length_B1 + 1)).long()
    here_S = torch.arange(samples)
    hidden_BS = (here_S >= first_B1) & (here_S < first_B1 + length_B1)
    return wav_BS.masked_fill(hidden_BS.to(wav_BS.device), 0.0)
