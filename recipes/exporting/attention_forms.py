"""Plain forms of the families with a Transformer.

Shape suffixes: S samples, T frames, D width, C channels, P pieces of an utterance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.recipes.exporting import signal
from mynah.recipes.exporting.form import MelFrames, Plain
from mynah.upstream.autoencoder import Autoencoder
from mynah.upstream.core.frames import FrameTransformer
from mynah.upstream.core.frontend import MelFrontend, WaveFrontend
from mynah.upstream.core.transformer import Encoder
from mynah.upstream.distilhubert import Distilhubert
from mynah.upstream.mockingjay import Mockingjay, positions


class WaveFrames(nn.Module):
    """wav2vec 2.0's convolutions, after the waveform's own normalisation if there is one."""

    def __init__(self, front: WaveFrontend) -> None:
        super().__init__()
        self.conv = front.conv
        self.shortest = front.conv.width
        self.eps = front.normalize_eps if front.normalize else None

    def forward(self, wav_S: Tensor) -> Tensor:
        """Return the frames (T, C)."""
        if self.eps is not None:
            wav_S = wav_S - wav_S.mean()
            wav_S = wav_S * (wav_S.square().mean() + self.eps).rsqrt()
        x_1CT = wav_S[None, None]
        for block in self.conv:
            x_1CT = block(x_1CT)
        return x_1CT[0].T


def _attended(encoder: Encoder, x_TD: Tensor) -> list[Tensor]:
    """Return the encoder's hidden states, each (1, T, D)."""
    place_T = signal.positions(x_TD)
    distance_1TT = (place_T - place_T[:, None])[None]
    return encoder.attend(encoder.place(x_TD[None]), distance_BTT=distance_1TT)


class PlainTransformer(Plain):
    """Every family that is a front-end and a Transformer, and what some add."""

    def __init__(self, model: FrameTransformer) -> None:
        super().__init__()
        front = model.frontend
        self.raw: MelFrames | WaveFrames
        if isinstance(front, MelFrontend):
            self.raw = MelFrames(front.fbank, front.stack)
        else:
            assert isinstance(front, WaveFrontend)
            self.raw = WaveFrames(front)
        self.shortest = self.raw.shortest
        self.norm, self.proj = front.norm, front.proj
        self.encoder = model.encoder

    def projected(self, wav_1S: Tensor) -> Tensor:
        """Return the encoder's input (T, D)."""
        x_TD: Tensor = self.proj(self.norm(self.raw(wav_1S[0])))
        return x_TD

    def forward(self, wav_1S: Tensor) -> Tensor:
        """Return the states (L, T, D)."""
        return torch.cat(_attended(self.encoder, self.projected(wav_1S)))


class PlainDistilled(PlainTransformer):
    """DistilHuBERT: the projected frames, the layers, and what each head predicts."""

    def __init__(self, model: Distilhubert) -> None:
        super().__init__(model)
        self.heads = model.shown
        if self.heads:
            self.widen = model.widen
            self.heads_HDE, self.heads_bias_HE = model.heads_HDE, model.heads_bias_HE

    def forward(self, wav_1S: Tensor) -> Tensor:
        """Return the states (L, T, D)."""
        x_TD = self.projected(wav_1S)
        states = [x_TD[None], *_attended(self.encoder, x_TD)[1:]]
        if self.heads:
            wide_1TX = F.gelu(self.widen(states[-1]))
            for wide, weight, bias in zip(
                wide_1TX.chunk(self.heads, dim=2), self.heads_HDE, self.heads_bias_HE, strict=True
            ):
                states.append(wide @ weight + bias)
        return torch.cat(states)


class PlainEncoded(PlainTransformer):
    """The auto-encoders: the layers, and what the decoder reads where there is a bottleneck."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__(model)
        self.bottleneck: nn.Sequential | None = None
        if model.code is not None:
            latent = model.config.latent
            mean = nn.Linear(model.dim, latent)  # a variational one's deviations are left out
            mean.weight = nn.Parameter(model.code.weight.detach()[:latent].clone())
            mean.bias = nn.Parameter(model.code.bias.detach()[:latent].clone())
            self.bottleneck = nn.Sequential(mean, model.expand)

    def forward(self, wav_1S: Tensor) -> Tensor:
        """Return the states (L, T, D)."""
        states = _attended(self.encoder, self.projected(wav_1S))
        if self.bottleneck is not None:
            states.append(self.bottleneck(states[-1]))
        return torch.cat(states)


class PlainMockingjay(Plain):
    """Longer utterances than the model sees at once are cut into equal pieces where a recording can.

    A trace can, for it records the arithmetic of lengths; a symbolic recording would have to prove
    it and is limited to one piece.
    """

    table_TD: Tensor

    def __init__(self, model: Mockingjay) -> None:
        super().__init__()
        self.front = signal.LogSpectrogram(model.front)
        self.factor = model.config.stack
        self.proj, self.encoder = model.proj, model.encoder
        self.shortest = self.front.shortest
        self.most = model.config.max_frames
        self.longest = self.most * model.stride - 1
        # added to every piece: a longer one does not fit, so it is refused and not misheard
        table_TD = torch.zeros(self.most, 1)
        if model.config.position == "sinusoid":
            table_TD = positions(self.most, model.dim, torch.device("cpu"))
        self.register_buffer("table_TD", table_TD)

    def forward(self, wav_1S: Tensor) -> Tensor:
        """Return the states (L, T, D)."""
        x_TD = self.proj(signal.stack(signal.cmvn(self.front(wav_1S[0])), self.factor))
        frames = x_TD.shape[0]
        if not torch.jit.is_tracing():  # type: ignore[attr-defined]  # it is documented
            return torch.cat(_attended(self.encoder, x_TD + self.table_TD[:frames]))
        pieces = (frames + self.most - 1) // self.most
        size = (frames + pieces - 1) // pieces
        rest = (0, pieces * size - frames)
        x_PTD = F.pad(x_TD, (0, 0, *rest)).unflatten(0, (pieces, size)) + self.table_TD[:size]
        own_T = signal.zeros(x_TD[:, 0]) + 1.0
        own_PT = F.pad(own_T, rest).unflatten(0, (pieces, size)) > 0.0
        states = self.encoder(x_PTD, own_PT)
        return torch.stack([x_PTD.flatten(0, 1)[:frames] for x_PTD in states])
