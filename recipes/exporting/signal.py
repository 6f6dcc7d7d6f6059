"""Spectral front-ends of one utterance as tensor operations without loops, for programs to record.

The same functions as :mod:`mynah.upstream.core.mel` and :mod:`mynah.upstream.core.logmel`. All that
is linear (pre-emphasis, window, Fourier transform) is one product with a matrix, in float64: every
runtime multiplies matrices alike, while their Fourier transforms differ, where they have one.

Nothing here asks how long the utterance is, and no tensor is made from nothing: a recording would
keep the length, or the device, of the one utterance that it was made with.

Shape suffixes: S samples, T frames, K samples of a window, F frequency bins, M mel bins, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core import logmel, mel

_LOG_FLOOR = torch.finfo(torch.float32).eps


def zeros(x: Tensor) -> Tensor:
    """Return zeros of a tensor's shape, type and device, whatever it holds."""
    unknown = x.isnan()
    return (unknown & ~unknown).to(x.dtype)


def positions(x_TD: Tensor) -> Tensor:
    """Return 0, 1, 2 ... for the rows of a tensor, int64 (T,)."""
    unknown_T = x_TD[:, 0].isnan()
    return (unknown_T | ~unknown_T).cumsum(0) - 1


class Power(nn.Module):
    """Power spectra (T, F), float64, of windows (T, K).

    Args:
        window_K: what the samples are multiplied by.
        bins: points of the transform.
        first: a linear map (K, K) of each window's samples before that.
    """

    basis_KX: Tensor

    def __init__(self, window_K: Tensor, *, bins: int, first: Tensor | None = None) -> None:
        super().__init__()
        time_K1 = torch.arange(len(window_K), dtype=torch.float64)[:, None]
        angle_KF = time_K1 * torch.arange(bins // 2 + 1) * (2 * torch.pi / bins)
        basis_KX = torch.cat([angle_KF.cos(), angle_KF.sin()], dim=1)
        basis_KX = window_K.detach().cpu().double()[:, None] * basis_KX
        self.register_buffer("basis_KX", basis_KX if first is None else first @ basis_KX)

    def forward(self, window_TK: Tensor) -> Tensor:
        """Return the power of each bin."""
        real_TF, imaginary_TF = (window_TK.double() @ self.basis_KX).chunk(2, dim=1)
        return real_TF.square() + imaginary_TF.square()


class Fbank(nn.Module):
    """Kaldi's log-mel filterbanks (T, M) of a waveform of at least one window."""

    filters_FM: Tensor
    shortest = mel.WIDTH

    def __init__(self, front: mel.KaldiFbank) -> None:
        super().__init__()
        width = len(front.window_K)
        # x_t - 0.97 x_{t-1} of samples without their mean m: 0.03 m is taken off
        first_KK = torch.eye(width, dtype=torch.float64)
        first_KK -= 0.97 * torch.diag(torch.ones(width - 1, dtype=torch.float64), diagonal=1)
        first_KK[0, 0] = 0.03
        first_KK -= 0.03 / width
        bins = 2 * (len(front.filters_FM) - 1)
        self.power = Power(front.window_K, bins=bins, first=first_KK)
        self.register_buffer("filters_FM", front.filters_FM.detach().cpu().double())

    def forward(self, wav_S: Tensor) -> Tensor:
        """Return the features."""
        power_TF = self.power(wav_S.unfold(0, mel.WIDTH, mel.STRIDE))
        energy_TM: Tensor = (power_TF @ self.filters_FM).float()
        return energy_TM.clamp_min(_LOG_FLOOR).log()


class LogSpectrogram(nn.Module):
    """Log-mel spectra (T, M) of Mockingjay's relatives, of a waveform longer than half a window."""

    filters_FM: Tensor
    shortest = mel.WIDTH // 2 + 1

    def __init__(self, front: mel.LogSpectrogram) -> None:
        super().__init__()
        self.level = None if front.level is None else 10 ** (front.level / 20)
        self.power = Power(front.window_K, bins=mel.WIDTH)
        self.register_buffer("filters_FM", front.filters_FM.detach().cpu().double())

    def forward(self, wav_S: Tensor) -> Tensor:
        """Return the features, not normalised."""
        if self.level is not None:
            wav_S = wav_S * (self.level / (wav_S.square().mean().sqrt() + 1e-10))
        half = mel.WIDTH // 2
        wav_S = F.pad(wav_S[None], (half, half), mode="reflect")[0]
        power_TF = self.power(wav_S.unfold(0, mel.WIDTH, mel.STRIDE))
        energy_TM: Tensor = power_TF @ self.filters_FM
        return (energy_TM + 1e-10).log().float()


class LogMel(nn.Module):
    """Log-mel spectrograms (T, M) of BYOL-A and DeLoRes, of a waveform longer than half a window."""

    filters_FM: Tensor

    def __init__(self, front: logmel.LogMel) -> None:
        super().__init__()
        self.width = len(front.window_K)
        self.shortest = self.width // 2 + 1
        self.power = Power(front.window_K, bins=self.width)
        self.register_buffer("filters_FM", front.filters_FM.detach().cpu().double())

    def forward(self, wav_S: Tensor) -> Tensor:
        """Return the features, not normalised."""
        half = self.width // 2
        wav_S = F.pad(wav_S[None], (half, half), mode="reflect")[0]
        power_TF = self.power(wav_S.unfold(0, self.width, logmel.STRIDE))
        energy_TM: Tensor = power_TF @ self.filters_FM
        return (energy_TM + _LOG_FLOOR).log().float()


def cmvn(x_TD: Tensor) -> Tensor:
    """Return the features with mean 0 and deviation 1: :func:`mynah.upstream.core.mel.cmvn`."""
    frames = (zeros(x_TD[:, 0]) + 1.0).sum()
    centred_TD = x_TD - x_TD.mean(dim=0, keepdim=True)
    variance_D = centred_TD.square().sum(dim=0) / (frames - 1.0).clamp_min(1.0)
    std_D = variance_D.sqrt()
    scale_D = 1.0 / (std_D + 1e-10)
    return centred_TD * torch.where(std_D > mel._NO_VARIATION, scale_D, zeros(scale_D))


def stack(x_TD: Tensor, factor: int) -> Tensor:
    """Return ``factor`` frames joined into one, the last filled up with zeros."""
    if factor == 1:
        return x_TD
    padded_TD = F.pad(x_TD, (0, 0, 0, factor - 1))
    return padded_TD.unfold(0, factor, factor).transpose(1, 2).flatten(1)


def with_deltas(x_TD: Tensor, order: int) -> Tensor:
    """Return features and their slopes side by side: :func:`mynah.upstream.core.mel.with_deltas`."""
    parts = [x_TD]
    for _ in range(order):
        last = parts[-1]
        wide_TD = torch.cat([last[:1], last[:1], last, last[-1:], last[-1:]])
        near_TD, far_TD = wide_TD[3:-1] - wide_TD[1:-3], wide_TD[4:] - wide_TD[:-4]
        parts.append((near_TD + 2 * far_TD) / 10)
    return torch.cat(parts, dim=1)
