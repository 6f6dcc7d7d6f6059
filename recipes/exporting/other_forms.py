"""Plain forms of the families without a Transformer.

Shape suffixes: S samples, T frames, D width, C channels, W width of a state, M mel bins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.recipes.exporting import recurrent, signal
from mynah.recipes.exporting.form import MelFrames, Plain
from mynah.upstream.apc import Apc
from mynah.upstream.core import mel
from mynah.upstream.core.aggregator import Extractor
from mynah.upstream.core.audiontt import Block
from mynah.upstream.core.clips import ClipUpstream
from mynah.upstream.core.cpc_encoder import SHORTEST, MelEncoder, WaveEncoder
from mynah.upstream.core.framenorm import on_frames
from mynah.upstream.core.views import RunningNorm
from mynah.upstream.cpc import Cpc
from mynah.upstream.fbank import Fbank
from mynah.upstream.npc import Npc
from mynah.upstream.wav2vec import Wav2Vec


class PlainApc(Plain):
    """APC and VQ-APC, whose states come before the codes."""

    shortest = mel.WIDTH

    def __init__(self, model: Apc) -> None:
        super().__init__()
        self.front = MelFrames(model.front, model.config.stack)
        self.layers = model.layers

    def forward(self, wav_1S: Tensor) -> Tensor:
        """Return the states (L, T, D)."""
        x_TD = self.front(wav_1S[0])
        states: list[Tensor] = []
        for layer in self.layers:
            assert isinstance(layer, nn.GRU)
            y_TD = recurrent.run(layer, x_TD)
            x_TD = y_TD + x_TD if states else y_TD
            states.append(x_TD)
        return torch.stack(states)


class PlainCpc(Plain):
    """CPC: the encoded frames and the context."""

    def __init__(self, model: Cpc) -> None:
        super().__init__()
        self.encoder, self.context, self.dim = model.encoder, model.context, model.dim
        self.front: MelFrames | None = None
        self.shortest = SHORTEST
        if isinstance(model.encoder, MelEncoder):
            self.front = MelFrames(model.encoder.fbank, model.encoder.stack)
            self.shortest = mel.WIDTH

    def forward(self, wav_1S: Tensor) -> Tensor:
        """Return the states (L, T, D)."""
        z_TC = self._encoded(wav_1S)
        states = (z_TC, recurrent.run(self.context, z_TC))
        return torch.stack([F.pad(x_TW, (0, self.dim - x_TW.shape[1])) for x_TW in states])

    def _encoded(self, wav_1S: Tensor) -> Tensor:
        if isinstance(self.encoder, WaveEncoder):
            x_1TC = wav_1S[..., None]
            for conv, norm in zip(self.encoder.convs, self.encoder.norms, strict=True):
                x_1TC = conv(x_1TC.transpose(1, 2)).transpose(1, 2)
                x_1TC = on_frames(norm, x_1TC, None).relu()
            return x_1TC[0]
        assert self.front is not None
        x_TC: Tensor = self.front(wav_1S[0])
        for linear, norm in zip(self.encoder.linears, self.encoder.norms, strict=True):
            x_TC = norm(linear(x_TC)).relu()
        return x_TC


class PlainWav2Vec(Plain):
    """wav2vec: the extractor's frames and each layer of the context network."""

    def __init__(self, model: Wav2Vec) -> None:
        super().__init__()
        extractor: Extractor = model.extractor
        self.front: MelFrames | None = None
        self.shortest = extractor.width
        if extractor.fbank is not None:
            self.front = MelFrames(extractor.fbank, extractor.stack)
            # so many samples that the stacked frames are as many as the first frame sees
            least = (extractor.width - 1) * extractor.stack
            self.shortest = mel.WIDTH + least * mel.STRIDE
        self.extractor, self.aggregator = extractor, model.aggregator

    def forward(self, wav_1S: Tensor) -> Tensor:
        """Return the states (L, T, D)."""
        x_1CT = wav_1S[None] if self.front is None else self.front(wav_1S[0]).T[None]
        for layer in self.extractor.convs:
            x_1CT = layer(x_1CT, None)
        x_1CT = self.extractor.compress(x_1CT)
        states = [x_1CT]
        for layer in self.aggregator.convs:
            before_1CK = x_1CT[:, :, :1].expand(-1, -1, layer.conv.kernel_size[0] - 1)
            if self.aggregator.zero_pad:
                before_1CK = signal.zeros(before_1CK)
            y_1CT = layer(torch.cat([before_1CK, x_1CT], dim=2), None)
            x_1CT = (y_1CT + x_1CT) * self.aggregator.scale if self.aggregator.skip else y_1CT
            states.append(x_1CT)
        return torch.cat(states).transpose(1, 2)


class PlainFbank(Plain):
    """Filterbanks with their slopes."""

    shortest = mel.WIDTH

    def __init__(self, model: Fbank) -> None:
        super().__init__()
        self.front = signal.Fbank(model.front)
        self.order, self.cmvn = model.config.deltas, model.config.cmvn

    def forward(self, wav_1S: Tensor) -> Tensor:
        """Return the states (L, T, D)."""
        x_TD = signal.with_deltas(self.front(wav_1S[0]), self.order)
        return (signal.cmvn(x_TD) if self.cmvn else x_TD)[None]


class PlainNpc(Plain):
    """NPC: each block, its masked convolution, and their sum."""

    shortest = mel.WIDTH

    def __init__(self, model: Npc) -> None:
        super().__init__()
        self.front = MelFrames(model.front, model.config.stack)
        self.blocks, self.masked = model.blocks, model.masked

    def forward(self, wav_1S: Tensor) -> Tensor:
        """Return the states (L, T, D)."""
        x_1TD = self.front(wav_1S[0])[None]
        states, sums = [], []
        for block, masked in zip(self.blocks, self.masked, strict=True):
            x_1TD = block(x_1TD, None)
            sums.append(masked(x_1TD))
            states += [x_1TD, sums[-1]]
        return torch.cat([*states, torch.stack(sums).sum(dim=0)])


class PlainClips(Plain):
    """BYOL-A and DeLoRes: states at several rates, each repeated to the finest."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: ClipUpstream) -> None:
        super().__init__()
        self.front = signal.LogMel(model.front)
        self.running = isinstance(model.norm, RunningNorm)
        if isinstance(model.norm, RunningNorm):
            std = model.norm.variance.sqrt().clamp_min(torch.finfo(torch.float32).eps)
            self.register_buffer("mean", model.norm.mean.clone())
            self.register_buffer("std", std)
        self.encoder, self.dim = model.encoder, model.dim
        frames = model.encoder.strides[-1]  # of the spectrogram, at least
        self.shortest = max(self.front.shortest, (frames - 1) * mel.STRIDE)
        self.two = max(self.front.shortest, (2 * frames - 1) * mel.STRIDE)

    def forward(self, wav_1S: Tensor) -> Tensor:
        """Return the states (L, T, D)."""
        x_TM = self.front(wav_1S[0])
        x_TM = (x_TM - self.mean) / self.std if self.running else signal.cmvn(x_TM)
        strides = self.encoder.strides
        states: list[Tensor] = []
        for state_TW, stride in zip(self._encoded(x_TM), strides, strict=True):
            times, x_TW = stride // strides[0], state_TW
            if times > 1:
                source_T = signal.positions(states[0]).div(times, rounding_mode="floor")
                x_TW = x_TW[source_T.minimum(signal.positions(x_TW)[-1])]
            states.append(F.pad(x_TW, (0, self.dim - x_TW.shape[1])))
        return torch.stack(states)

    def _encoded(self, x_TM: Tensor) -> list[Tensor]:
        """Return the encoder's states, each (T', W)."""
        x_1CMT = x_TM.T[None, None]
        states = []
        for block in self.encoder.blocks:
            assert isinstance(block, Block)
            x_1CMT = F.relu(block.norm(block.conv(x_1CMT)))
            x_1CMT = _pooled(_pooled(x_1CMT, block.pool).transpose(2, 3), 2).transpose(2, 3)
            states.append(x_1CMT[0].permute(2, 1, 0).flatten(1))
        hidden_TD = F.relu(self.encoder.fc1(states[-1]))
        return [*states, F.relu(self.encoder.fc2(hidden_TD))]


def _pooled(x: Tensor, size: int) -> Tensor:
    """Return the maximum of each ``size`` entries of the last axis; what is left over is dropped.

    Max pooling as torch records it keeps whether the example's length was a multiple.
    """
    parts = [x[..., first::size] for first in range(size)]
    most = parts[0][..., : parts[-1].shape[-1]]
    for part in parts[1:]:
        most = most.maximum(part[..., : parts[-1].shape[-1]])
    return most
