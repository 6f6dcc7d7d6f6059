"""Vocos: convolutions at the frames' own rate, and an inverse Fourier transform up to the waveform.

Siuzdak 2023 (arXiv:2306.00814): ConvNeXt blocks, whose last layer says magnitude and phase of every bin
of a short-time spectrum. Nothing is upsampled, which makes it several times cheaper than HiFi-GAN.

Shape suffixes: B batch, T frames, M mel bins, D width, F bins, K samples of a window, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.downstream.core.melspec import MelSpec
from mynah.downstream.vocoders.core.neural import Generator, NeuralVocoder

LOUDEST = 100.0  # magnitudes beyond are cut, as in the author's code


@dataclass(frozen=True, kw_only=True)
class Config:
    """A generator.

    Attributes:
        dim: width D of the blocks.
        inner: width inside a block.
        layers: blocks.
        fft: samples K of the short-time spectrum that is predicted.
    """

    dim: int = 512
    inner: int = 1536
    layers: int = 8
    fft: int = 640

    def __post_init__(self) -> None:
        if min(self.dim, self.inner, self.layers) < 1 or self.fft < 2 or self.fft % 2:
            raise ValueError("dim, inner and layers must be 1 or more, fft even")


class Block(nn.Module):
    """A ConvNeXt block: each channel over 7 frames, then every frame through a wider layer.

    Args:
        dim: width D.
        inner: of the wider layer.
        scale: of what is added, at first.
    """

    def __init__(self, dim: int, inner: int, scale: float) -> None:
        super().__init__()
        self.mix = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.widen = nn.Linear(dim, inner)
        self.narrow = nn.Linear(inner, dim)
        self.scale_D = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x_BDT: Tensor) -> Tensor:
        """Return (B, D, T)."""
        y_BTD = self.norm(self.mix(x_BDT).transpose(1, 2))
        y_BTD = self.scale_D * self.narrow(F.gelu(self.widen(y_BTD)))
        found_BDT: Tensor = x_BDT + y_BTD.transpose(1, 2)
        return found_BDT


class VocosGenerator(Generator):
    """The generator.

    Args:
        config: see there.
        spec: of the spectrograms.

    Raises:
        ValueError: windows that overlap too little at the spec's hop.
    """

    config: Config
    window_K: Tensor

    def __init__(self, config: Config, spec: MelSpec) -> None:
        super().__init__(config, spec)
        if config.fft < 2 * spec.hop or (config.fft - spec.hop) % 2:
            raise ValueError(
                f"a spectrum of {config.fft} samples every {spec.hop} overlaps too little: fft must "
                "be twice the hop or more, and differ from it by an even number"
            )
        self.first = nn.Conv1d(spec.num_mels, config.dim, 7, padding=3)
        self.first_norm = nn.LayerNorm(config.dim, eps=1e-6)
        scale = 1 / config.layers
        self.blocks = nn.ModuleList(
            [Block(config.dim, config.inner, scale) for _ in range(config.layers)]
        )
        self.last_norm = nn.LayerNorm(config.dim, eps=1e-6)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv1d, nn.Linear)):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        self.last = nn.Linear(config.dim, config.fft + 2)
        self.register_buffer("window_K", torch.hann_window(config.fft), persistent=False)

    def forward(self, mel_BMT: Tensor) -> Tensor:
        """Return waveforms (B, T * hop)."""
        x_BTD = self.first_norm(self.first(mel_BMT).transpose(1, 2))
        x_BDT = x_BTD.transpose(1, 2)
        for block in self.blocks:
            x_BDT = block(x_BDT)
        said_BTF = self.last(self.last_norm(x_BDT.transpose(1, 2)))
        with torch.autocast(mel_BMT.device.type, enabled=False):
            magnitude_BTF, phase_BTF = said_BTF.float().chunk(2, dim=2)
            magnitude_BTF = magnitude_BTF.exp().clamp(max=LOUDEST)
            spectrum_BTF = torch.complex(
                magnitude_BTF * phase_BTF.cos(), magnitude_BTF * phase_BTF.sin()
            )
            return self._laid_over(torch.fft.irfft(spectrum_BTF, self.config.fft))

    def _laid_over(self, frames_BTK: Tensor) -> Tensor:
        """Return the sum (B, T * hop) of windowed frames at their places, over that of windows.

        A frame is centred on its hop where the spectrogram's are, else half a hop later.
        """
        spec, size = self.spec, self.config.fft
        frames = frames_BTK.shape[1]
        whole = (frames - 1) * spec.hop + size

        def laid(x_BTK: Tensor) -> Tensor:
            return F.fold(x_BTK.transpose(1, 2), (1, whole), (1, size), stride=(1, spec.hop))[
                :, 0, 0
            ]

        sum_BS = laid(frames_BTK * self.window_K)
        weight_1S = laid(self.window_K.square().expand(1, frames, size))
        first = size // 2 if spec.centred else (size - spec.hop) // 2
        part = slice(first, first + frames * spec.hop)
        return sum_BS[:, part] / weight_1S[:, part].clamp(min=1e-6)


class Vocos(NeuralVocoder):
    """Vocos with weights."""

    name = "vocos"


VOCODER = Vocos
GENERATOR = VocosGenerator
CONFIGS = {
    "vocos": Config(),
    "vocos-tiny": Config(dim=192, inner=576, layers=4),
}
