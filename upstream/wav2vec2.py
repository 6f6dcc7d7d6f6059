"""wav2vec 2.0: masked frames are told apart from other frames by quantised targets.

Baevski, Zhou, Mohamed and Auli 2020, "wav2vec 2.0: a framework for self-supervised learning of
speech representations" (arXiv 2006.11477). A convolution stack turns the waveform into 20 ms
frames; spans of them are masked and a Transformer predicts, among 100 distractors from the same
utterance, which quantised frame belongs where. Details that the paper leaves open follow fairseq.

Hidden states, as SUPERB counts them: the input of each layer and the encoder's output (after the
final layer norm where there is one): 13 for base, 25 for large.

Variants: ``base`` and ``large`` are the paper's; ``tiny`` learns in minutes on a CPU because its
front-end is a log-mel filterbank; ``tiny-wav`` keeps the published strides with 128 channels.

Shape suffixes: B batch, S samples, T frames, N frames of a ragged batch, C front-end width,
D width, M masked frames of the whole batch, V width of a quantised vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from mynah.upstream.core.contract import Batch, Loss, Upstream
from mynah.upstream.core.contrastive import contrastive_loss, diversity_loss, sample_negatives
from mynah.upstream.core.frontend import Frontend, MelFrontend, PackedFrontend, WaveFrontend
from mynah.upstream.core.gumbel import GumbelQuantizer, Quantised
from mynah.upstream.core.masking import span_mask
from mynah.upstream.core.packed_linear import compute_dtype
from mynah.upstream.core.transformer import Encoder, EncoderConfig, PackedEncoder


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of wav2vec 2.0; the defaults are the paper's base model as fairseq trains it.

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
        dim: width of the Transformer.
        layers: its layers.
        heads: its attention heads.
        ffn: its inner width.
        norm: ``post`` or ``pre``.
        norm_eps: epsilon of its layer norms.
        pos_kernel: taps of the convolutional position embedding.
        pos_groups: its groups.
        dropout: of sublayer outputs.
        attention_dropout: of attention weights.
        activation_dropout: inside the feed-forward sublayer.
        layerdrop: probability of skipping a layer.
        input_dropout: of the encoder's input.
        feature_dropout: of the quantiser's input.
        front_grad: factor on the gradient that reaches the front-end.
        objective: false for a model read from elsewhere without the parts that pretraining needs.
        mask_prob: share of frames to mask if spans did not overlap.
        mask_length: frames of a span.
        mask_min_spans: fewest spans of an utterance.
        groups: codebooks.
        codes: codes of each.
        code_dim: width of a quantised vector.
        final_dim: width in which predictions and targets are compared.
        negatives: distractors per masked frame.
        contrast_temperature: divisor of the cosines.
        gumbel_start: first temperature of the Gumbel softmax.
        gumbel_end: its floor.
        gumbel_decay: its factor per step; None falls evenly (in logarithm) from start to end over
            the run.
        diversity_weight: of the diversity term.
        penalty_weight: of the mean square of the raw features.
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
    dim: int = 768  # fairseq: encoder_embed_dim
    layers: int = 12  # fairseq: encoder_layers
    heads: int = 12  # fairseq: encoder_attention_heads
    ffn: int = 3072  # fairseq: encoder_ffn_embed_dim
    norm: Literal["post", "pre"] = "post"  # fairseq: layer_norm_first
    norm_eps: float = 1e-5
    pos_kernel: int = 128  # fairseq: conv_pos
    pos_groups: int = 16  # fairseq: conv_pos_groups
    dropout: float = 0.1  # fairseq: dropout
    attention_dropout: float = 0.1  # fairseq: attention_dropout
    activation_dropout: float = 0.0  # fairseq: activation_dropout
    layerdrop: float = 0.05  # fairseq: encoder_layerdrop
    input_dropout: float = 0.1  # fairseq: dropout_input
    feature_dropout: float = 0.1  # fairseq: dropout_features
    front_grad: float = 0.1  # fairseq: feature_grad_mult
    objective: bool = True
    mask_prob: float = 0.65  # fairseq: mask_prob
    mask_length: int = 10  # fairseq: mask_length
    mask_min_spans: int = 2
    groups: int = 2  # fairseq: latent_groups
    codes: int = 320  # fairseq: latent_vars
    code_dim: int = 256  # fairseq: latent_dim
    final_dim: int = 256  # fairseq: final_dim
    negatives: int = 100  # fairseq: num_negatives
    contrast_temperature: float = 0.1  # fairseq: logit_temp
    gumbel_start: float = 2.0  # fairseq: latent_temp[0]
    gumbel_end: float = 0.5  # fairseq: latent_temp[1]
    gumbel_decay: float | None = 0.999995  # fairseq: latent_temp[2]
    diversity_weight: float = 0.1  # fairseq: loss_weights[0]
    penalty_weight: float = 10.0  # fairseq: loss_weights[1]

    def encoder(self) -> EncoderConfig:
        """Return the Transformer's part of the settings."""
        return EncoderConfig(
            dim=self.dim,
            layers=self.layers,
            heads=self.heads,
            ffn=self.ffn,
            norm=self.norm,
            norm_eps=self.norm_eps,
            pos_kernel=self.pos_kernel,
            pos_groups=self.pos_groups,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            activation_dropout=self.activation_dropout,
            layerdrop=self.layerdrop,
        )


_TINY: dict[str, Any] = {
    "dim": 192,
    "layers": 3,
    "heads": 3,
    "ffn": 768,
    "pos_kernel": 32,
    "dropout": 0.05,
    "attention_dropout": 0.05,
    "layerdrop": 0.0,
    "input_dropout": 0.05,
    "feature_dropout": 0.05,
    "front_grad": 1.0,
    "mask_prob": 0.65,
    "mask_length": 8,
    "codes": 64,
    "code_dim": 128,
    "final_dim": 128,
    "negatives": 50,
    "gumbel_decay": None,
}

CONFIGS = {
    "base": Config(),
    "large": Config(
        conv_bias=True,
        conv_norm="layer",
        normalize=True,
        dim=1024,
        layers=24,
        heads=16,
        ffn=4096,
        norm="pre",
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        input_dropout=0.0,
        feature_dropout=0.0,
        front_grad=1.0,
        code_dim=768,
        final_dim=768,
        gumbel_end=0.1,
        penalty_weight=0.0,
    ),
    "tiny": Config(front="mel", penalty_weight=0.0, **_TINY),
    "tiny-wav": Config(conv_channels=128, **_TINY),
}


class Wav2Vec2(Upstream):
    """Front-end, masking, Transformer, and the contrastive task over Gumbel-quantised frames."""

    name = "wav2vec2"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.dim = config.dim
        self.num_layers = config.layers + 1
        self.frontend: Frontend
        if config.front == "wave":
            self.frontend = WaveFrontend(
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
            channels = config.conv_channels
        elif config.front == "mel":
            self.frontend = MelFrontend(config.dim, num_mels=config.num_mels, stack=config.stack)
            channels = config.num_mels * config.stack
        else:
            raise ValueError(f"front must be 'wave' or 'mel', got {config.front!r}")
        self.stride = self.frontend.stride
        self.mask_emb = nn.Parameter(torch.rand(config.dim))
        self.encoder = Encoder(config.encoder())
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        self.quantizer: GumbelQuantizer | None = None
        if config.objective:
            self.quantizer = GumbelQuantizer(
                channels,
                dim=config.code_dim,
                groups=config.groups,
                codes=config.codes,
                temperature=config.gumbel_start,
            )
            self.project_q = nn.Linear(config.code_dim, config.final_dim)
            self.final_proj = nn.Linear(config.dim, config.final_dim)
        self._packed: tuple[PackedFrontend, PackedEncoder] | None = None
        self.register_load_state_dict_post_hook(_repack)

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
        if self.frozen and self._packed is None:
            self.prepare_inference()
        front, encoder = self._packed or self._pack(torch.float32)
        counts = [self.num_frames(len(wav)) for wav in wavs]
        yield from encoder(front(wavs), counts)

    def prepare_inference(self) -> None:
        """Lay out the weights once for the matrix-product library."""
        self._packed = self._pack(compute_dtype(self.precision, self.device))

    def _pack(self, dtype: torch.dtype) -> tuple[PackedFrontend, PackedEncoder]:
        with torch.no_grad():
            front = PackedFrontend(self.frontend, dtype=dtype)
            return front, PackedEncoder(self.encoder, dtype=dtype)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the packed weights, which only this process can read."""
        return {**self.__dict__, "_packed": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        _repack(self, None)
        return self

    # -- pretraining --------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Loss:
        """Return contrastive loss + 0.1 diversity + 10 mean square of the raw features.

        Equation 2 of the paper and fairseq's penalty; the mean is over masked frames.

        Raises:
            ValueError: the model has no quantiser.
        """
        sizes = [int(n) for n in batch.lengths_B]
        wavs = [wav[:n] for wav, n in zip(batch.wav_BS, sizes, strict=True)]
        frames_B = torch.tensor([self.num_frames(n) for n in sizes])
        config: Config = self.config
        mask_BT = span_mask(
            frames_B,
            prob=config.mask_prob,
            length=config.mask_length,
            generator=batch.generator,
            min_spans=config.mask_min_spans,
            same_count=len(set(sizes)) == 1,
        )
        negatives_MK = sample_negatives(
            mask_BT.sum(dim=1), config.negatives, generator=batch.generator
        )
        return self.contrast(wavs, mask_BT, negatives_MK, generator=batch.generator)

    def contrast(
        self,
        wavs: Sequence[Tensor],
        mask_BT: Tensor,
        negatives_MK: Tensor,
        *,
        generator: torch.Generator | None,
    ) -> Loss:
        """Return the objective for given masks and negatives.

        Args:
            wavs: 1-D waveforms.
            mask_BT: true where a frame is masked, false beyond an utterance's end.
            negatives_MK: for each masked frame, indices into all masked frames of the batch.
            generator: of the Gumbel noise; needed in training mode.
        """
        quantizer = self.quantizer
        if quantizer is None:
            raise ValueError(
                "this wav2vec2 was read without its quantiser (objective=False): it yields "
                "features and cannot be pretrained"
            )
        config: Config = self.config
        raw_BTC, counts = self.frontend.raw(wavs)
        if raw_BTC.requires_grad and config.front_grad != 1.0:
            raw_BTC.register_hook(lambda grad: grad * config.front_grad)
        device = raw_BTC.device
        mask_BT, negatives_MK = mask_BT.to(device), negatives_MK.to(device)
        counts_B = torch.tensor(counts, device=device)
        valid_BT = torch.arange(raw_BTC.shape[1], device=device) < counts_B[:, None]
        padded = len(set(counts)) > 1
        normed_BTC = self.frontend.norm(raw_BTC)
        x_BTD = self.input_dropout(self.frontend.proj(normed_BTC))
        x_BTD = torch.where(mask_BT[..., None], self.mask_emb.to(x_BTD.dtype), x_BTD)
        context_MD = self.encoder(x_BTD, valid_BT if padded else None)[-1][mask_BT]
        target: Quantised = quantizer(
            self.feature_dropout(normed_BTC)[mask_BT], generator=generator
        )
        task = contrastive_loss(
            self.final_proj(context_MD),
            self.project_q(target.vectors_MD),
            negatives_MK=negatives_MK,
            codes_MG=target.codes_MG,
            counts_B=mask_BT.sum(dim=1),
            temperature=config.contrast_temperature,
        )
        diversity = diversity_loss(target.probs_GV)
        total = task.loss + config.diversity_weight * diversity
        parts = {
            "contrastive": task.loss.detach(),
            "diversity": diversity.detach(),
            "accuracy": task.accuracy,
            "code_perplexity": target.code_perplexity,
            "temperature": quantizer.temperature.detach().clone(),
        }
        if config.penalty_weight:
            penalty = (raw_BTC[valid_BT] if padded else raw_BTC).float().square().mean()
            total = total + config.penalty_weight * penalty
            parts["penalty"] = penalty.detach()
        return Loss(total=total, parts=parts, weight=float(mask_BT.sum()))

    def after_step(self, step: int, total_steps: int) -> None:
        """Lower the temperature of the Gumbel softmax."""
        config: Config = self.config
        if self.quantizer is None:
            return
        decay = config.gumbel_decay
        if decay is None:
            decay = (config.gumbel_end / config.gumbel_start) ** (1 / max(1, total_steps))
        self.quantizer.set_temperature(max(config.gumbel_start * decay**step, config.gumbel_end))


def _repack(module: nn.Module, _incompatible: object) -> None:
    """Renew the packed weights of a frozen model after its weights moved or changed."""
    if isinstance(module, Wav2Vec2) and module.frozen and module._packed is not None:
        module.prepare_inference()


MODEL = Wav2Vec2
