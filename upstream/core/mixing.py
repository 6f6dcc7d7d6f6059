"""Utterance mixing: a stretch of another utterance of the batch is laid over some of them.

Chen et al. 2022, WavLM (arXiv 2110.13900) section IV-C and algorithm 1. The labels stay those of the
first speaker, who therefore is the one to follow.

Shape suffixes: S samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def mix_utterances(
    wavs: Sequence[Tensor], *, share: float, decibels: float, generator: torch.Generator
) -> list[Tensor]:
    """Return the waveforms, some of them with a stretch of another one added.

    Each is chosen with probability ``share``. A stretch of at most half of its length, from a
    random place of another utterance as it came, is added at a random place, scaled so that the
    energy of the whole utterance over that of the stretch's source is uniform in +-``decibels``.
    A silent utterance is neither mixed in nor mixed into: it has no energy to compare.

    Args:
        wavs: 1-D waveforms; they are left as they are.
        share: probability, per utterance.
        decibels: half the range of energy ratios.
        generator: CPU generator, the only source of randomness.
    """
    mixed = list(wavs)
    if len(wavs) < 2:
        return mixed

    def uniform() -> float:
        return float(torch.rand((), generator=generator))

    for row, wav_S in enumerate(wavs):
        if uniform() >= share:
            continue
        other_S = wavs[(row + 1 + int(uniform() * (len(wavs) - 1))) % len(wavs)]
        length = min(1 + int(uniform() * (len(wav_S) // 2)), len(other_S))
        source = int(uniform() * (len(other_S) - length + 1))
        target = int(uniform() * (len(wav_S) - length + 1))
        ratio = decibels * (2 * uniform() - 1)
        own, theirs = wav_S.square().mean(), other_S.square().mean()
        if not own > 0 or not theirs > 0:
            continue
        gain = (own / (theirs * 10 ** (ratio / 10))).sqrt()
        changed_S = wav_S.clone()
        changed_S[target : target + length] += gain * other_S[source : source + length]
        mixed[row] = changed_S
    return mixed
