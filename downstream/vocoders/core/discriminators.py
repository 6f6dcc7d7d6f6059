"""What tells a vocoder's audio from recordings, and what a vocoder learns from it.

HiFi-GAN (Kong et al. 2020, arXiv:2010.05646): the multi-period discriminator looks at every second,
third, fifth... sample, the multi-scale one (MelGAN, Kumar et al. 2019) at the waveform and at averages
of it. The objectives are least squares (section 2.3 of the paper), with the distance of the
discriminators' own features.

Shape suffixes: B batch, S samples, C channels, T frames, P period.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from mynah.downstream.vocoders.core.neural import normed

SLOPE = 0.1


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large the discriminators are.

    Attributes:
        periods: one discriminator each.
        period_widths: channels of its layers; all but the last one take every third frame.
        scales: discriminators of the waveform, each of half as many samples as the one before.
        scale_layers: channels, kernel, stride and groups of their layers.
    """

    periods: tuple[int, ...]
    period_widths: tuple[int, ...]
    scales: int
    scale_layers: tuple[tuple[int, int, int, int], ...]


SIZES = {
    "paper": Sizes(
        periods=(2, 3, 5, 7, 11),
        period_widths=(32, 128, 512, 1024, 1024),
        scales=3,
        scale_layers=(
            (128, 15, 1, 1),
            (128, 41, 2, 4),
            (256, 41, 2, 16),
            (512, 41, 4, 16),
            (1024, 41, 4, 16),
            (1024, 41, 1, 16),
            (1024, 5, 1, 1),
        ),
    ),
    "tiny": Sizes(
        periods=(2, 3, 5, 7, 11),
        period_widths=(8, 16, 32, 64),
        scales=1,
        scale_layers=((16, 15, 2, 1), (32, 21, 4, 4), (64, 21, 4, 8), (64, 5, 1, 1)),
    ),
}


class Verdict(NamedTuple):
    """What one discriminator says of waveforms: a score for each place, and its features."""

    score_BT: Tensor
    features: list[Tensor]


class Periodic(nn.Module):
    """Looks at every P-th sample.

    Args:
        period: P.
        widths: channels of the layers.
    """

    def __init__(self, period: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.period = period
        strides = [3] * (len(widths) - 1) + [1]
        self.layers = nn.ModuleList(
            [
                normed(nn.Conv2d(inputs, width, (5, 1), (stride, 1), padding=(2, 0)))
                for inputs, width, stride in zip((1, *widths), widths, strides, strict=False)
            ]
        )
        self.last = normed(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wav_BS: Tensor) -> Verdict:
        """Return the verdict."""
        more = -wav_BS.shape[1] % self.period
        # the end is reflected, by copies whose gradient gives the same bits each time
        wav_BS = torch.cat([wav_BS, wav_BS[:, wav_BS.shape[1] - more - 1 : -1].flip(1)], dim=1)
        return _verdict(wav_BS.view(len(wav_BS), 1, -1, self.period), self.layers, self.last)


class Scaled(nn.Module):
    """Looks at the waveform as it is.

    Args:
        layers: channels, kernel, stride and groups of each.
        spectral: whether weights are normed by their largest singular value (the first scale's are).
    """

    def __init__(self, layers: tuple[tuple[int, int, int, int], ...], *, spectral: bool) -> None:
        super().__init__()
        norm = parametrizations.spectral_norm if spectral else normed
        made, inputs = [], 1
        for width, kernel, stride, groups in layers:
            layer = nn.Conv1d(inputs, width, kernel, stride, padding=kernel // 2, groups=groups)
            made.append(norm(layer))
            inputs = width
        self.layers = nn.ModuleList(made)
        self.last = norm(nn.Conv1d(inputs, 1, 3, padding=1))

    def forward(self, wav_BS: Tensor) -> Verdict:
        """Return the verdict."""
        return _verdict(wav_BS[:, None], self.layers, self.last)


class Discriminators(nn.Module):
    """All of them.

    Args:
        sizes: how many and how large.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.periodic = nn.ModuleList([Periodic(p, sizes.period_widths) for p in sizes.periods])
        self.scaled = nn.ModuleList(
            [Scaled(sizes.scale_layers, spectral=i == 0) for i in range(sizes.scales)]
        )

    def forward(self, wav_BS: Tensor) -> list[Verdict]:
        """Return every verdict."""
        found = [one(wav_BS) for one in self.periodic]
        for i, one in enumerate(self.scaled):
            if i:
                wav_BS = F.avg_pool1d(wav_BS[:, None], 4, 2, padding=2)[:, 0]
            found.append(one(wav_BS))
        return found


def _verdict(x: Tensor, layers: nn.ModuleList, last: nn.Module) -> Verdict:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), SLOPE)
        features.append(x)
    x = last(x)
    features.append(x)
    return Verdict(x.flatten(1), features)


# -- objectives -----------------------------------------------------------------------------------


def telling_apart(real: list[Verdict], made: list[Verdict]) -> tuple[Tensor, Tensor]:
    """Return what the discriminators are to lower: (1 - D(real))^2 and D(made)^2, each summed."""
    return (
        torch.stack([(1 - v.score_BT.float()).square().mean() for v in real]).sum(),
        torch.stack([v.score_BT.float().square().mean() for v in made]).sum(),
    )


def passing(made: list[Verdict]) -> Tensor:
    """Return what the generator is to lower: (1 - D(made))^2, summed over discriminators."""
    return torch.stack([(1 - v.score_BT.float()).square().mean() for v in made]).sum()


def feature_distance(real: list[Verdict], made: list[Verdict]) -> Tensor:
    """Return the mean absolute difference of each layer's features, summed over layers."""
    pairs = [
        (x.float() - y.float()).abs().mean()
        for a, b in zip(real, made, strict=True)
        for x, y in zip(a.features, b.features, strict=True)
    ]
    return torch.stack(pairs).sum()
