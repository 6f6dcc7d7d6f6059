"""Log-mel front-ends over ragged batches: nothing is padded, every frame is computed once.

Waveforms of any lengths go in as a list; their frames come out laid end to end with the number of
frames of each utterance. All frames share one framing, one FFT and one matrix product, in chunks
of bounded size, so that the cost is linear in the audio and the working memory does not grow with
the length of an utterance.

Two front-ends:

* :class:`KaldiFbank`: Kaldi's ``compute-fbank-feats`` (25 ms / 10 ms, ``snip_edges``, no dither) as
  :func:`torchaudio.compliance.kaldi.fbank` computes it from waveforms in [-1, 1];
* :class:`LogSpectrogram`: the centred STFT of Mockingjay, TERA and AudioALBERT (s3prl's ``mel``
  and ``linear`` features), on a waveform scaled to a fixed loudness.

Deltas, normalisation and stacking are functions over the same ragged layout.

Shape suffixes: N frames of the whole batch laid end to end, S samples, K samples of a window,
F frequency bins, M mel bins, D feature width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.upstream.core.select import counted

SAMPLE_RATE = 16000
WIDTH = 400  # samples of a window: 25 ms
STRIDE = 160  # samples between frames: 10 ms

# Frames computed at once: about 2 MB of windows, which stay in a core's cache.
_CHUNK = {"cpu": 1024}
_CHUNK_ACCELERATOR = 1 << 16
_LOG_FLOOR = torch.finfo(torch.float32).eps  # Kaldi's floor of a filter's energy
_NO_VARIATION = 1e-5  # a standard deviation of log energy below this is rounding noise

Counts = Sequence[int]


class KaldiFbank(nn.Module):
    """Kaldi log-mel filterbanks, equal to ``torchaudio.compliance.kaldi.fbank`` to about 1e-6.

    Per window: subtract the mean, pre-emphasis 0.97, window, FFT of 512, power, triangles equally
    spaced on the mel scale 1127 ln(1 + f/700) between 20 Hz and 8 kHz, log. An utterance shorter
    than a window is zero-padded to exactly one.

    Args:
        num_mels: number of filters.
        window: ``povey`` (Kaldi's default) or ``hamming``.
    """

    window_K: Tensor
    filters_FM: Tensor

    def __init__(
        self, *, num_mels: int = 80, window: Literal["povey", "hamming"] = "povey"
    ) -> None:
        super().__init__()
        if window == "povey":
            window_K = torch.hann_window(WIDTH, periodic=False).pow(0.85)
        elif window == "hamming":
            window_K = torch.hamming_window(WIDTH, periodic=False)
        else:
            raise ValueError(f"window must be 'povey' or 'hamming', got {window!r}")
        self.num_mels = num_mels
        self.register_buffer("window_K", window_K, persistent=False)
        self.register_buffer("filters_FM", _kaldi_filters(num_mels, 512), persistent=False)

    @staticmethod
    def num_frames(n_samples: int) -> int:
        """Return how many windows fit into ``n_samples`` (at least one)."""
        return 1 + max(0, n_samples - WIDTH) // STRIDE

    @torch.no_grad()
    def forward(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return the features (N, M) of 1-D waveforms and the number of frames of each."""
        wavs = [_waveform(wav, self.window_K) for wav in wavs]
        counts = [self.num_frames(len(wav)) for wav in wavs]
        wavs = [F.pad(wav, (0, WIDTH - len(wav))) if len(wav) < WIDTH else wav for wav in wavs]
        parts = []
        with torch.autocast(self.window_K.device.type, enabled=False):
            for frames_NK in _framed(wavs, counts):
                # With the mean m removed, x_t - 0.97 x_{t-1} becomes x_t - 0.97 x_{t-1} - 0.03 m.
                buffer = frames_NK.new_zeros(len(frames_NK), 512)
                emphasised_NK = buffer[:, :WIDTH]
                torch.sub(frames_NK[:, 1:], frames_NK[:, :-1], alpha=0.97, out=emphasised_NK[:, 1:])
                emphasised_NK[:, 0] = 0.03 * frames_NK[:, 0]
                emphasised_NK -= 0.03 * frames_NK.mean(1, keepdim=True)
                emphasised_NK *= self.window_K
                energy_NM = _power(buffer) @ self.filters_FM
                parts.append(energy_NM.clamp_(min=_LOG_FLOOR).log_())
        return torch.cat(parts), counts


class LogSpectrogram(nn.Module):
    """Log power spectra of a centred STFT, as the Mockingjay family takes them.

    The waveform is scaled to a root mean square of ``level`` dBFS; frames are centred on multiples
    of 10 ms with reflected edges, Hann window of 25 ms, FFT of 400; ``log(power + 1e-10)`` of the
    201 linear bins or of ``num_mels`` HTK-mel triangles between 0 and 8 kHz. No normalisation:
    see :func:`cmvn`. Equal to s3prl's ``OnlinePreprocessor`` with ``log: True`` for every
    utterance that this can process (201 samples); shorter ones are zero-padded to that.

    Args:
        num_mels: number of mel filters.
        level: loudness in dB relative to full scale, or None to leave the waveform as it is.
    """

    window_K: Tensor
    filters_FM: Tensor
    num_linear = WIDTH // 2 + 1

    def __init__(self, *, num_mels: int = 80, level: float | None = -25.0) -> None:
        super().__init__()
        self.num_mels = num_mels
        self.level = level
        self.register_buffer("window_K", torch.hann_window(WIDTH), persistent=False)
        self.register_buffer("filters_FM", _htk_filters(num_mels), persistent=False)

    @staticmethod
    def num_frames(n_samples: int) -> int:
        """Return the number of centred frames of ``n_samples``."""
        return 1 + n_samples // STRIDE

    @torch.no_grad()
    def forward(
        self, wavs: Sequence[Tensor], *, linear: bool = False
    ) -> tuple[Tensor, Tensor | None, list[int]]:
        """Return log mel (N, M), log linear (N, 201) or None, and the number of frames of each.

        Args:
            wavs: 1-D waveforms.
            linear: whether to return the linear spectra too.
        """
        half = WIDTH // 2
        centred, counts = [], []
        for given in wavs:
            wav = _waveform(given, self.window_K)
            counts.append(self.num_frames(len(wav)))
            if self.level is not None:
                wav = wav * (10 ** (self.level / 20) / (wav.square().mean().sqrt() + 1e-10))
            if len(wav) <= half:
                wav = F.pad(wav, (0, half + 1 - len(wav)))
            centred.append(F.pad(wav[None], (half, half), mode="reflect")[0])
        mels, linears = [], []
        with torch.autocast(self.window_K.device.type, enabled=False):
            for frames_NK in _framed(centred, counts):
                power_NF = _power(frames_NK * self.window_K)
                mels.append((power_NF @ self.filters_FM).add_(1e-10).log_())
                if linear:
                    linears.append(power_NF.add_(1e-10).log_())
        return torch.cat(mels), torch.cat(linears) if linear else None, counts


def deltas(x_ND: Tensor, counts: Counts) -> Tensor:
    """Return the slope of each feature over five frames, utterance by utterance.

    d_t = (x_{t+1} - x_{t-1} + 2 (x_{t+2} - x_{t-2})) / 10, edges repeated: Kaldi's ``add-deltas``
    and :func:`torchaudio.functional.compute_deltas`.
    """
    counts_U = counted(counts, x_ND.device)
    last_N = torch.repeat_interleave(counts_U.cumsum(0) - 1, counts_U)
    first_N = torch.repeat_interleave(counts_U.cumsum(0) - counts_U, counts_U)
    here_N = torch.arange(len(x_ND), device=x_ND.device)

    def shifted(by: int) -> Tensor:
        return x_ND[torch.minimum(torch.maximum(here_N + by, first_N), last_N)]

    return (shifted(1) - shifted(-1) + 2 * (shifted(2) - shifted(-2))) / 10


def with_deltas(x_ND: Tensor, counts: Counts, *, order: int = 2) -> Tensor:
    """Return features, their deltas, the deltas of these ... side by side: (N, (order + 1) D)."""
    parts = [x_ND]
    for _ in range(order):
        parts.append(deltas(parts[-1], counts))
    return torch.cat(parts, dim=1)


def cmvn(x_ND: Tensor, counts: Counts) -> Tensor:
    """Normalise each feature to mean 0 and standard deviation 1 within each utterance.

    (x - mean) / (std + 1e-10) with the unbiased deviation. A feature that does not vary within an
    utterance (one frame, digital silence) becomes 0, where the formula would amplify rounding
    noise or divide 0 by 0.
    """
    out_ND = torch.empty_like(x_ND)
    for part, out in zip(x_ND.split(list(counts)), out_ND.split(list(counts)), strict=True):
        if len(part) == 1:
            out.zero_()
            continue
        variance_D, mean_D = torch.var_mean(part, dim=0)
        std_D = variance_D.sqrt_()
        scale_D = torch.where(std_D > _NO_VARIATION, 1 / (std_D + 1e-10), 0.0)
        torch.mul(part - mean_D, scale_D, out=out)
    return out_ND


def stack(x_ND: Tensor, counts: Counts, *, factor: int) -> tuple[Tensor, list[int]]:
    """Join ``factor`` consecutive frames of an utterance into one frame of ``factor`` times D.

    The last one is filled up with zeros, so an utterance of T frames has ceil(T / factor).
    """
    if factor == 1:
        return x_ND, list(counts)
    width = x_ND.shape[1]
    parts = []
    for part in x_ND.split(list(counts)):
        missing = -len(part) % factor
        full = F.pad(part, (0, 0, 0, missing)) if missing else part
        parts.append(full.reshape(-1, factor * width))
    return torch.cat(parts), [len(part) for part in parts]


def normalised(x_ND: Tensor, counts: Counts, *, factor: int) -> tuple[Tensor, list[int]]:
    """Return :func:`cmvn` features, then :func:`stack`, and the frames of each utterance."""
    return stack(cmvn(x_ND, counts), counts, factor=factor)


def stacked(frames: int, factor: int) -> int:
    """Return how many frames :func:`stack` makes of so many: ceil(frames / factor)."""
    return -(-frames // factor)


def _waveform(wav: Tensor, like: Tensor) -> Tensor:
    if wav.ndim != 1 or len(wav) < 1:
        raise ValueError(f"expected a 1-D waveform of at least one sample, got {tuple(wav.shape)}")
    return wav.to(device=like.device, dtype=like.dtype)


def _framed(wavs: Sequence[Tensor], counts: Counts) -> Iterator[Tensor]:
    """Yield the first ``counts`` windows of every waveform, end to end, in chunks (n, K)."""
    size = _CHUNK.get(wavs[0].device.type, _CHUNK_ACCELERATOR)
    pieces: list[Tensor] = []
    held = 0
    for wav, count in zip(wavs, counts, strict=True):
        windows = wav.unfold(0, WIDTH, STRIDE)[:count]
        while held + len(windows) >= size:
            yield torch.cat([*pieces, windows[: size - held]])
            windows = windows[size - held :]
            pieces, held = [], 0
        if len(windows):
            pieces.append(windows)
            held += len(windows)
    if pieces:
        yield torch.cat(pieces)


def _power(frames_NK: Tensor) -> Tensor:
    """Return the power spectrum (N, K / 2 + 1) of real frames."""
    spectrum_NF: Tensor = torch.fft.rfft(frames_NK)
    return spectrum_NF.real.square().addcmul_(spectrum_NF.imag, spectrum_NF.imag)


def _kaldi_filters(num_mels: int, n_fft: int) -> Tensor:
    """Return Kaldi's triangles (F, M): linear in mel, centres equally spaced in mel."""
    low, high = (1127 * math.log1p(f / 700) for f in (20.0, SAMPLE_RATE / 2))
    step = (high - low) / (num_mels + 1)
    left_M = low + step * torch.arange(num_mels, dtype=torch.float64)
    hertz_F = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * (SAMPLE_RATE / n_fft)
    distance_FM = (1127 * torch.log1p(hertz_F / 700)[:, None] - left_M) / step
    filters_FM = torch.minimum(distance_FM, 2 - distance_FM).clamp(min=0)
    filters_FM[-1] = 0  # Kaldi leaves the Nyquist bin out
    return filters_FM.float()


def _htk_filters(num_mels: int) -> Tensor:
    """Return HTK's triangles (F, M): linear in Hz, corners equally spaced in mel."""
    top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, top, num_mels + 2, dtype=torch.float64) / 2595) - 1)
    hertz_F1 = torch.linspace(0, SAMPLE_RATE / 2, WIDTH // 2 + 1, dtype=torch.float64)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    up, down = (hertz_F1 - left) / (centre - left), (right - hertz_F1) / (right - centre)
    return torch.minimum(up, down).clamp(min=0).float()
