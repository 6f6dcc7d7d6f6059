"""Noise of given lengths, batches of it, and how far apart two results are."""

import torch
from torch import Tensor

from mynah.upstream.core.contract import Batch


def noise(*lengths: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [0.1 * torch.randn(n, generator=generator) for n in lengths]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def batch(*lengths: int, seed: int = 0) -> Batch:
    return padded(noise(*lengths, seed=seed), torch.Generator().manual_seed(seed))


def batch_drawn_on(*lengths: int, seed: int = 0) -> Batch:
    """Return such a batch whose generator goes on where the noise ended."""
    generator = torch.Generator().manual_seed(seed)
    wavs = [0.1 * torch.randn(n, generator=generator) for n in lengths]
    return padded(wavs, generator)


def padded(wavs: list[Tensor], generator: torch.Generator) -> Batch:
    lengths = [len(wav) for wav in wavs]
    return Batch(
        wav_BS=torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True),
        lengths_B=torch.tensor(lengths),
        ids=tuple(map(str, lengths)),
        generator=generator,
    )
