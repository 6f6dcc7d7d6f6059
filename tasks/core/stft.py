"""Short-time Fourier transforms of audio beside the frames of an upstream, and back.

One frame of the transform for one of the upstream: the hop is the upstream's stride, the window is
Hann and centred on multiples of the hop, with zeros before and after the signal. There is then a
frame or two more than an upstream has; its frames are cut or filled up with zeros to as many (s3prl's
``match_length``, which refuses a difference of 5 or more).

Back again: frames are windowed, overlapped and added, and divided by the sum of the squared windows
there. Behind the last frame's centre that sum falls towards zero, and what a mask has changed does
not: the end of a signal may be a burst. ``steady`` divides by no less than the least sum that there
is between the centres of two frames; the end then fades out.

Shape suffixes: N signals, B batch, S samples, T frames, D width, F bins, W window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mynah.downstream.core.frames import ItemError, without_padding

TOLERANCE = 5  # frames: s3prl's limit
_TAIL, _WINDOW = 2048, 512  # samples: of s3prl's postprocess


@dataclass(frozen=True, kw_only=True)
class Stft:
    """A transform.

    Attributes:
        n_fft: samples of the window, even.
        hop: samples between frames.

    Raises:
        ValueError: a hop that leaves samples out, or an odd window.
    """

    n_fft: int = 512
    hop: int = 160

    def __post_init__(self) -> None:
        if self.n_fft < 2 or self.n_fft % 2:
            raise ValueError(f"the window must have an even number of samples, got {self.n_fft}")
        if not 1 <= self.hop < self.n_fft:
            raise ValueError(f"a window of {self.n_fft} samples cannot hop by {self.hop}")

    @property
    def bins(self) -> int:
        """Number of frequency bins."""
        return self.n_fft // 2 + 1

    def frames(self, samples: int) -> int:
        """Return the number of frames of a signal."""
        return 1 + samples // self.hop

    def __call__(self, wav_NS: Tensor) -> Tensor:
        """Return complex spectra (N, T, F) of signals (N, S).

        A signal that is padded with zeros has the same frames, and more of them.
        """
        spectra_NFT = torch.stft(
            wav_NS,
            self.n_fft,
            hop_length=self.hop,
            window=self._window(wav_NS),
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return spectra_NFT.transpose(1, 2)

    def inverse(self, spectra_NTF: Tensor, samples: int, *, steady: bool = True) -> Tensor:
        """Return signals (N, S) of complex spectra (N, T, F).

        Args:
            spectra_NTF: T = ``frames(samples)``.
            samples: S.
            steady: let the end fade out; else it is divided by whatever the windows sum up to, as
                librosa does.

        Raises:
            ValueError: another number of frames or bins.
        """
        expected = (self.frames(samples), self.bins)
        if spectra_NTF.shape[1:] != expected:
            raise ValueError(
                f"{samples} samples have {expected[0]} frames of {expected[1]} bins, got "
                f"{spectra_NTF.shape[1]} of {spectra_NTF.shape[2]}"
            )
        window_W = self._window(spectra_NTF.real)
        frames_NTW = torch.fft.irfft(spectra_NTF, n=self.n_fft) * window_W
        squares_1TW = window_W.square().expand(1, expected[0], -1)
        sum_NS, envelope_1S = self._add(frames_NTW), self._add(squares_1TW)
        start = self.n_fft // 2
        sum_NS = _cut(sum_NS, start, samples)
        envelope_1S = _cut(envelope_1S, start, samples)
        if steady:
            return sum_NS / envelope_1S.clamp(min=self._least(window_W))
        tiny = torch.finfo(envelope_1S.dtype).tiny
        return sum_NS / torch.where(envelope_1S > tiny, envelope_1S, 1.0)

    def _window(self, like: Tensor) -> Tensor:
        return torch.hann_window(self.n_fft, dtype=like.dtype, device=like.device)

    def _add(self, frames_NTW: Tensor) -> Tensor:
        """Return frames added up at their places, (N, n_fft + hop (T - 1))."""
        length = self.n_fft + self.hop * (frames_NTW.shape[1] - 1)
        folded = F.fold(
            frames_NTW.transpose(1, 2),
            output_size=(1, length),
            kernel_size=(1, self.n_fft),
            stride=(1, self.hop),
        )
        return folded[:, 0, 0]

    def _least(self, window_W: Tensor) -> float:
        """Return the least sum of squared windows from the centre of a frame to that of the next."""
        squares_W = F.pad(window_W.square(), (self.hop, self.hop))
        after = self.hop + self.n_fft // 2  # place of the first centre; the next window is `hop` on
        both = squares_W[after : after + self.hop] + squares_W[after - self.hop : after]
        return float(both.min().clamp(max=1.0))


def _cut(wav_NS: Tensor, start: int, samples: int) -> Tensor:
    """Return ``samples`` samples from ``start`` on, zeros where there are none."""
    missing = max(0, start + samples - wav_NS.shape[1])
    return F.pad(wav_NS, (0, missing))[:, start : start + samples]


def match_frames(features_BTD: Tensor, lengths_B: Tensor, wanted_B: Tensor) -> Tensor:
    """Return features with the frames of a transform, cut or filled up with zeros.

    Args:
        features_BTD: padded frames of an upstream.
        lengths_B: valid frames of each item.
        wanted_B: frames of each item's transform.

    Returns:
        (B, max(wanted), D).

    Raises:
        ItemError: an item whose numbers differ by 5 or more.
    """
    apart_B = (lengths_B - wanted_B.to(lengths_B.device)).abs()
    if int(apart_B.max()) >= TOLERANCE:
        worst = int(apart_B.argmax())
        raise ItemError(
            f"item {worst} has {int(lengths_B[worst])} frames of features but "
            f"{int(wanted_B[worst])} of the transform: the upstream's stride is not what it says"
        )
    features_BTD = without_padding(features_BTD, lengths_B.to(features_BTD.device))
    return F.pad(features_BTD, (0, 0, 0, int(wanted_B.max()) - features_BTD.shape[1]))


class OnTransform(nn.Module):
    """A head that is given as many frames as a transform has.

    Args:
        head: takes (features, lengths).
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features_BTD: Tensor, lengths_B: Tensor, wanted_B: Tensor) -> Tensor:
        """Return what the head gives for the matched frames.

        Args:
            features_BTD: padded frames of an upstream.
            lengths_B: valid frames of each item.
            wanted_B: frames of each item's transform.

        Raises:
            ItemError: as :func:`match_frames`.
        """
        out: Tensor = self.head(match_frames(features_BTD, lengths_B, wanted_B), wanted_B)
        return out


def without_burst(wav_S: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a signal without a burst at its end, as s3prl's ``postprocess`` removes it.

    Of the last 512 samples up to the last one that is not zero, the first that is louder than all
    before those 512 is set to zero with all that follow. A signal that ends in more than 2048 zeros,
    or has nothing before those 512 samples, stays as it is.
    """
    sounding = np.flatnonzero(wav_S)
    if not len(sounding):
        return wav_S
    end = int(sounding[-1]) + 1
    start = end - _WINDOW
    if end < len(wav_S) - _TAIL or start <= 0:
        return wav_S
    louder = np.flatnonzero(np.abs(wav_S[start:end]) > np.abs(wav_S[:start]).max())
    if not len(louder):
        return wav_S
    kept = wav_S.copy()
    kept[start + int(louder[0]) :] = 0.0
    return kept
