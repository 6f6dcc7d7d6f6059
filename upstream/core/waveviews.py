"""A distorted copy of utterances of any lengths: loudness, room, noise, a silenced stretch.

Frames stay where they are, so that what the clean utterance says at a time, the copy says too.

Shape suffixes: S samples, B one-row batches of :mod:`mynah.upstream.core.views`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mynah.upstream.core import views

SAMPLE_RATE = 16000
ROOM = (0.1, 0.5)  # seconds in which reverberation falls by 60 dB
DIRECT = (0.0, 12.0)  # dB of the direct sound over the reverberation


def distort(
    wavs: Sequence[Tensor],
    *,
    gain: float,
    snr: tuple[float, float],
    silence: float,
    reverb: float,
    generator: torch.Generator,
) -> list[Tensor]:
    """Return distorted copies, as long as the originals.

    Args:
        wavs: 1-D waveforms.
        gain: largest change of level in dB, either way.
        snr: smallest and largest signal-to-noise ratio in dB.
        silence: longest silenced stretch as a share of the utterance.
        reverb: probability of reverberation.
        generator: CPU generator, the only source of randomness.
    """
    copies = []
    for wav_S in wavs:
        if float(torch.rand((), generator=generator)) < reverb:
            wav_S = reverberate(wav_S, generator=generator)  # noqa: PLW2901
        wav_BS = views.noise(wav_S[None], snr=snr, generator=generator)
        wav_BS = views.gain(wav_BS, decibels=(-gain, gain), generator=generator)
        copies.append(views.mask_time(wav_BS, share=silence, generator=generator)[0])
    return copies


def reverberate(wav_S: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return an utterance in a made-up room: the sound itself and a tail of decaying noise.

    The tail falls by 60 dB within a time drawn from 0.1 to 0.5 s; the direct sound is 0 to 12 dB
    louder than it. The level stays as it was. Source: the exponential model of Polack 1988, as used
    in Ko et al. 2017, "A study on data augmentation of reverberant speech", for comparison.
    """
    low, high = ROOM
    seconds = low + (high - low) * float(torch.rand((), generator=generator))
    ratio = DIRECT[0] + (DIRECT[1] - DIRECT[0]) * float(torch.rand((), generator=generator))
    length = int(seconds * SAMPLE_RATE)
    time_S = torch.arange(length) / SAMPLE_RATE
    tail_S = torch.randn(length, generator=generator) * torch.exp(
        -3 * math.log(10) * time_S / seconds
    )
    tail_S = tail_S * (10 ** (-ratio / 20) / tail_S.norm())
    tail_S[0] = 1.0
    size = len(wav_S) + length
    spectrum = torch.fft.rfft(wav_S.float(), n=size) * torch.fft.rfft(
        tail_S.to(wav_S.device), n=size
    )
    wet_S = torch.fft.irfft(spectrum, n=size)[: len(wav_S)]
    before, after = wav_S.square().mean(), wet_S.square().mean()
    scaled: Tensor = wet_S * (before / after.clamp_min(1e-20)).sqrt()
    return scaled
