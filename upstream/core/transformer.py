"""The Transformer encoder that six families share, with their differences as settings.

wav2vec 2.0, HuBERT, WavLM, data2vec and their distillates differ in where the layer norm stands
(after each residual sum, "post", or before each sublayer, "pre") and in the position embedding.

Hidden states, as SUPERB counts them: the input of each layer and the encoder's output, the latter
after the final layer norm where there is one (pre-norm).

:class:`Encoder` is trainable and takes padded batches; :class:`PackedEncoder` runs the same weights
over utterances laid end to end, a cache-sized block of whole utterances at a time.

Shape suffixes: B batch, T frames, N frames of a ragged batch, D width, F inner width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.attention import Attention, PackedAttention
from mynah.upstream.core.packed_linear import PackedLinear
from mynah.upstream.core.posconv import PackedPosConv, PositionalConv
from mynah.upstream.core.ragged import blocks, pieces

_ROWS = {"cpu": 512}  # frames of a block: a layer's activations stay in cache
_ROWS_ACCELERATOR = 1 << 16


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape and settings of an encoder; the defaults are the base size.

    Attributes:
        dim: width D.
        layers: number of layers.
        heads: attention heads.
        ffn: inner width of the feed-forward sublayer.
        norm: ``post`` or ``pre``.
        norm_eps: epsilon of every layer norm.
        position: ``conv`` for the convolutional position embedding, or ``none``.
        pos_kernel: its taps.
        pos_groups: its groups.
        dropout: of sublayer outputs and of the first layer's input.
        attention_dropout: of attention weights.
        activation_dropout: after the GELU.
        layerdrop: probability that a layer is skipped in training.
    """

    dim: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    norm: Literal["post", "pre"] = "post"
    norm_eps: float = 1e-5
    position: Literal["conv", "none"] = "conv"
    pos_kernel: int = 128
    pos_groups: int = 16
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    layerdrop: float = 0.0


class Layer(nn.Module):
    """Self-attention and a feed-forward sublayer, each with a residual connection."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.attn = Attention(config.dim, config.heads, dropout=config.attention_dropout)
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.ff1 = nn.Linear(config.dim, config.ffn)
        self.ff2 = nn.Linear(config.ffn, config.dim)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.inner_dropout = nn.Dropout(config.activation_dropout)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        """Return (B, T, D)."""
        if self.pre:
            x_BTD = x_BTD + self.dropout(self.attn(self.norm1(x_BTD), valid_BT))
            return x_BTD + self._feed(self.norm2(x_BTD))
        x_BTD = self.norm1(x_BTD + self.dropout(self.attn(x_BTD, valid_BT)))
        y_BTD: Tensor = self.norm2(x_BTD + self._feed(x_BTD))
        return y_BTD

    def _feed(self, x_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = self.dropout(self.ff2(self.inner_dropout(F.gelu(self.ff1(x_BTD)))))
        return y_BTD


class Encoder(nn.Module):
    """Position embedding and a stack of layers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        if config.norm not in ("post", "pre") or config.position not in ("conv", "none"):
            raise ValueError(
                "norm must be 'post' or 'pre' and position 'conv' or 'none', "
                f"got {config.norm!r} and {config.position!r}"
            )
        self.config = config
        self.pos: PositionalConv | None = None
        if config.position == "conv":
            self.pos = PositionalConv(
                config.dim, kernel=config.pos_kernel, groups=config.pos_groups
            )
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None = None) -> list[Tensor]:
        """Return the hidden states, each (B, T, D); differentiable.

        Args:
            x_BTD: projected frames.
            valid_BT: false beyond an utterance's last frame; None if none is padded.
        """
        if valid_BT is not None:
            x_BTD = x_BTD * valid_BT[..., None]
        if self.pos is not None:
            x_BTD = x_BTD + self.pos(x_BTD)
        pre = self.config.norm == "pre"
        x_BTD = self.dropout(x_BTD if pre else self.norm(x_BTD))
        states = [x_BTD]
        for layer in self.layers:
            skipped = self.training and bool(torch.rand(()) < self.config.layerdrop)
            states.append(states[-1] if skipped else layer(states[-1], valid_BT))
        if pre:
            states[-1] = self.norm(states[-1])
        return states


class PackedLayer:
    """One layer with fixed weights over a block of whole utterances."""

    def __init__(self, layer: Layer, *, dtype: torch.dtype) -> None:
        self.pre = layer.pre
        self.dtype = dtype
        self.attn = PackedAttention(layer.attn, dtype=dtype)
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        self.ff1 = PackedLinear(layer.ff1.weight, layer.ff1.bias, dtype=dtype, gelu=True)
        self.ff2 = PackedLinear(layer.ff2.weight, layer.ff2.bias, dtype=dtype)

    def __call__(self, x_ND: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return float32 (N, D); ``x_ND`` is left as it is."""
        normed_ND = self.norm1(x_ND) if self.pre else x_ND
        y_ND = self.attn(normed_ND.to(self.dtype), lengths).float().add_(x_ND)
        if self.pre:
            return self._feed(self.norm2(y_ND)).add_(y_ND)
        y_ND = self.norm1(y_ND)
        z_ND: Tensor = self.norm2(self._feed(y_ND).add_(y_ND))
        return z_ND

    def _feed(self, x_ND: Tensor) -> Tensor:
        x_ND = x_ND.to(self.dtype)
        size = 2 * _rows(x_ND.device)
        parts = [
            self.ff2(self.ff1(x_ND[start:stop])) for start, stop in pieces(len(x_ND), size=size)
        ]
        return (torch.cat(parts) if len(parts) > 1 else parts[0]).float()


class PackedEncoder:
    """An encoder with fixed weights over a ragged batch; no gradients."""

    def __init__(self, encoder: Encoder, *, dtype: torch.dtype) -> None:
        self.pre = encoder.config.norm == "pre"
        self.pos = None if encoder.pos is None else PackedPosConv(encoder.pos)
        self.norm = encoder.norm
        self.layers = [
            PackedLayer(layer, dtype=dtype) for layer in encoder.layers if isinstance(layer, Layer)
        ]

    def __call__(self, x_ND: Tensor, lengths: Sequence[int]) -> Iterator[Tensor]:
        """Yield the hidden states, each float32 (N, D).

        Args:
            x_ND: projected frames, float32.
            lengths: frames of each utterance.
        """
        # no_grad wraps each step, not the generator: it would leak into the caller at each yield
        with torch.no_grad():
            if self.pos is not None:
                x_ND = self.pos(x_ND, lengths).add_(x_ND)
            if not self.pre:
                x_ND = self.norm(x_ND)
        yield x_ND
        for index, layer in enumerate(self.layers):
            with torch.no_grad():
                x_ND = self._layer(layer, x_ND, lengths)
                last = index == len(self.layers) - 1
                state_ND = self.norm(x_ND) if last and self.pre else x_ND
            yield state_ND

    @staticmethod
    def _layer(layer: PackedLayer, x_ND: Tensor, lengths: Sequence[int]) -> Tensor:
        parts = [
            layer(x_ND[block.start : block.stop], block.lengths)
            for block in blocks(lengths, rows=_rows(x_ND.device))
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _rows(device: torch.device) -> int:
    return _ROWS.get(device.type, _ROWS_ACCELERATOR)
