"""Kaldi's MFCC with deltas, over ragged batches: HuBERT's first targets.

13 cepstra of 23 log-mel energies (Povey window, no energy term, liftered with 22) with first and
second differences: 39 numbers per 10 ms, as ``torchaudio.compliance.kaldi.mfcc`` and fairseq's
``dump_mfcc_feature.py`` compute them, without normalisation.

Shape suffixes: N frames of the whole batch laid end to end, M mel bins, C cepstra.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mynah.upstream.core import mel

CEPSTRA = 13
MELS = 23
LIFTER = 22.0
DIM = 3 * CEPSTRA


class Mfcc(nn.Module):
    """MFCC, deltas and delta-deltas of waveforms of any lengths."""

    cosines_MC: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fbank = mel.KaldiFbank(num_mels=MELS, window="povey")
        self.register_buffer("cosines_MC", _cosines(), persistent=False)

    @staticmethod
    def num_frames(n_samples: int) -> int:
        """Return how many 10 ms frames ``n_samples`` yield (at least one)."""
        return mel.KaldiFbank.num_frames(n_samples)

    @torch.no_grad()
    def forward(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return the features (N, 39) of 1-D waveforms and the number of frames of each."""
        x_NM, counts = self.fbank(wavs)
        return mel.with_deltas(x_NM @ self.cosines_MC, counts), counts


def _cosines() -> Tensor:
    """Return the orthonormal DCT-II of the first cepstra, times the lifter, (M, C) float32."""
    mels = torch.arange(MELS, dtype=torch.float64) + 0.5
    order = torch.arange(CEPSTRA, dtype=torch.float64)
    basis_MC = torch.cos(math.pi / MELS * mels[:, None] * order) * math.sqrt(2.0 / MELS)
    basis_MC[:, 0] = math.sqrt(1.0 / MELS)
    lifter_C = 1.0 + 0.5 * LIFTER * torch.sin(math.pi * order / LIFTER)
    return (basis_MC * lifter_C).to(torch.float32)
