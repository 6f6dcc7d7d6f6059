"""How a converter hears: a waveform's log-mel spectrogram, and that or an upstream's features as input.

Upstreams have their own rate and stride; their features are brought to the spectrogram's frames by
taking the nearest one (s3prl's a2o-vc does the same).

Shape suffixes: S samples, L layers, T frames, D width, M mel bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr
import torch
from torch import Tensor

from mynah.downstream.conversion.core.contract import Heard
from mynah.downstream.core.melspec import LogMelSpectrogram, MelSpec
from mynah.upstream.core.contract import Upstream


@dataclass(frozen=True, kw_only=True)
class Input:
    """What content is read from.

    Attributes:
        upstream: frozen; None for the log-mel spectrogram itself.
        layer: hidden state that is read, negative ones from the last; None for their mean, each
            layer-normed first, which is the featurizer's weighted sum before it is trained.
    """

    upstream: Upstream | None = None
    layer: int | None = -1


class Hearing:
    """Waveforms to what a converter hears.

    Attributes:
        spec: of the spectrograms; waveforms have its sample rate.
        dim: width D of the input frames.

    Args:
        spec: see above.
        source: what content is read from.

    Raises:
        ValueError: an upstream that is not frozen, or a layer that it lacks.
    """

    def __init__(self, spec: MelSpec, source: Input) -> None:
        self.spec = spec
        self.source = source
        self.mel = LogMelSpectrogram(spec)
        self.dim = spec.num_mels
        if source.upstream is not None:
            layers = source.upstream.num_layers
            if not source.upstream.frozen:
                raise ValueError("a converter listens through a frozen upstream: freeze it first")
            if source.layer is not None and not -layers <= source.layer < layers:
                raise ValueError(
                    f"layer must be between {-layers} and {layers - 1}, got {source.layer}"
                )
            self.dim = source.upstream.dim

    def to(self, device: torch.device) -> Hearing:
        """Move what is computed with to a device; returns itself."""
        self.mel.to(device)
        if self.source.upstream is not None:
            self.source.upstream.to(device)
        return self

    @torch.no_grad()
    def __call__(
        self, wavs: Sequence[Tensor], *, inputs: Sequence[Tensor] | None = None
    ) -> list[Heard]:
        """Return what is heard of waveforms.

        Args:
            wavs: 1-D float32 at the spec's sample rate, each with at least one sample.
            inputs: waveforms of the same lengths from which content is read instead, such as noisy
                ones.
        """
        mels = [self.mel(wav_S[None])[0] for wav_S in wavs]
        heard_from = wavs if inputs is None else inputs
        if self.source.upstream is None:
            xs = mels if inputs is None else [self.mel(wav_S[None])[0] for wav_S in inputs]
        else:
            xs = self._features(heard_from, [len(mel_TM) for mel_TM in mels])
        return [Heard(x_TD=x_TD, mel_TM=mel_TM) for x_TD, mel_TM in zip(xs, mels, strict=True)]

    def _features(self, wavs: Sequence[Tensor], frames: Sequence[int]) -> list[Tensor]:
        upstream = self.source.upstream
        assert upstream is not None
        wavs = [self._at(wav_S, upstream.sample_rate) for wav_S in wavs]
        counts = [upstream.num_frames(len(wav_S)) for wav_S in wavs]
        states_ND = self._chosen(upstream, wavs)
        ratio = self.spec.hop / self.spec.sample_rate * upstream.sample_rate / upstream.stride
        out = []
        for part_TD, count in zip(states_ND.split(counts), frames, strict=True):
            nearest_T = (torch.arange(count, dtype=torch.float64) * ratio).floor().long()
            out.append(part_TD[nearest_T.clamp(max=len(part_TD) - 1).to(part_TD.device)])
        return out

    def _chosen(self, upstream: Upstream, wavs: Sequence[Tensor]) -> Tensor:
        wanted = self.source.layer
        if wanted is not None:
            wanted %= upstream.num_layers
        total: Tensor | None = None
        for layer, states_ND in enumerate(upstream.hidden_states(wavs)):
            if layer == wanted:
                return states_ND.float()
            if wanted is None:
                normed_ND = torch.nn.functional.layer_norm(states_ND.float(), (upstream.dim,))
                total = normed_ND if total is None else total + normed_ND
        assert total is not None
        return total / upstream.num_layers

    def _at(self, wav_S: Tensor, sample_rate: int) -> Tensor:
        if sample_rate == self.spec.sample_rate:
            return wav_S
        moved = soxr.resample(
            wav_S.cpu().numpy().astype(np.float32), self.spec.sample_rate, sample_rate
        )
        return torch.from_numpy(np.ascontiguousarray(moved)).to(wav_S.device)
