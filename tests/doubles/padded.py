"""Batches of noise that is padded with zeros."""

import torch
from torch import Tensor

from mynah.upstream.core.contract import Batch


def batch(*sizes: int, seed: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(1)
    wav_BS = torch.zeros(len(sizes), max(sizes))
    for row, n in zip(wav_BS, sizes, strict=True):
        row[:n] = 0.1 * torch.randn(n, generator=generator)
    return Batch(
        wav_BS=wav_BS,
        lengths_B=torch.tensor(sizes),
        ids=tuple(f"utt{i}" for i in range(len(sizes))),
        generator=torch.Generator().manual_seed(seed),
    )


def waves(given: Batch) -> list[Tensor]:
    return [wav[:n] for wav, n in zip(given.wav_BS, given.lengths_B.tolist(), strict=True)]
