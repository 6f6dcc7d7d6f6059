"""The excitation of speech: F0, voicing, noise; measured, and moved to another speaker's range.

WORLD (Morise et al. 2016, doi:10.1587/transinf.2015EDP7457) measures where it is installed (pyworld),
else librosa's pYIN, without the share of noise. WORLD's D4C takes every frame below about 16 kHz of
sampling rate for unvoiced, because its test of voicing looks at bands up to 7.9 kHz: its threshold is
0 here, so that F0 alone decides what is voiced.

Shape suffixes: S samples, T frames, F frequency bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mynah.downstream.core.melspec import MelSpec
from mynah.downstream.vocoders.core.contract import Prosody

F0_RANGE = (60.0, 500.0)
"""Hz in which F0 is looked for where nothing is known of the speaker."""


def has_world() -> bool:
    """Return whether pyworld is installed."""
    import importlib.util

    return importlib.util.find_spec("pyworld") is not None


def analyse_prosody(
    wav_S: Tensor, spec: MelSpec, *, f0_range: tuple[float, float] = F0_RANGE
) -> Prosody:
    """Return the excitation of a waveform at the frames of its spectrogram.

    Args:
        wav_S: (S,) at the spec's sample rate.
        spec: of the spectrogram.
        f0_range: lowest and highest F0 in Hz.

    Raises:
        ValueError: a range that is not 0 < low < high.
    """
    low, high = f0_range
    if not 0 < low < high:
        raise ValueError(f"F0 must lie in 0 < low < high, got {low:g} and {high:g} Hz")
    frames = spec.num_frames(len(wav_S))
    if not has_world():
        return Prosody(f0_T=torch.from_numpy(_pyin(wav_S, spec, low, high, frames)))
    import pyworld

    wave = _from_first_frame(wav_S, spec).astype(np.float64)
    period = 1000 * spec.hop / spec.sample_rate
    f0, times = pyworld.harvest(
        wave, spec.sample_rate, f0_floor=low, f0_ceil=high, frame_period=period
    )
    # below every value: at 8 kHz what D4C compares lies beyond the spectrum and may come out as 0
    noise = pyworld.d4c(wave, f0, times, spec.sample_rate, threshold=-1e9, fft_size=spec.n_fft)
    f0_T = _fitted(f0, frames)
    aperiodicity_TF = np.clip(_fitted(noise, frames), 0.0, 1.0)
    aperiodicity_TF[f0_T == 0] = 1.0
    return Prosody(
        f0_T=torch.from_numpy(f0_T).float(),
        aperiodicity_TF=torch.from_numpy(aperiodicity_TF).float(),
    )


def _from_first_frame(wav_S: Tensor, spec: MelSpec) -> NDArray[np.float32]:
    """Return a waveform from the middle of its first frame on: half a hop in, if not centred."""
    first = 0 if spec.centred else min(spec.hop // 2, len(wav_S) - 1)
    wave: NDArray[np.float32] = wav_S[first:].detach().cpu().numpy()
    return wave


def _fitted(rows: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """Return rows cut, or the last one repeated, to a number of frames."""
    return rows[np.minimum(np.arange(frames), len(rows) - 1)]


def _pyin(
    wav_S: Tensor, spec: MelSpec, low: float, high: float, frames: int
) -> NDArray[np.float32]:
    import librosa

    # two periods of the lowest pitch, and as many samples as librosa needs for it
    width = 2 ** math.ceil(math.log2(max(spec.window, 2.5 * spec.sample_rate / low)))
    f0, voiced, _ = librosa.pyin(
        _from_first_frame(wav_S, spec),
        fmin=low,
        fmax=high,
        sr=spec.sample_rate,
        frame_length=width,
        hop_length=spec.hop,
    )
    found = np.where(voiced, np.nan_to_num(f0), 0.0)
    return found[np.minimum(np.arange(frames), len(found) - 1)].astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class F0Stats:
    """Where a speaker's pitch lies.

    Attributes:
        mean: of log F0.
        deviation: of log F0.
        frames: voiced frames that were seen.
    """

    mean: float
    deviation: float
    frames: int

    @classmethod
    def of(cls, contours: Sequence[Tensor]) -> F0Stats | None:
        """Measure F0 contours (T,) of one speaker; None where fewer than 5 frames are voiced."""
        voiced = torch.cat([f0_T[f0_T > 0] for f0_T in contours]) if contours else torch.zeros(0)
        if len(voiced) < 5:
            return None
        logs = voiced.double().log()
        return cls(
            mean=float(logs.mean()),
            deviation=float(logs.std(unbiased=False)),
            frames=len(voiced),
        )

    @property
    def hertz(self) -> float:
        """The geometric mean of F0."""
        return math.exp(self.mean)


def move_f0(
    f0_T: Tensor,
    source: F0Stats | None,
    target: F0Stats | None,
    *,
    semitones: float = 0.0,
    median: int = 1,
) -> Tensor:
    """Map log F0 linearly to the target's mean and deviation, then shift it.

    The deviation's ratio is kept between 1/2 and 2: of a few seconds it is measured badly.

    Args:
        f0_T: Hz, 0 where unvoiced.
        source: of the speaker whose contour it is; without it, or a target's, only the shift is made.
        target: of the other one.
        semitones: added at the end.
        median: frames, odd, whose median takes the place of each voiced frame's F0, unvoiced ones
            left out: it takes away single octave jumps; 1 changes nothing.

    Raises:
        ValueError: a median of an even or negative number of frames.
    """
    if median < 1 or median % 2 == 0:
        raise ValueError(f"median must be an odd number of frames, got {median}")
    voiced_T = f0_T > 0
    if median > 1:
        f0_T = _median(f0_T, median)
    logs_T = f0_T.clamp(min=1.0).double().log()
    if source is not None and target is not None:
        ratio = target.deviation / source.deviation if source.deviation > 1e-4 else 1.0
        logs_T = (logs_T - source.mean) * min(2.0, max(0.5, ratio)) + target.mean
    moved_T = (logs_T + semitones * math.log(2) / 12).exp()
    return torch.where(voiced_T, moved_T, torch.zeros_like(moved_T)).to(f0_T.dtype)


def _median(f0_T: Tensor, frames: int) -> Tensor:
    """Return F0 with each voiced frame's replaced by the median of the voiced ones around it."""
    side = frames // 2
    known_T = torch.where(f0_T > 0, f0_T, torch.full_like(f0_T, math.nan))
    around_TK = torch.nn.functional.pad(known_T, (side, side), value=math.nan).unfold(0, frames, 1)
    return torch.where(f0_T > 0, around_TK.nanmedian(dim=1).values, f0_T)
