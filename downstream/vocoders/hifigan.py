"""HiFi-GAN: transposed convolutions up to the waveform, residual blocks of several reaches in between.

Kong et al. 2020 (arXiv:2010.05646): V1 and V2 with blocks of two convolutions per dilation, V3 with
one. The paper's rates 8 8 2 2 make its hop of 256 samples; here they are chosen for 160 at 16 kHz.
Trained against the discriminators of ``core/discriminators.py``.

Shape suffixes: B batch, C channels, T frames or samples, M mel bins, S samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.downstream.core.melspec import MelSpec
from mynah.downstream.vocoders.core.neural import Generator, NeuralVocoder, normed

SLOPE = (
    0.1  # of the leaky rectifiers, but for the last: torch's 0.01 there, as in the authors' code
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A generator.

    Attributes:
        rates: samples of each stage for one of the stage before; their product is the hop.
        kernels: of each stage: longer than its rate by an even number.
        channels: before the first stage; each stage halves them.
        block: 1 for blocks of two convolutions per dilation, 2 for one.
        block_kernels: of the blocks of every stage, odd.
        dilations: of each of those.
    """

    rates: tuple[int, ...] = (10, 4, 2, 2)
    kernels: tuple[int, ...] = (20, 8, 4, 4)
    channels: int = 512
    block: Literal[1, 2] = 1
    block_kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))

    def __post_init__(self) -> None:
        if not self.rates or len(self.rates) != len(self.kernels):
            raise ValueError(f"one kernel for each rate, got {self.rates} and {self.kernels}")
        for rate, kernel in zip(self.rates, self.kernels, strict=True):
            if rate < 1 or kernel < rate or (kernel - rate) % 2:
                raise ValueError(
                    f"a kernel must be longer than its rate by an even number, got {kernel} for {rate}"
                )
        if self.channels % 2 ** len(self.rates) or self.channels < 2 ** len(self.rates):
            raise ValueError(
                f"channels are halved {len(self.rates)} times, {self.channels} cannot be"
            )
        if len(self.block_kernels) != len(self.dilations) or not self.block_kernels:
            raise ValueError(
                f"dilations for each block kernel, got {self.dilations} and {self.block_kernels}"
            )
        if any(kernel % 2 == 0 for kernel in self.block_kernels):
            raise ValueError(f"block kernels must be odd, got {self.block_kernels}")


class Block(nn.Module):
    """Residual convolutions of one kernel at several dilations.

    Args:
        channels: C.
        kernel: odd.
        dilations: of the first convolution of each pair.
        pairs: whether each is followed by one without dilation.
        norm: whether weights are directions and lengths.
    """

    def __init__(
        self, channels: int, kernel: int, dilations: tuple[int, ...], *, pairs: bool, norm: bool
    ) -> None:
        super().__init__()

        def layer(dilation: int) -> nn.Module:
            reach = dilation * (kernel - 1) // 2
            return _conv(channels, channels, kernel, reach, norm=norm, dilation=dilation)

        self.first = nn.ModuleList([layer(dilation) for dilation in dilations])
        self.second = nn.ModuleList([layer(1) for _ in dilations] if pairs else [])

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Return (B, C, T)."""
        for i, layer in enumerate(self.first):
            y_BCT = layer(F.leaky_relu(x_BCT, SLOPE))
            if self.second:
                y_BCT = self.second[i](F.leaky_relu(y_BCT, SLOPE))
            x_BCT = x_BCT + y_BCT
        return x_BCT


class HiFiGANGenerator(Generator):
    """The generator.

    Args:
        config: see there.
        spec: of the spectrograms.
        norm: whether weights are directions and lengths, as they are trained.

    Raises:
        ValueError: rates that do not multiply to the hop.
    """

    config: Config

    def __init__(self, config: Config, spec: MelSpec, *, norm: bool = True) -> None:
        super().__init__(config, spec)
        if math.prod(config.rates) != spec.hop:
            raise ValueError(
                f"rates {config.rates} multiply to {math.prod(config.rates)}, and the spectrogram "
                f"has a frame every {spec.hop} samples: choose rates whose product is the hop"
            )
        width = config.channels
        self.first = _conv(spec.num_mels, width, 7, 3, norm=norm)
        self.ups = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for rate, kernel in zip(config.rates, config.kernels, strict=True):
            up = nn.ConvTranspose1d(width, width // 2, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(normed(up) if norm else up)
            width //= 2
            self.blocks.extend(
                Block(width, size, dilations, pairs=config.block == 1, norm=norm)
                for size, dilations in zip(config.block_kernels, config.dilations, strict=True)
            )
        self.last = _conv(width, 1, 7, 3, norm=norm)

    def forward(self, mel_BMT: Tensor) -> Tensor:
        """Return waveforms (B, T * hop) in [-1, 1]."""
        x_BCT = self.first(mel_BMT)
        each = len(self.config.block_kernels)
        for i, up in enumerate(self.ups):
            x_BCT = up(F.leaky_relu(x_BCT, SLOPE))
            blocks = self.blocks[i * each : (i + 1) * each]
            x_BCT = torch.stack([block(x_BCT) for block in blocks]).sum(0) / each
        wav_BS: Tensor = self.last(F.leaky_relu(x_BCT))[:, 0]
        return wav_BS.float().tanh()


def _conv(
    inputs: int, outputs: int, kernel: int, padding: int, *, norm: bool, dilation: int = 1
) -> nn.Module:
    # torch's own first weights: those that the authors' code draws are lost under the weight norm
    layer = nn.Conv1d(inputs, outputs, kernel, padding=padding, dilation=dilation)
    return normed(layer) if norm else layer


class HiFiGAN(NeuralVocoder):
    """HiFi-GAN with weights."""

    name = "hifigan"


VOCODER = HiFiGAN
GENERATOR = HiFiGANGenerator
CONFIGS = {
    "hifigan": Config(),
    "hifigan-v2": Config(channels=128),
    "hifigan-v3": Config(
        rates=(10, 4, 4),
        kernels=(20, 8, 8),
        channels=256,
        block=2,
        block_kernels=(3, 5, 7),
        dilations=((1, 2), (2, 6), (3, 12)),
    ),
    "hifigan-tiny": Config(
        rates=(10, 4, 4),
        kernels=(20, 8, 8),
        channels=128,
        block=2,
        block_kernels=(3, 7),
        dilations=((1, 3), (1, 3)),
    ),
}
