"""A front-end and the shared Transformer: what wav2vec 2.0 and its descendants have in common.

:class:`FrameConfig` holds the settings of both, :class:`FrameTransformer` the frozen features and
the steps of which objectives are made: frames of a batch, spans to mask, hidden states. A family
adds its objective, and nothing about lengths, padding or packed execution.

Hidden states, as SUPERB counts them: the input of each layer and the encoder's output (after the
final layer norm where there is one).

Shape suffixes: B batch, S samples, T frames, N frames of a ragged batch, C front-end width,
D width, M masked frames of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mynah.upstream.core.contract import Batch
from mynah.upstream.core.frontend import Frontend, MelFrontend, PackedFrontend, WaveFrontend
from mynah.upstream.core.masking import span_mask
from mynah.upstream.core.packing import Packing
from mynah.upstream.core.select import counted
from mynah.upstream.core.transformer import Encoder, EncoderConfig, PackedEncoder


@dataclass(frozen=True, kw_only=True)
class FrameConfig:
    """Settings of front-end and Transformer; the defaults are those of wav2vec 2.0 and HuBERT base.

    Attributes:
        front: ``wave`` for the convolution stack, ``mel`` for log-mel filterbanks.
        conv_channels: width of the stack.
        conv_kernels: its taps.
        conv_strides: its strides.
        conv_bias: whether its convolutions have a bias.
        conv_norm: ``group``: over time, per channel, first layer only; ``layer``: over channels.
        normalize: give every waveform mean 0 and variance 1 first.
        normalize_eps: what is added to the variance then; Hugging Face's extractor adds 1e-7.
        num_mels: filters of the ``mel`` front-end.
        stack: 10 ms frames per frame of the ``mel`` front-end.
        front_norm: layer norm before the projection; DistilHuBERT has none.
        dim: width of the Transformer.
        layers: its layers.
        heads: its attention heads.
        ffn: its inner width.
        norm: ``post`` or ``pre``.
        norm_eps: epsilon of its layer norms.
        position: ``conv``, ``conv-stack`` or ``none``.
        pos_kernel: taps of the convolutional position embedding.
        pos_groups: its groups.
        pos_depth: convolutions of a stack.
        bias: what attention adds for distances: ``none``, ``relative``, ``gated`` or ``alibi``.
        relative_buckets: buckets of distances.
        relative_distance: where they end, in frames.
        window: truncated attention: furthest key, in frames; 0 for all.
        shared: one layer's weights serve every layer.
        dropout: of sublayer outputs.
        attention_dropout: of attention weights.
        activation_dropout: inside the feed-forward sublayer.
        layerdrop: probability of skipping a layer.
        input_dropout: of the encoder's input.
        front_grad: factor on the gradient that reaches the front-end.
    """

    front: Literal["wave", "mel"] = "wave"
    conv_channels: int = 512  # fairseq: conv_feature_layers
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)  # fairseq: conv_feature_layers
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)  # fairseq: conv_feature_layers
    conv_bias: bool = False  # fairseq: conv_bias
    conv_norm: Literal["group", "layer"] = "group"  # fairseq: extractor_mode
    normalize: bool = False  # fairseq: task.normalize
    normalize_eps: float = 1e-5
    num_mels: int = 40
    stack: int = 2
    front_norm: bool = True
    dim: int = 768  # fairseq: encoder_embed_dim
    layers: int = 12  # fairseq: encoder_layers
    heads: int = 12  # fairseq: encoder_attention_heads
    ffn: int = 3072  # fairseq: encoder_ffn_embed_dim
    norm: Literal["post", "pre"] = "post"  # fairseq: layer_norm_first
    norm_eps: float = 1e-5
    position: Literal["conv", "conv-stack", "none"] = "conv"
    pos_kernel: int = 128  # fairseq: conv_pos
    pos_groups: int = 16  # fairseq: conv_pos_groups
    pos_depth: int = 5  # fairseq: pos_conv_depth
    bias: Literal["none", "relative", "gated", "alibi"] = "none"
    relative_buckets: int = 320  # WavLM: num_buckets
    relative_distance: int = 800  # WavLM: max_distance
    window: int = 0
    shared: bool = False
    dropout: float = 0.1  # fairseq: dropout
    attention_dropout: float = 0.1  # fairseq: attention_dropout
    activation_dropout: float = 0.0  # fairseq: activation_dropout
    layerdrop: float = 0.05  # fairseq: encoder_layerdrop
    input_dropout: float = 0.1  # fairseq: dropout_input
    front_grad: float = 0.1  # fairseq: feature_grad_mult

    def encoder(self) -> EncoderConfig:
        """Return the Transformer's part of the settings."""
        return EncoderConfig(**{f.name: getattr(self, f.name) for f in fields(EncoderConfig)})


# What makes a model learn on half an hour of speech in minutes on a CPU; families start from it.
# Log-mel frames are normalised over the utterance already: a layer norm over the bins of each frame
# would take away how loud it is, without which phones are much harder to tell.
TINY: dict[str, Any] = {
    "front": "mel",
    "front_norm": False,
    "dim": 192,
    "layers": 3,
    "heads": 3,
    "ffn": 768,
    "pos_kernel": 32,
    "dropout": 0.05,
    "attention_dropout": 0.05,
    "layerdrop": 0.0,
    "input_dropout": 0.05,
    "front_grad": 1.0,
}


class Frames(NamedTuple):
    """Frames of a padded batch on their way into the encoder.

    Attributes:
        raw_BTC: what the front-end computes.
        normed_BTC: the same after the layer norm.
        x_BTD: projected, after dropout.
        valid_BT: false beyond an utterance's last frame.
        counts: frames of each utterance.
    """

    raw_BTC: Tensor
    normed_BTC: Tensor
    x_BTD: Tensor
    valid_BT: Tensor
    counts: list[int]

    def padding(self) -> Tensor | None:
        """``valid_BT``, or None where nothing is padded and attention needs no mask."""
        return self.valid_BT if len(set(self.counts)) > 1 else None

    def energy(self) -> Tensor:
        """Mean square of the raw features over true frames; padding is zero and adds nothing."""
        total = self.raw_BTC.float().square().sum()
        return total / (sum(self.counts) * self.raw_BTC.shape[2])


class FrameTransformer(Packing[tuple[PackedFrontend, PackedEncoder]]):
    """Front-end and Transformer; subclasses add an objective."""

    masks: ClassVar[bool] = True  # whether the objective has a vector that stands in masked frames

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.dim = config.dim
        self.num_layers = config.layers + 1
        self.frontend = build_frontend(config)
        self.stride = self.frontend.stride
        self.channels: int = self.frontend.proj.in_features
        if self.masks:
            self.mask_emb = nn.Parameter(torch.rand(config.dim))
        self.encoder = Encoder(config.encoder())
        self.input_dropout = nn.Dropout(config.input_dropout)

    # -- frozen features ----------------------------------------------------------------------

    def num_frames(self, n_samples: int) -> int:
        """Return the exact number of frames; fewer samples than one frame sees count as one.

        Raises:
            ValueError: no samples.
        """
        if n_samples < 1:
            raise ValueError(f"a waveform needs at least one sample, got {n_samples}")
        return self.frontend.num_frames(n_samples)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the input of each layer and the encoder's output, float32 (N, D)."""
        front, encoder = self.packed()
        counts = [self.num_frames(len(wav)) for wav in wavs]
        yield from encoder(front(wavs), counts)

    def _pack(self, dtype: torch.dtype) -> tuple[PackedFrontend, PackedEncoder]:
        front = PackedFrontend(self.frontend, dtype=dtype)
        return front, PackedEncoder(self.encoder, dtype=dtype)

    # -- what objectives are made of ------------------------------------------------------------

    def span_mask(self, batch: Batch) -> Tensor:
        """Draw which frames to mask, bool (B, T), by the config's ``mask_*`` settings."""
        sizes = [int(n) for n in batch.lengths_B]
        return span_mask(
            torch.tensor([self.num_frames(n) for n in sizes]),
            prob=self.config.mask_prob,
            length=self.config.mask_length,
            generator=batch.generator,
            min_spans=self.config.mask_min_spans,
            same_count=len(set(sizes)) == 1,
        )

    def frames(self, wavs: Sequence[Tensor]) -> Frames:
        """Return the projected frames of waveforms; differentiable."""
        raw_BTC, counts = self.frontend.raw(wavs)
        factor = self.config.front_grad
        if raw_BTC.requires_grad and factor != 1.0:
            raw_BTC.register_hook(lambda grad: grad * factor)
        device = raw_BTC.device
        counts_B = counted(counts, device)
        valid_BT = torch.arange(raw_BTC.shape[1], device=device) < counts_B[:, None]
        normed_BTC = self.frontend.norm(raw_BTC)
        x_BTD = self.input_dropout(self.frontend.proj(normed_BTC))
        return Frames(raw_BTC, normed_BTC, x_BTD, valid_BT, counts)

    def states(
        self,
        frames: Frames,
        mask_BT: Tensor | None = None,
        *,
        fed: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the hidden states (B, T, D) of frames, of which some are masked.

        Args:
            frames: of :meth:`frames`.
            mask_BT: where ``mask_emb`` stands in for the frame.
            fed: receives each layer's feed-forward output (B, T, D).
        """
        x_BTD = frames.x_BTD
        if mask_BT is not None:
            x_BTD = torch.where(mask_BT[..., None], self.mask_emb.to(x_BTD.dtype), x_BTD)
        states: list[Tensor] = self.encoder(x_BTD, frames.padding(), fed=fed)
        return states


def build_frontend(config: Any) -> Frontend:
    """Return the front-end of a :class:`FrameConfig`.

    Raises:
        ValueError: unknown kind.
    """
    front: Frontend
    if config.front == "wave":
        front = WaveFrontend(
            config.dim,
            channels=config.conv_channels,
            kernels=config.conv_kernels,
            strides=config.conv_strides,
            bias=config.conv_bias,
            norm=config.conv_norm,
            normalize=config.normalize,
            normalize_eps=config.normalize_eps,
            norm_eps=config.norm_eps,
        )
    elif config.front == "mel":
        front = MelFrontend(config.dim, num_mels=config.num_mels, stack=config.stack)
    else:
        raise ValueError(f"front must be 'wave' or 'mel', got {config.front!r}")
    if not config.front_norm:
        front.norm = nn.Identity()
    return front
