"""``taco2_ar``: the any-to-one converter of SUPERB-SG's VC, one model for each target speaker.

S3PRL-VC (Huang et al. 2022, arXiv:2110.06280), recipe ``downstream/a2o-vc-vcc2020``: features of a
frozen upstream, brought to the spectrogram's frames, are read by a linear layer, convolutions and a
BLSTM (``taco2``) or by one linear layer (``ffn``); two LSTM layers with a projection write the target's
spectrogram, each frame from the one before (``ar``) or all at once. It is trained on recordings of the
target alone, so it says anything in that voice; references of another speaker change nothing.

The prenet's dropout is on at test too, as in Tacotron 2; its masks come from a seed, so that a
conversion can be repeated. The recipe's first previous frame is zeros that were not normalised;
repeated here. Its convolutions see the padding of a batch; here they do not.

Shape suffixes: B batch, T frames, D input width, H hidden, M mel bins, P prenet width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.downstream.conversion.core.blocks import mask_of
from mynah.downstream.conversion.core.contract import (
    ConversionBatch,
    Converter,
    Heard,
    Objective,
    Sizes,
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The recipe's sizes.

    Attributes:
        encoder: ``taco2`` or ``ffn``.
        ar: whether a frame is written from the one before.
        hidden: width H (``hidden_dim``).
        layers: LSTM layers of the decoder (``lstmp_layers``).
        dropout: after each of them (``lstmp_dropout_rate``).
        layer_norm: before that dropout (``lstmp_layernorm``).
        prenet: width P of the two layers that read the frame before.
        prenet_dropout: of each.
        seed: of the prenet's dropout at test.
        from_mean: whether the last layer begins at the target's mean spectrum. In the recipe it does
            not: log energies lie far from zero, and a small model gets there by driving its tanh to
            the ends, where nothing is learnt any more.
    """

    encoder: Literal["taco2", "ffn"] = "taco2"
    ar: bool = True
    hidden: int = 1024
    layers: int = 2
    dropout: float = 0.2
    layer_norm: bool = False
    prenet: int = 256
    prenet_dropout: float = 0.5
    seed: int = 0
    from_mean: bool = False

    def __post_init__(self) -> None:
        if min(self.hidden, self.layers, self.prenet) < 1 or self.hidden % 2:
            raise ValueError("hidden must be even, hidden, layers and prenet 1 or more")
        if not (0 <= self.dropout < 1 and 0 <= self.prenet_dropout < 1):
            raise ValueError("dropout and prenet_dropout must be in [0, 1)")


class Taco2Encoder(nn.Module):
    """Linear, three convolutions with batch norm, a BLSTM (Tacotron 2's encoder)."""

    def __init__(self, dim: int, hidden: int, *, channels: int = 512) -> None:
        super().__init__()
        self.input = nn.Linear(dim, channels)
        convs = [nn.Conv1d(channels, channels, 5, padding=2, bias=False) for _ in range(3)]
        for conv in convs:
            nn.init.xavier_uniform_(conv.weight, nn.init.calculate_gain("relu"))
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(3))
        self.blstm = nn.LSTM(channels, hidden // 2, batch_first=True, bidirectional=True)

    def forward(self, x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return (B, T, H); padding ends at zeros and is not read by the BLSTM."""
        mask_B1T = mask_of(lengths_B, x_BTD.shape[1])
        h_BCT = self.input(x_BTD).transpose(1, 2) * mask_B1T
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h_BCT = F.dropout(norm(conv(h_BCT)).relu(), 0.5, self.training) * mask_B1T
        packed = nn.utils.rnn.pack_padded_sequence(
            h_BCT.transpose(1, 2), lengths_B.cpu(), batch_first=True, enforce_sorted=False
        )
        found_BTH, _ = nn.utils.rnn.pad_packed_sequence(
            self.blstm(packed)[0], batch_first=True, total_length=x_BTD.shape[1]
        )
        return found_BTH


State = tuple[Tensor, Tensor]


class ProjectedLSTM(nn.Module):
    """An LSTM layer, optional layer norm, dropout, a linear layer, tanh.

    In the recipe's autoregressive cell what is projected, not the LSTM's own output, is the state that
    the next frame begins with (``step``, ``along``); in the other it is not (``forward``).
    """

    def __init__(self, dim: int, hidden: int, dropout: float, *, layer_norm: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, hidden, batch_first=True)
        self.norm = nn.LayerNorm(hidden) if layer_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(hidden, hidden)

    def forward(self, x_BTI: Tensor) -> Tensor:
        """Return the outputs (B, T, H) where the state is the LSTM's own."""
        return self._projected(self.lstm(x_BTI)[0])

    def step(self, x_BI: Tensor, state: State) -> State:
        """Return output, which is the state, and cell (B, H) of one frame more."""
        return self._step(self._gates(x_BI), state)

    def along(self, x_BTI: Tensor) -> Tensor:
        """Return the outputs (B, T, H) of frames that are all known: ``step`` from zeros, repeated.

        The inputs' part of the gates is one product for all frames.
        """
        gates_BT4 = self._gates(x_BTI)
        zeros = x_BTI.new_zeros(len(x_BTI), self.lstm.hidden_size)
        state: State = (zeros, zeros)
        out = []
        for gates_B4 in gates_BT4.unbind(1):
            state = self._step(gates_B4, state)
            out.append(state[0])
        return torch.stack(out, dim=1)

    def _gates(self, x: Tensor) -> Tensor:
        weight_4I, _, one_4, other_4 = self.lstm.all_weights[0]
        return F.linear(x, weight_4I, one_4 + other_4)

    def _step(self, gates_B4: Tensor, state: State) -> State:
        before_BH, cell_BH = state
        _, weight_4H, _, _ = self.lstm.all_weights[0]
        gates_B4 = torch.addmm(gates_B4, before_BH, weight_4H.T)
        let_in, keep, new, out = gates_B4.chunk(4, dim=1)
        cell_BH = keep.sigmoid() * cell_BH + let_in.sigmoid() * new.tanh()
        return self._projected(out.sigmoid() * cell_BH.tanh()), cell_BH

    def _projected(self, h: Tensor) -> Tensor:
        found: Tensor = self.project(self.dropout(self.norm(h))).tanh()
        return found


class Taco2AR(Converter):
    """Anybody's features to one speaker's spectrogram."""

    trained: ClassVar[bool] = True
    any_to_one: ClassVar[bool] = True
    config: Config
    mel_mean_M: Tensor
    mel_scale_M: Tensor

    def __init__(self, config: Config, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        mels, hidden = sizes.spec.num_mels, config.hidden
        self.register_buffer("mel_mean_M", torch.zeros(mels))
        self.register_buffer("mel_scale_M", torch.ones(mels))
        self.encoder: nn.Module = (
            Taco2Encoder(sizes.dim, hidden)
            if config.encoder == "taco2"
            else nn.Sequential(nn.Linear(sizes.dim, hidden), nn.ReLU())
        )
        self.prenet = nn.ModuleList(
            [nn.Linear(mels, config.prenet), nn.Linear(config.prenet, config.prenet)]
            if config.ar
            else []
        )
        first = hidden + (config.prenet if config.ar else 0)
        self.layers = nn.ModuleList(
            ProjectedLSTM(
                first if i == 0 else hidden,
                hidden,
                config.dropout,
                layer_norm=config.layer_norm,
            )
            for i in range(config.layers)
        )
        self.last = nn.Linear(hidden, mels)

    @property
    def code_dim(self) -> int:
        """Width H of the encoder's output."""
        return self.config.hidden

    @torch.no_grad()
    def normalise_by(self, heard: Sequence[Heard]) -> None:
        """Measure the target's spectrograms, once, before training.

        Raises:
            ValueError: nothing to measure.
        """
        if not heard:
            raise ValueError("there is nothing to measure the spectrograms' mean by")
        rows = torch.cat([h.mel_TM for h in heard])
        self.mel_mean_M.copy_(rows.mean(0))
        self.mel_scale_M.copy_(rows.std(0, unbiased=False).clamp(min=1e-5))
        if self.config.from_mean:
            self.last.bias.copy_(self.mel_mean_M)

    def states(self, x_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return the encoder's output (B, T, H)."""
        if self.config.encoder == "taco2":
            found_BTH: Tensor = self.encoder(x_BTD, lengths_B)
            return found_BTH
        return self.encoder(x_BTD)  # type: ignore[no-any-return]

    def write(
        self, states_BTH: Tensor, wanted_BTM: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return spectrograms (B, T, M), not normalised.

        Args:
            states_BTH: of the encoder.
            wanted_BTM: what should come out, fed as the frame before (teacher forcing); None to feed
                what came out.
            generator: CPU, of the prenet's dropout.
        """
        layers = cast("list[ProjectedLSTM]", list(self.layers))
        if not self.config.ar or wanted_BTM is not None:
            x_BTI = states_BTH
            if self.config.ar:
                assert wanted_BTM is not None
                before_BTM = F.pad(self._normed(wanted_BTM)[:, :-1], (0, 0, 1, 0))
                x_BTI = torch.cat([states_BTH, self._prenet(before_BTM, generator)], dim=2)
            for layer in layers:
                x_BTI = layer.along(x_BTI) if self.config.ar else layer(x_BTI)
            mel_BTM: Tensor = self.last(x_BTI)
            return mel_BTM
        before_BM = states_BTH.new_zeros(len(states_BTH), self.sizes.spec.num_mels)
        zeros = states_BTH.new_zeros(len(states_BTH), self.config.hidden)
        states: list[State] = [(zeros, zeros)] * len(layers)
        written = []
        for state_BH in states_BTH.unbind(1):
            x_BI = torch.cat([state_BH, self._prenet(before_BM, generator)], dim=1)
            for i, layer in enumerate(layers):
                states[i] = layer.step(x_BI, states[i])
                x_BI = states[i][0]
            written.append(self.last(x_BI))
            before_BM = self._normed(written[-1])
        return torch.stack(written, dim=1)

    def _normed(self, mel: Tensor) -> Tensor:
        return (mel - self.mel_mean_M) / self.mel_scale_M

    def _prenet(self, x: Tensor, generator: torch.Generator) -> Tensor:
        keep = 1 - self.config.prenet_dropout
        for layer in self.prenet:
            x = layer(x).relu()
            if keep < 1:
                kept = torch.rand(x.shape, generator=generator) < keep
                x = x * kept.to(x) / keep
        return x

    def encode_content(self, source: Heard) -> Tensor:
        """Return the encoder's output (T, H)."""
        lengths_B = torch.tensor([len(source.x_TD)])
        return self.states(source.x_TD[None], lengths_B)[0]

    def encode_speaker(self, references: Sequence[Heard]) -> Tensor:
        """Return the one target's statistics: references are not listened to."""
        return torch.cat([self.mel_mean_M, self.mel_scale_M])

    def speaker_vector(self, voice: Tensor) -> Tensor:
        """Return the voice itself (2M,)."""
        return voice

    def decode(self, code_TC: Tensor, voice: Tensor) -> Tensor:
        """Return the spectrogram (T, M) in the target's voice."""
        generator = torch.Generator().manual_seed(self.config.seed)
        mel_TM = self.write(code_TC[None], None, generator)[0]
        return mel_TM.clamp(min=self.sizes.spec.silence)

    def loss(self, batch: ConversionBatch) -> Objective:
        """Return the mean absolute error of normalised spectrograms under teacher forcing."""
        found_BTM = self.write(
            self.states(batch.x_BTD, batch.lengths_B), batch.mel_BTM, batch.generator
        )
        apart_BTM = ((found_BTM - batch.mel_BTM) / self.mel_scale_M).abs()
        mask_BT1 = mask_of(batch.lengths_B, apart_BTM.shape[1]).transpose(1, 2)
        frames = mask_BT1.sum()
        l1 = (apart_BTM * mask_BT1).sum() / (frames * apart_BTM.shape[2])
        return Objective(total=l1, parts={"l1": l1.detach()}, weight=float(frames))


CONVERTER = Taco2AR
CONFIGS = {
    "taco2_ar": Config(),
    "simple_ar": Config(encoder="ffn", hidden=512),
    "simple": Config(encoder="ffn", ar=False, hidden=512),
    "taco2_ar-tiny": Config(hidden=128, prenet=64, from_mean=True),
}
