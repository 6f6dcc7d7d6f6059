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

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from mynah.upstream.core import draws
from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.contrastive import contrastive_loss, diversity_loss, sample_negatives
from mynah.upstream.core.frames import TINY, FrameConfig, FrameTransformer
from mynah.upstream.core.gumbel import GumbelQuantizer, Quantised
from mynah.upstream.core.select import picked, sent


@dataclass(frozen=True, kw_only=True)
class Config(FrameConfig):
    """Settings of wav2vec 2.0; the defaults are the paper's base model as fairseq trains it.

    Attributes:
        feature_dropout: of the quantiser's input.
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

    feature_dropout: float = 0.1  # fairseq: dropout_features
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


_TINY: dict[str, Any] = {
    **TINY,
    "feature_dropout": 0.05,
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
    "tiny": Config(penalty_weight=0.0, **_TINY),
    "tiny-wav": Config(**{**_TINY, "front": "wave", "front_norm": True, "conv_channels": 128}),
}


class Wav2Vec2(FrameTransformer):
    """Front-end, masking, Transformer, and the contrastive task over Gumbel-quantised frames."""

    name = "wav2vec2"
    least_frames = 2  # of one, the mask may hold none
    floors = MappingProxyType({"code_perplexity": 4.0})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        self.quantizer: GumbelQuantizer | None = None
        if config.objective:
            self.quantizer = GumbelQuantizer(
                self.channels,
                dim=config.code_dim,
                groups=config.groups,
                codes=config.codes,
                temperature=config.gumbel_start,
            )
            self.project_q = nn.Linear(config.code_dim, config.final_dim)
            self.final_proj = nn.Linear(config.dim, config.final_dim)

    def loss(self, batch: Batch) -> Loss:
        """Return contrastive loss + 0.1 diversity + 10 mean square of the raw features.

        Equation 2 of the paper and fairseq's penalty; the mean is over masked frames.

        Raises:
            ValueError: the model has no quantiser.
        """
        mask_BT = self.span_mask(batch)
        generator = draws.on_device(batch.generator, batch.wav_BS.device)
        negatives_MK = sample_negatives(
            mask_BT.sum(dim=1), self.config.negatives, generator=generator
        )
        return self.contrast(batch.wavs(), mask_BT, negatives_MK, generator=generator)

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
            mask_BT: true where a frame is masked, false beyond an utterance's end; on the CPU.
            negatives_MK: for each masked frame, indices into all masked frames of the batch.
            generator: of the Gumbel noise, on the CPU or with the model; needed in training mode.
        """
        quantizer = self.quantizer
        if quantizer is None:
            raise ValueError(
                "this wav2vec2 was read without its quantiser (objective=False): it yields "
                "features and cannot be pretrained"
            )
        config: Config = self.config
        frames = self.frames(wavs)
        device = frames.x_BTD.device
        masked_B = mask_BT.sum(dim=1)
        negatives_MK = negatives_MK.to(device)
        context_MD = picked(self.states(frames, sent(mask_BT, device))[-1], mask_BT)
        target: Quantised = quantizer(
            picked(self.feature_dropout(frames.normed_BTC), mask_BT), generator=generator
        )
        task = contrastive_loss(
            self.final_proj(context_MD),
            self.project_q(target.vectors_MD),
            negatives_MK=negatives_MK,
            codes_MG=target.codes_MG,
            counts_B=masked_B,
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
            penalty = frames.energy()
            total = total + config.penalty_weight * penalty
            parts["penalty"] = penalty.detach()
        return Loss(total=total, parts=parts, weight=float(masked_B.sum()))

    def after_step(self, step: int, total_steps: int) -> None:
        """Lower the temperature of the Gumbel softmax."""
        config: Config = self.config
        if self.quantizer is None:
            return
        decay = config.gumbel_decay
        if decay is None:
            decay = (config.gumbel_end / config.gumbel_start) ** (1 / max(1, total_steps))
        self.quantizer.set_temperature(max(config.gumbel_start * decay**step, config.gumbel_end))


MODEL = Wav2Vec2
