"""What Mockingjay and TERA do to a spectrogram that the model then has to restore.

Three corruptions: along time (:func:`corrupt`: spans become zero, other frames, or stay), along
frequency (:func:`frequency_band`: a band of bins becomes zero) and in magnitude
(:func:`magnitude_noise`: noise on everything). Features are normalised, so zero is the mean.

Sources: Liu et al. 2020 (Mockingjay, arXiv 1910.12638), Liu, Li and Lee 2021 (TERA, arXiv
2007.06028), and s3prl's ``generate_masked_acoustic_model_data``, whose numbers these are.

Shape suffixes: T frames of an utterance, F frequency bins, N frames of a ragged batch, M features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Corruption(NamedTuple):
    """What an utterance of T frames looks like to the model in training.

    Attributes:
        chosen_T: true where a frame is to be predicted.
        source_T: which frame stands in each place.
        keep_T: false where the place is zeroed.
    """

    chosen_T: Tensor
    source_T: Tensor
    keep_T: Tensor


def corrupt(
    frames: int,
    *,
    prob: float,
    length: int,
    zero_share: float,
    swap_share: float,
    generator: torch.Generator,
) -> Corruption:
    """Draw Mockingjay's corruption of one utterance.

    ``round(prob * T / length)`` spans, but at least one, start at different places of
    [0, T - length) and may overlap. One draw for the utterance decides whether its spans are
    zeroed, replaced by other spans of the same utterance, or left alone; they are predicted in
    all three cases. s3prl (``generate_masked_acoustic_model_data``) does the same, except that it
    leaves an utterance out of the batch where the number of spans rounds to 0.

    Args:
        frames: T.
        prob: share of frames to choose if spans did not overlap.
        length: frames of a span; what sticks out of a shorter utterance is cut.
        zero_share: probability of zeroing.
        swap_share: probability of replacing.
        generator: CPU generator, the only source of randomness.
    """
    spans = max(1, round(frames * prob / length))
    starts = max(frames - length, 1)

    def draw() -> Tensor:
        first = torch.randperm(starts, generator=generator)[:spans]
        return (first[:, None] + torch.arange(length)).flatten()

    place = draw()
    inside = place < frames
    chosen_T = torch.zeros(frames, dtype=torch.bool)
    chosen_T[place[inside]] = True
    source_T, keep_T = torch.arange(frames), torch.ones(frames, dtype=torch.bool)
    dice = float(torch.rand((), generator=generator))
    if dice < zero_share:
        keep_T = ~chosen_T
    elif dice < zero_share + swap_share:
        source_T[place[inside]] = draw()[inside].clamp_(max=frames - 1)
    return Corruption(chosen_T=chosen_T, source_T=source_T, keep_T=keep_T)


def frequency_band(bins: int, *, share: float, generator: torch.Generator) -> Tensor:
    """Draw the band of bins that one utterance of TERA loses, bool (F,).

    Its width is uniform in 0 ... floor(share F), its first bin uniform in [0, F - width); as in
    s3prl, the highest bin is therefore never lost.

    Args:
        bins: F.
        share: largest width, as a share of all bins, in [0, 1).
        generator: CPU generator, the only source of randomness.

    Raises:
        ValueError: a share out of range.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be in [0, 1), got {share}")
    width = int(torch.randint(int(bins * share) + 1, (), generator=generator))
    first = int(torch.randint(bins - width, (), generator=generator))
    band_F = torch.zeros(bins, dtype=torch.bool)
    band_F[first : first + width] = True
    return band_F


def magnitude_noise(x_NM: Tensor, *, prob: float, std: float, generator: torch.Generator) -> Tensor:
    """Return a batch with Gaussian noise on every feature with probability ``prob``, else as it is.

    One draw decides for the whole batch.

    Args:
        x_NM: corrupted features.
        prob: probability of noise.
        std: its standard deviation.
        generator: CPU generator, the only source of randomness.
    """
    if float(torch.rand((), generator=generator)) >= prob:
        return x_NM
    return x_NM + std * torch.randn(x_NM.shape, generator=generator).to(x_NM)
