"""Waveforms that vocoders and spectrograms are tried on."""

import math

import torch


def speechlike(seconds: float, rate: int = 16000, seed: int = 0) -> torch.Tensor:
    """A buzz of moving pitch in noise that comes and goes."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * rate)) / rate
    phase = 2 * math.pi * torch.cumsum(140 + 40 * torch.sin(3 * time), 0) / rate
    harmonics = sum(torch.sin(k * phase) / k for k in range(1, 20))
    noise = torch.randn(len(time), generator=generator) * (0.5 + 0.5 * torch.sin(9 * time))
    return 0.1 * harmonics + 0.02 * noise


def buzz(pitch: float, seconds: float = 0.6, rate: int = 16000) -> torch.Tensor:
    """Harmonics of 1 / k, as loud as speech."""
    time = torch.arange(int(seconds * rate)) / rate
    count = int(0.45 * rate / pitch)
    return 0.1 * sum(torch.sin(2 * math.pi * k * pitch * time) / k for k in range(1, count))
