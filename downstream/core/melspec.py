"""The log-mel spectrogram between a converter and a vocoder: one description, held equal on both sides.

A vocoder that is fed another kind of spectrogram than it was made for changes pitch or speed, or makes
noise. So every converter and every vocoder carries a :class:`MelSpec`, and :func:`require_same` refuses
two that differ, field by field.

Shape suffixes: B batch, S samples, T frames, K samples of a transform, F frequency bins, M mel bins.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class MelSpec:
    """How a waveform becomes a log-mel spectrogram; the default is made for speech at 16 kHz.

    Attributes:
        sample_rate: Hz.
        n_fft: samples of a transform K; even.
        window: samples of the periodic Hann window, centred in the transform.
        hop: samples between frames.
        num_mels: number of filters M.
        low: lower edge of the first filter, in Hz.
        high: upper edge of the last one, in Hz.
        scale: ``slaney`` (librosa, HiFi-GAN) or ``htk`` (torchaudio, Vocos).
        area: whether filters have area 1 (librosa's ``norm="slaney"``) or height 1.
        power: of the magnitudes: 1 or 2.
        log: ``ln`` or ``log10``.
        floor: the least energy that is told apart, before the logarithm.
        centred: frames centred on multiples of the hop, 1 + S // hop of them, edges reflected by
            n_fft / 2; else by (n_fft - hop) / 2, S // hop of them (HiFi-GAN).

    Raises:
        ValueError: sizes that do not fit each other.
    """

    sample_rate: int = 16000
    n_fft: int = 1024
    window: int = 640
    hop: int = 160
    num_mels: int = 80
    low: float = 0.0
    high: float = 8000.0
    scale: Literal["slaney", "htk"] = "slaney"
    area: bool = True
    power: float = 1.0
    log: Literal["ln", "log10"] = "ln"
    floor: float = 1e-5
    centred: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.window <= self.n_fft or self.n_fft % 2:
            raise ValueError(
                "a spectrogram needs 0 < hop <= window <= n_fft with n_fft even, got "
                f"{self.hop}, {self.window}, {self.n_fft}"
            )
        if not 0 <= self.low < self.high <= self.sample_rate / 2:
            raise ValueError(
                f"edges must be 0 <= low < high <= {self.sample_rate / 2:g} Hz, got {self.low:g} and "
                f"{self.high:g}"
            )
        if self.num_mels < 1 or self.floor <= 0 or self.power not in (1.0, 2.0):
            raise ValueError("num_mels and floor must be above 0, power 1 or 2")

    def num_frames(self, n_samples: int) -> int:
        """Return the number of frames of ``n_samples`` >= 1, at least 1."""
        return 1 + n_samples // self.hop if self.centred else max(1, n_samples // self.hop)

    def centre(self, frame: int) -> float:
        """Return the middle of a frame's window, in seconds from the first sample."""
        return (frame + (0.0 if self.centred else 0.5)) * self.hop / self.sample_rate

    @property
    def silence(self) -> float:
        """The value of a bin without energy."""
        return math.log(self.floor) if self.log == "ln" else math.log10(self.floor)

    @property
    def nepers(self) -> float:
        """What a value is to be multiplied by to be the natural logarithm of a magnitude."""
        return (1.0 if self.log == "ln" else math.log(10.0)) / self.power


def require_same(one: MelSpec, other: MelSpec, *, names: tuple[str, str]) -> None:
    """Refuse two specs that differ.

    Args:
        one: a spec.
        other: another.
        names: who has them, for the message.

    Raises:
        ValueError: they differ; it lists every field with both values.
    """
    a, b = dataclasses.asdict(one), dataclasses.asdict(other)
    differing = [f"{key}: {a[key]} and {b[key]}" for key in a if a[key] != b[key]]
    if differing:
        raise ValueError(
            f"{names[0]} and {names[1]} speak of different spectrograms ({'; '.join(differing)}): "
            "use a vocoder made for this converter's, or train one of the two for the other"
        )


class LogMelSpectrogram(nn.Module):
    """Waveforms to log-mel spectrograms as a spec says; differentiable, nothing to train."""

    window_K: Tensor
    filters_FM: Tensor

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        self.spec = spec
        # a zero's gradient is finite with it: HiFi-GAN's, or what a lower floor does not see
        self._addend = 1e-9 if spec.floor >= 1e-5 else 1e-24
        side = (spec.n_fft - spec.window) // 2
        window_K = F.pad(torch.hann_window(spec.window), (side, spec.n_fft - spec.window - side))
        self.register_buffer("window_K", window_K, persistent=False)
        self.register_buffer("filters_FM", mel_filters(spec), persistent=False)

    def magnitudes(self, wav_BS: Tensor) -> Tensor:
        """Return the linear magnitudes (B, T, F) of waveforms of one length."""
        spec = self.spec
        n_samples = wav_BS.shape[1]
        frames = spec.num_frames(n_samples)
        before = spec.n_fft // 2 if spec.centred else (spec.n_fft - spec.hop) // 2
        after = max(before, (frames - 1) * spec.hop + spec.n_fft - before - n_samples)
        # what is too short to be reflected is lengthened by silence first
        wav_BS = F.pad(wav_BS, (0, max(0, max(before, after) + 1 - n_samples)))
        after = max(0, after - (wav_BS.shape[1] - n_samples))
        # as F.pad's "reflect", whose gradient on a GPU gives other bits each time
        edges = [wav_BS[:, 1 : before + 1].flip(1), wav_BS]
        edges.append(wav_BS[:, wav_BS.shape[1] - after - 1 : -1].flip(1))
        windows_BTK = torch.cat(edges, dim=1).unfold(1, spec.n_fft, spec.hop)[:, :frames]
        spectrum_BTF = torch.fft.rfft(windows_BTK * self.window_K)
        power_BTF = spectrum_BTF.real.square() + spectrum_BTF.imag.square() + self._addend
        magnitudes_BTF: Tensor = power_BTF.sqrt()
        return magnitudes_BTF

    def forward(self, wav_BS: Tensor) -> Tensor:
        """Return the spectrograms (B, T, M) of waveforms of one length, float32."""
        with torch.autocast(wav_BS.device.type, enabled=False):
            energy_BTF = self.magnitudes(wav_BS.float())
            if self.spec.power == 2.0:
                energy_BTF = energy_BTF.square()
            mel_BTM = (energy_BTF @ self.filters_FM).clamp(min=self.spec.floor)
            return mel_BTM.log() if self.spec.log == "ln" else mel_BTM.log10()

    def energies(self, mel_TM: Tensor) -> Tensor:
        """Undo the logarithm: return filter energies of any shape (..., M)."""
        return mel_TM.exp() if self.spec.log == "ln" else 10.0**mel_TM


def mel_filters(spec: MelSpec) -> Tensor:
    """Return triangular filters (F, M), linear in Hz, their corners equally spaced in mel."""
    edges = torch.tensor([spec.low, spec.high], dtype=torch.float64)
    first, last = (float(x) for x in _to_mel(edges, spec.scale))
    corners = _to_hertz(
        torch.linspace(first, last, spec.num_mels + 2, dtype=torch.float64), spec.scale
    )
    bins = spec.n_fft // 2 + 1
    hertz_F1 = torch.linspace(0, spec.sample_rate / 2, bins, dtype=torch.float64)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    up, down = (hertz_F1 - left) / (centre - left), (right - hertz_F1) / (right - centre)
    filters_FM = torch.minimum(up, down).clamp(min=0)
    if spec.area:
        filters_FM = filters_FM * (2 / (right - left))
    return filters_FM.float()


# Slaney's Auditory Toolbox: 200 / 3 Hz per mel up to 1 kHz, then 27 mels for each factor of 6.4
_BEND, _PER_MEL, _LOG_STEP = 15.0, 200 / 3, 27 / math.log(6.4)


def _to_mel(hertz: Tensor, scale: str) -> Tensor:
    if scale == "htk":
        return 2595 * torch.log10(1 + hertz / 700)
    above = _BEND + _LOG_STEP * (hertz.clamp(min=1.0) / 1000).log()
    return torch.where(hertz < 1000, hertz / _PER_MEL, above)


def _to_hertz(mels: Tensor, scale: str) -> Tensor:
    if scale == "htk":
        return 700 * (10 ** (mels / 2595) - 1)
    return torch.where(mels < _BEND, mels * _PER_MEL, 1000 * ((mels - _BEND) / _LOG_STEP).exp())
