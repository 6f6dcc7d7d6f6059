"""The Transformer encoder that six families share, with their differences as settings.

wav2vec 2.0, HuBERT, WavLM, data2vec and their distillates differ in where the layer norm stands
(after each residual sum, "post", or before each sublayer, "pre"), in the position embedding, and in
what attention adds for the distance between frames; Mockingjay's relatives may share one layer.

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
from mynah.upstream.core.bias import Alibi, RelativeBias, distances
from mynah.upstream.core.packed_linear import PackedLinear
from mynah.upstream.core.posconv import (
    PackedPosConv,
    PackedPosStack,
    PositionalConv,
    PositionalStack,
)
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
        position: ``conv`` for one convolutional position embedding, ``conv-stack`` for
            data2vec's stack of them, or ``none``.
        pos_kernel: its taps (of each convolution of a stack).
        pos_groups: its groups.
        pos_depth: convolutions of the stack.
        bias: what attention adds for distances: ``none``, ``relative`` (learned per bucket),
            ``gated`` (the same times WavLM's gate) or ``alibi``.
        relative_buckets: buckets of distances.
        relative_distance: where they end, in frames.
        window: truncated attention: furthest key, in frames; 0 for all.
        shared: one layer's weights serve every layer (ALBERT).
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
    position: Literal["conv", "conv-stack", "none"] = "conv"
    pos_kernel: int = 128
    pos_groups: int = 16
    pos_depth: int = 5
    bias: Literal["none", "relative", "gated", "alibi"] = "none"
    relative_buckets: int = 320
    relative_distance: int = 800
    window: int = 0
    shared: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    layerdrop: float = 0.0


class Layer(nn.Module):
    """Self-attention and a feed-forward sublayer, each with a residual connection."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.attn = Attention(
            config.dim,
            config.heads,
            dropout=config.attention_dropout,
            window=config.window,
            gated=config.bias == "gated",
        )
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.ff1 = nn.Linear(config.dim, config.ffn)
        self.ff2 = nn.Linear(config.ffn, config.dim)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.inner_dropout = nn.Dropout(config.activation_dropout)

    def forward(
        self, x_BTD: Tensor, valid_BT: Tensor | None, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the layer's output and its feed-forward output, before dropout and residual sum.

        The second is what data2vec and its relatives take as targets; both are (B, T, D).
        """
        if self.pre:
            x_BTD = x_BTD + self.dropout(self.attn(self.norm1(x_BTD), valid_BT, bias))
            fed_BTD = self._feed(self.norm2(x_BTD))
            return x_BTD + self.dropout(fed_BTD), fed_BTD
        x_BTD = self.norm1(x_BTD + self.dropout(self.attn(x_BTD, valid_BT, bias)))
        fed_BTD = self._feed(x_BTD)
        return self.norm2(x_BTD + self.dropout(fed_BTD)), fed_BTD

    def _feed(self, x_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = self.ff2(self.inner_dropout(F.gelu(self.ff1(x_BTD))))
        return y_BTD


class Encoder(nn.Module):
    """Position embedding and a stack of layers.

    Attributes:
        drops: what draws the layers to skip in training; None for torch's global generator.
            Processes that share a model's weights must skip the same layers.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        for name, allowed in (
            ("norm", ("post", "pre")),
            ("position", ("conv", "conv-stack", "none")),
            ("bias", ("none", "relative", "gated", "alibi")),
        ):
            if getattr(config, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, got {getattr(config, name)!r}"
                )
        if config.window < 0:
            raise ValueError(f"window must be 0 (no limit) or more, got {config.window}")
        self.config = config
        self.drops: torch.Generator | None = None
        self.pos: PositionalConv | PositionalStack | None = None
        if config.position == "conv":
            self.pos = PositionalConv(
                config.dim, kernel=config.pos_kernel, groups=config.pos_groups
            )
        elif config.position == "conv-stack":
            self.pos = PositionalStack(
                config.dim,
                kernel=config.pos_kernel,
                groups=config.pos_groups,
                depth=config.pos_depth,
            )
        self.bias: RelativeBias | Alibi | None = None
        if config.bias == "alibi":
            self.bias = Alibi(config.heads)
        elif config.bias != "none":
            self.bias = RelativeBias(
                config.heads,
                buckets=config.relative_buckets,
                max_distance=config.relative_distance,
            )
        self.layers = nn.ModuleList(
            Layer(config) for _ in range(1 if config.shared else config.layers)
        )
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def stack(self) -> list[Layer]:
        """Return the layers in the order in which they are applied."""
        found = [layer for layer in self.layers if isinstance(layer, Layer)]
        return found * self.config.layers if self.config.shared else found

    def forward(
        self,
        x_BTD: Tensor,
        valid_BT: Tensor | None = None,
        *,
        fed: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the hidden states, each (B, T, D); differentiable.

        Args:
            x_BTD: projected frames.
            valid_BT: false beyond an utterance's last frame; None if none is padded.
            fed: receives each layer's feed-forward output (B, T, D), before dropout and residual.
        """
        return self.attend(self.place(x_BTD, valid_BT), valid_BT, fed=fed)

    def place(self, x_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """Return the frames (B, T, D) with their position embedding added."""
        if valid_BT is not None:
            x_BTD = x_BTD * valid_BT[..., None]
        if self.pos is None:
            return x_BTD
        stacked = isinstance(self.pos, PositionalStack)
        position_BTD: Tensor = self.pos(x_BTD, valid_BT) if stacked else self.pos(x_BTD)
        return x_BTD + position_BTD

    def attend(
        self,
        x_BTD: Tensor,
        valid_BT: Tensor | None = None,
        *,
        distance_BTT: Tensor | None = None,
        fed: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the hidden states from placed frames, each (B, T, D).

        Args:
            x_BTD: what :meth:`place` returned, or a selection of its frames.
            valid_BT: as above.
            distance_BTT: int64 distances, key minus query, where frames were left out.
            fed: as above.
        """
        bias: Tensor | None = None
        if self.bias is not None:
            if distance_BTT is None:
                bias = self.bias(distances(x_BTD.shape[1], x_BTD.device))
            else:
                bias = self.bias(distance_BTT).transpose(0, 1)
        pre = self.config.norm == "pre"
        states = [self.dropout(x_BTD if pre else self.norm(x_BTD))]
        for layer in self.stack():
            drawn = torch.rand((), generator=self.drops) if self.training else None
            if drawn is not None and bool(drawn < self.config.layerdrop):
                states.append(states[-1])
                continue
            y_BTD, fed_BTD = layer(states[-1], valid_BT, bias)
            states.append(y_BTD)
            if fed is not None:
                fed.append(fed_BTD)
        if pre:
            states[-1] = self.norm(states[-1])
        return states


class PackedLayer:
    """One layer with fixed weights over a block of whole utterances."""

    def __init__(self, layer: Layer, *, dtype: torch.dtype, bias: nn.Module | None = None) -> None:
        self.pre = layer.pre
        self.dtype = dtype
        self.attn = PackedAttention(layer.attn, dtype=dtype, bias=bias)
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
        self.pos: PackedPosConv | PackedPosStack | None = None
        if isinstance(encoder.pos, PositionalStack):
            self.pos = PackedPosStack(encoder.pos)
        elif encoder.pos is not None:
            self.pos = PackedPosConv(encoder.pos)
        self.norm = encoder.norm
        packed = {
            id(layer): PackedLayer(layer, dtype=dtype, bias=encoder.bias)
            for layer in encoder.layers
            if isinstance(layer, Layer)
        }
        self.layers = [packed[id(layer)] for layer in encoder.stack()]

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
