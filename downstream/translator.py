"""A Transformer encoder-decoder: the head of SUPERB-SG's speech translation.

fairseq's ``s2t_transformer`` with three layers on each side (protocol, section 1.12; the sizes are
the defaults of fairseq's architecture of that name and s3prl's config, both checked): two
convolutions of kernel 5 and stride 2 with gated linear units, which leave a quarter of the frames,
sinusoidal positions, pre-norm layers of width 512 with 8 heads and a feed-forward width of 2048, an
output layer of its own. After Vaswani et al. 2017 and Wang et al. 2020 (fairseq S2T).

Padding is zeroed before each convolution and masked in attention, so that an item's output does not
depend on its neighbours. (In fairseq what lies beyond the end leaks through the second convolution.)

Shape suffixes: B batch, T frames, D width, C channels, U target symbols, V symbols, K hypotheses.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.downstream.core.beam import beam_search
from mynah.downstream.core.frames import frame_lengths, without_padding
from mynah.downstream.core.pooling import valid_frames
from mynah.downstream.core.seq2seq import DecoderLayer, EncoderLayer, KeyValues, sinusoids

KERNEL, STRIDE = 5, 2


class Translator(nn.Module):
    """Subsampler, encoder and decoder.

    Args:
        dim: width D of the features.
        symbols: number of target symbols V, ``pad`` and ``eos`` among them.
        width: width of the Transformer.
        inner: width of its feed-forward blocks.
        heads: attention heads.
        encoder_layers: number of encoder layers.
        decoder_layers: number of decoder layers.
        conv_channels: channels between the two convolutions, before the gate.
        dropout: of the whole model.
        pad: symbol that pads targets on the right.
        eos: symbol that starts and ends targets.

    Raises:
        ValueError: a width that is odd or below 4 or that the heads do not divide, an odd number of
            channels, a side without layers, or ``pad`` and ``eos`` that are not two of at least
            three symbols.
    """

    one_by_one = True  # vmap decomposes attention, which is slower than one head after another

    def __init__(
        self,
        dim: int,
        symbols: int,
        *,
        width: int = 512,
        inner: int = 2048,
        heads: int = 8,
        encoder_layers: int = 3,
        decoder_layers: int = 3,
        conv_channels: int = 1024,
        dropout: float = 0.1,
        pad: int = 1,
        eos: int = 2,
    ) -> None:
        super().__init__()
        if width < 4 or width % 2 or conv_channels % 2:
            raise ValueError(
                f"width must be even and at least 4, conv_channels even, "
                f"got {width} and {conv_channels}"
            )
        if encoder_layers < 1 or decoder_layers < 1:
            raise ValueError(
                f"both sides need a layer, got {encoder_layers} and {decoder_layers} layers"
            )
        if symbols < 3 or pad == eos or not 0 <= min(pad, eos) <= max(pad, eos) < symbols:
            raise ValueError(
                f"pad {pad} and eos {eos} must be two of at least 3 symbols, got {symbols}"
            )
        self.scale = math.sqrt(width)
        self.pad, self.eos = pad, eos
        self.convolutions = nn.ModuleList(
            nn.Conv1d(inputs, outputs, KERNEL, stride=STRIDE, padding=KERNEL // 2)
            for inputs, outputs in ((dim, conv_channels), (conv_channels // 2, 2 * width))
        )
        self.encoder = nn.ModuleList(
            EncoderLayer(width, heads, inner, dropout) for _ in range(encoder_layers)
        )
        self.encoder_norm = nn.LayerNorm(width)
        self.embedding = nn.Embedding(symbols, width, padding_idx=pad)
        self.decoder = nn.ModuleList(
            DecoderLayer(width, heads, inner, dropout) for _ in range(decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, symbols, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        nn.init.normal_(self.classifier.weight, std=width**-0.5)
        with torch.no_grad():
            self.embedding.weight[pad] = 0.0

    # -- encoder ----------------------------------------------------------------------------

    def encode(
        self, features_BTD: Tensor, lengths_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return encoder frames (B, T / 4, width) and a mask (B, T / 4), true where they exist.

        Raises:
            ValueError: features that are not frames, or lengths that do not fit them.
        """
        lengths_B = frame_lengths(features_BTD, lengths_B)
        x_BTC = features_BTD
        for convolution in self.convolutions:
            x_BCT = without_padding(x_BTC, lengths_B).transpose(1, 2)
            x_BTC = F.glu(convolution(x_BCT), dim=1).transpose(1, 2)
            lengths_B = (lengths_B - 1) // STRIDE + 1
        mask_BT = valid_frames(lengths_B, x_BTC.shape[1])
        _, frames, width = x_BTC.shape
        x_BTC = self.dropout(self.scale * x_BTC + sinusoids(0, frames, width, x_BTC))
        for layer in self.encoder:
            x_BTC = layer(x_BTC, mask_BT)
        return self.encoder_norm(x_BTC), mask_BT

    # -- decoder ----------------------------------------------------------------------------

    def forward(
        self, features_BTD: Tensor, lengths_B: Tensor | None, previous_BU: Tensor
    ) -> Tensor:
        """Return logits (B, U, V) of each next symbol, given those before it.

        Args:
            features_BTD: padded frames.
            lengths_B: valid frames of each item.
            previous_BU: targets that start with ``eos``, padded on the right
                (``core.seq2seq.teacher_forcing``).

        Raises:
            ValueError: features that are not frames, lengths or targets that do not fit them.
        """
        if previous_BU.ndim != 2 or previous_BU.shape[0] != features_BTD.shape[0]:
            raise ValueError(
                f"expected targets ({features_BTD.shape[0]}, U), "
                f"got shape {tuple(previous_BU.shape)}"
            )
        memory_BTD, mask_BT = self.encode(features_BTD, lengths_B)
        positions_UD = sinusoids(0, previous_BU.shape[1], memory_BTD.shape[2], memory_BTD)
        x_BUD = self.embed(previous_BU, positions_UD)
        for layer in self.decoder_layers():
            x_BUD = layer(x_BUD, layer.across.project(memory_BTD), mask_BT)
        return self.classify(x_BUD)

    def decoder_layers(self) -> list[DecoderLayer]:
        """Return the decoder's layers, first to last."""
        return [layer for layer in self.decoder if isinstance(layer, DecoderLayer)]

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the decoder's input, (..., width), of symbols (...) at given positions."""
        embedded: Tensor = self.dropout(self.scale * self.embedding(tokens) + positions)
        return embedded

    def classify(self, x_BUD: Tensor) -> Tensor:
        """Return logits (B, U, V) of what the last decoder layer gave."""
        logits_BUV: Tensor = self.classifier(self.decoder_norm(x_BUD))
        return logits_BUV

    # -- search -----------------------------------------------------------------------------

    @torch.no_grad()
    def beam_search(
        self,
        features_BTD: Tensor,
        lengths_B: Tensor | None = None,
        beam: int = 20,
        max_len: int = 400,
    ) -> list[list[int]]:
        """Return the best symbols of each item, without ``eos``; dropout is off.

        The search is fairseq's (``core.beam``): at least one symbol, score over length.

        Args:
            features_BTD: padded frames.
            lengths_B: valid frames of each item.
            beam: number of hypotheses.
            max_len: most symbols.

        Raises:
            ValueError: as :meth:`encode`; a beam or length below 1; weights that have diverged.
        """
        training = self.training
        self.eval()
        try:
            found = beam_search(
                _Cached(self, *self.encode(features_BTD, lengths_B)),
                batch=features_BTD.shape[0],
                beam=beam,
                max_len=max_len,
                eos=self.eos,
                pad=self.pad,
                device=features_BTD.device,
            )
        finally:
            self.train(training)
        return [hypotheses[0].tokens for hypotheses in found]


class _Cached:
    """The decoder of a batch, with the keys and values of everything that it has seen."""

    def __init__(self, model: Translator, memory_BTD: Tensor, mask_BT: Tensor) -> None:
        self.model = model
        self.layers = model.decoder_layers()
        self.memory = [layer.across.project(memory_BTD) for layer in self.layers]
        self.past: list[KeyValues | None] = [None] * len(self.layers)
        self.mask_BT = mask_BT
        self.length = 0

    def step(self, tokens_BK: Tensor) -> Tensor:
        """Return log-probabilities (B, K, V) after one more symbol."""
        like = self.memory[0][0]
        width = self.model.embedding.embedding_dim
        x_BKD = self.model.embed(tokens_BK, sinusoids(self.length, 1, width, like))
        for i, layer in enumerate(self.layers):
            x_BKD, self.past[i] = layer.step(x_BKD, self.past[i], self.memory[i], self.mask_BT)
        self.length += 1
        return self.model.classify(x_BKD).log_softmax(dim=-1)

    def select(self, items_b: Tensor, parents_bK: Tensor) -> None:
        """Keep some items and, of each, the hypotheses that go on."""
        rows_N = (items_b[:, None] * parents_bK.shape[1] + parents_bK).flatten()
        self.past = [past and (past[0][rows_N], past[1][rows_N]) for past in self.past]
        if len(items_b) < len(self.mask_BT):
            self.mask_BT = self.mask_BT[items_b]
            self.memory = [(keys[items_b], values[items_b]) for keys, values in self.memory]


HEAD = Translator
