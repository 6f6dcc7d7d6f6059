"""Log-mel spectrograms of waveforms of one length, as BYOL-A and DeLoRes take them.

A centred STFT with reflected edges and a periodic Hann window, a frame per 10 ms, power, triangular
mel filters, log(energy + 1.2e-7). With ``htk`` filters equal to torchaudio's ``MelSpectrogram``
(BYOL-A), with ``slaney`` filters to librosa's (DeLoRes).

Shape suffixes: B batch, S samples, T frames, K samples of a window, F frequency bins, M mel bins.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.ragged import pieces

SAMPLE_RATE = 16000
STRIDE = 160  # samples between frames: 10 ms

# Windows transformed at once: about 2 MB of samples, which stay in a core's cache.
_CHUNK = {"cpu": 1 << 19}
_CHUNK_ACCELERATOR = 1 << 26
_FLOOR = torch.finfo(torch.float32).eps


class LogMel(nn.Module):
    """Waveforms to log-mel spectrograms; nothing to train.

    Args:
        num_mels: number of filters M.
        window: samples of a window, which is the size of the Fourier transform too; even.
        low: lower edge of the first filter, in Hz.
        high: upper edge of the last one, in Hz.
        scale: ``htk``: the mel scale 2595 log10(1 + f / 700), triangles of height 1; ``slaney``:
            linear below 1 kHz, logarithmic above, triangles of area 1.

    Raises:
        ValueError: an unknown scale, an odd window, or edges that are not 0 <= low < high <= 8000.
    """

    window_K: Tensor
    filters_FM: Tensor

    def __init__(
        self,
        *,
        num_mels: int,
        window: int,
        low: float,
        high: float,
        scale: Literal["htk", "slaney"],
    ) -> None:
        super().__init__()
        if window < 2 or window % 2:
            raise ValueError(f"window must be an even number of samples, got {window}")
        if not 0 <= low < high <= SAMPLE_RATE / 2:
            raise ValueError(f"edges must be 0 <= low < high <= 8000 Hz, got {low} and {high}")
        filters_FM = _triangles(num_mels, window, low, high, scale)
        self.register_buffer("window_K", torch.hann_window(window), persistent=False)
        self.register_buffer("filters_FM", filters_FM, persistent=False)

    @staticmethod
    def num_frames(n_samples: int) -> int:
        """Return the number of centred frames of ``n_samples``."""
        return 1 + n_samples // STRIDE

    @torch.no_grad()
    def forward(self, wav_BS: Tensor) -> Tensor:
        """Return the spectrograms (B, M, T), float32.

        A waveform that is too short to be reflected is zero-padded to half a window first.
        """
        width = len(self.window_K)
        half, frames = width // 2, self.num_frames(wav_BS.shape[1])
        wav_BS = wav_BS.to(self.window_K)
        wav_BS = F.pad(wav_BS, (0, max(0, half + 1 - wav_BS.shape[1])))
        padded_BS = F.pad(wav_BS[:, None], (half, half), mode="reflect")[:, 0]
        windows_BTK = padded_BS.unfold(1, width, STRIDE)[:, :frames]
        budget = _CHUNK.get(wav_BS.device.type, _CHUNK_ACCELERATOR)
        size = max(1, budget // (width * len(wav_BS)))
        parts = []
        with torch.autocast(wav_BS.device.type, enabled=False):
            for start, stop in pieces(frames, size=size):
                spectrum = torch.fft.rfft(windows_BTK[:, start:stop] * self.window_K)
                power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
                parts.append((power @ self.filters_FM).add_(_FLOOR).log_())
        return torch.cat(parts, dim=1).transpose(1, 2)


def _triangles(num_mels: int, window: int, low: float, high: float, scale: str) -> Tensor:
    """Return triangular filters (F, M), linear in Hz, their corners equally spaced in mel."""
    if scale == "htk":
        first, last = (2595 * math.log10(1 + hertz / 700) for hertz in (low, high))
        mels = torch.linspace(first, last, num_mels + 2, dtype=torch.float64)
        corners = 700 * (10 ** (mels / 2595) - 1)
    elif scale == "slaney":
        mels = torch.linspace(_to_slaney(low), _to_slaney(high), num_mels + 2, dtype=torch.float64)
        corners = _from_slaney(mels)
    else:
        raise ValueError(f"scale must be 'htk' or 'slaney', got {scale!r}")
    hertz_F1 = torch.linspace(0, SAMPLE_RATE / 2, window // 2 + 1, dtype=torch.float64)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    up, down = (hertz_F1 - left) / (centre - left), (right - hertz_F1) / (right - centre)
    filters_FM = torch.minimum(up, down).clamp(min=0)
    if scale == "slaney":
        filters_FM = filters_FM * (2 / (right - left))
    return filters_FM.float()


# Slaney's Auditory Toolbox: 200 / 3 Hz per mel up to 1 kHz, then 27 mels for each factor of 6.4
_BEND, _PER_MEL, _LOG_STEP = 15.0, 200 / 3, 27 / math.log(6.4)


def _to_slaney(hertz: float) -> float:
    return hertz / _PER_MEL if hertz < 1000 else _BEND + _LOG_STEP * math.log(hertz / 1000)


def _from_slaney(mels: Tensor) -> Tensor:
    above = 1000 * ((mels - _BEND) / _LOG_STEP).exp()
    return torch.where(mels < _BEND, mels * _PER_MEL, above)
