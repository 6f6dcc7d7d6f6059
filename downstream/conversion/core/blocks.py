"""Blocks of the auto-encoders: convolutions over time that do not see padding.

Shape suffixes: B batch, T frames, H hidden width, I input width, V width of a voice.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


def mask_of(lengths_B: Tensor, frames: int) -> Tensor:
    """Return 1 for valid frames and 0 for padding, (B, 1, T), float32."""
    places_T = torch.arange(frames, device=lengths_B.device)
    return (places_T < lengths_B[:, None])[:, None].float()


def mean_and_deviation(x_BHT: Tensor, mask_B1T: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (B, H) over the valid frames."""
    count_B1 = mask_B1T.sum(2)
    mean_BH = (x_BHT * mask_B1T).sum(2) / count_B1
    variance_BH = ((x_BHT - mean_BH[..., None]) * mask_B1T).square().sum(2) / count_B1
    return mean_BH, (variance_BH + 1e-5).sqrt()


def instance_norm(x_BHT: Tensor, mask_B1T: Tensor) -> Tensor:
    """Return each channel with mean 0 and variance 1 over the valid frames of its utterance.

    What does not change within an utterance, the speaker's timbre above all, is gone after it
    (Chou et al. 2019, arXiv:1904.05742).
    """
    mean_BH, deviation_BH = mean_and_deviation(x_BHT, mask_B1T)
    return (x_BHT - mean_BH[..., None]) / deviation_BH[..., None] * mask_B1T


class ContentEncoder(nn.Module):
    """Frames to hidden frames: residual blocks of two convolutions.

    Args:
        dim: width I of the input.
        hidden: width H.
        blocks: number of blocks.
        normalise: instance norm before each convolution of a block.
    """

    def __init__(self, dim: int, hidden: int, blocks: int, *, normalise: bool) -> None:
        super().__init__()
        self.normalise = normalise
        self.first = nn.Conv1d(dim, hidden, 5, padding=2)
        self.convs = nn.ModuleList(
            nn.Conv1d(hidden, hidden, 5, padding=2) for _ in range(2 * blocks)
        )

    def forward(self, x_BIT: Tensor, mask_B1T: Tensor) -> Tensor:
        """Return hidden frames (B, H, T), 0 where padding is."""
        h_BHT = self.first(x_BIT * mask_B1T) * mask_B1T
        for one, two in zip(self.convs[::2], self.convs[1::2], strict=True):
            inner = self._norm(h_BHT, mask_B1T).relu()
            inner = self._norm(one(inner) * mask_B1T, mask_B1T).relu()
            h_BHT = h_BHT + two(inner) * mask_B1T
        return self._norm(h_BHT, mask_B1T)

    def _norm(self, h_BHT: Tensor, mask_B1T: Tensor) -> Tensor:
        return instance_norm(h_BHT, mask_B1T) if self.normalise else h_BHT


class SpeakerEncoder(nn.Module):
    """A spectrogram to one vector: convolutions, mean and deviation over time, a linear layer.

    Args:
        dim: width I of the input.
        hidden: width H; 0 for no convolutions: the voice is a linear map of the statistics of the
            spectrogram itself, which a handful of speakers cannot make anything else of.
        voice: width V.
        blocks: number of convolutions.
    """

    def __init__(self, dim: int, hidden: int, voice: int, *, blocks: int = 3) -> None:
        super().__init__()
        sizes = [dim, *([hidden] * blocks)] if hidden else [dim]
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 5, padding=2) for a, b in pairwise(sizes))
        self.last = nn.Linear(2 * sizes[-1], voice)

    def forward(self, mel_BMT: Tensor, mask_B1T: Tensor) -> Tensor:
        """Return voices (B, V)."""
        h_BHT = mel_BMT * mask_B1T
        for conv in self.convs:
            h_BHT = conv(h_BHT).relu() * mask_B1T
        voice_BV: Tensor = self.last(torch.cat(mean_and_deviation(h_BHT, mask_B1T), dim=1))
        return voice_BV


class VoiceDecoder(nn.Module):
    """Code and voice to a spectrogram: residual blocks whose channels the voice scales and shifts.

    Args:
        code: width of the code.
        hidden: width H.
        voice: width V of the voice.
        mels: bins of the spectrogram.
        blocks: number of blocks.
        adaptive: instance norm before each scaling (AdaIN, Huang and Belongie 2017), so that the
            voice alone decides mean and variance of each channel; without it the scaling is FiLM.
    """

    def __init__(
        self, code: int, hidden: int, voice: int, mels: int, blocks: int, *, adaptive: bool
    ) -> None:
        super().__init__()
        self.adaptive = adaptive
        self.first = nn.Conv1d(code, hidden, 5, padding=2)
        self.convs = nn.ModuleList(
            nn.Conv1d(hidden, hidden, 5, padding=2) for _ in range(2 * blocks)
        )
        self.styles = nn.ModuleList(nn.Linear(voice, 2 * hidden) for _ in range(2 * blocks))
        self.last = nn.Conv1d(hidden, mels, 1)

    def forward(self, code_BCT: Tensor, voice_BV: Tensor, mask_B1T: Tensor) -> Tensor:
        """Return spectrograms (B, M, T)."""
        h_BHT = self.first(code_BCT * mask_B1T) * mask_B1T
        for i in range(0, len(self.convs), 2):
            inner = self._styled(h_BHT, voice_BV, mask_B1T, i).relu() * mask_B1T
            inner = self.convs[i](inner) * mask_B1T
            inner = self._styled(inner, voice_BV, mask_B1T, i + 1).relu() * mask_B1T
            h_BHT = h_BHT + self.convs[i + 1](inner) * mask_B1T
        mel_BMT: Tensor = self.last(h_BHT)
        return mel_BMT

    def _styled(self, h_BHT: Tensor, voice_BV: Tensor, mask_B1T: Tensor, layer: int) -> Tensor:
        scale_BH, shift_BH = self.styles[layer](voice_BV).chunk(2, dim=1)
        if self.adaptive:
            h_BHT = instance_norm(h_BHT, mask_B1T)
        styled_BHT: Tensor = h_BHT * (1 + scale_BH[..., None]) + shift_BH[..., None]
        return styled_BHT
