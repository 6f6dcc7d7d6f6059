"""HuBERT: masked frames are told which cluster they belong to; WavLM as a config.

Hsu, Bolte, Tsai, Lakhotia, Salakhutdinov and Mohamed 2021, "HuBERT: self-supervised speech
representation learning by masked prediction of hidden units" (arXiv 2106.07447). Frames are
clustered by k-means, first of MFCC, then of what the model trained on those has learnt; the model
hears the utterance with spans masked and names the cluster of each masked frame. The labels come
with the batch: ``mynah pretrain hubert`` makes them, iteration by iteration.

The published loss is noise-contrastive over all clusters, which is the cross-entropy of cosines
divided by 0.1; here it is one matrix product with the unit-length cluster vectors instead of an
expanded table of candidates.

``wavlm`` and ``wavlm-large`` are Chen et al. 2022, "WavLM: large-scale self-supervised pre-training
for full stack speech processing" (arXiv 2110.13900): attention adds a gated relative position bias,
and a fifth of the utterances is mixed with a stretch of another one, whose labels stay those of the
first. The noise that WavLM Base+ and Large mix in as well is not: it comes from a corpus of noise.

Hidden states, as SUPERB counts them: the input of each layer and the encoder's output (after the
final layer norm where there is one): 13 for base, 25 for large.

Shape suffixes: B batch, S samples, T frames, D width, M predicted frames, V clusters, F width of
the comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.frames import TINY, FrameConfig, FrameTransformer
from mynah.upstream.core.gumbel import perplexity
from mynah.upstream.core.mixing import mix_utterances
from mynah.upstream.core.select import picked, sent


@dataclass(frozen=True, kw_only=True)
class Config(FrameConfig):
    """Settings of HuBERT; the defaults are the paper's base model as fairseq trains it.

    Attributes:
        objective: false for a model read from elsewhere without the parts that pretraining needs.
        mask_prob: share of frames to mask if spans did not overlap.
        mask_length: frames of a span.
        mask_min_spans: fewest spans of an utterance.
        clusters: labels V.
        final_dim: width in which frames and clusters are compared.
        temperature: divisor of the cosines.
        unmasked_weight: weight of the loss of frames that are not masked.
        penalty_weight: of the mean square of the raw features.
        mix_share: probability that an utterance is mixed with another one in training.
        mix_decibels: largest difference in energy, either way, of what is mixed in.
    """

    objective: bool = True
    mask_prob: float = 0.8  # fairseq: mask_prob
    mask_length: int = 10  # fairseq: mask_length
    mask_min_spans: int = 2
    clusters: int = 100  # paper: section IV-B, 100 in the first iteration, 500 in the second
    final_dim: int = 256  # fairseq: final_dim
    temperature: float = 0.1  # fairseq: logit_temp
    unmasked_weight: float = 0.0  # fairseq: pred_nomask_weight
    penalty_weight: float = 10.0  # fairseq: loss_weights
    mix_share: float = 0.0
    mix_decibels: float = 5.0  # WavLM: section IV-C


_LARGE: dict[str, Any] = {
    "conv_norm": "layer",
    "normalize": True,
    "dim": 1024,
    "layers": 24,
    "heads": 16,
    "ffn": 4096,
    "norm": "pre",
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "layerdrop": 0.0,
    "input_dropout": 0.0,
    "front_grad": 1.0,
    "clusters": 500,
    "final_dim": 768,
}
_WAVLM: dict[str, Any] = {"bias": "gated", "clusters": 500, "mix_share": 0.2}
_TINY: dict[str, Any] = {
    **TINY,
    "mask_prob": 0.65,
    "mask_length": 5,
    "clusters": 100,
    "final_dim": 128,
    "penalty_weight": 0.0,
}

CONFIGS = {
    "base": Config(),
    "large": Config(conv_bias=False, **_LARGE),
    "wavlm": Config(**_WAVLM),
    "wavlm-large": Config(**{**_LARGE, **_WAVLM}),
    "tiny": Config(**_TINY),
    "tiny-wav": Config(
        **{**_TINY, "front": "wave", "front_norm": True, "penalty_weight": 10.0}, conv_channels=128
    ),
    "tiny-wavlm": Config(
        **{**_TINY, **_WAVLM, "clusters": 100}, relative_buckets=32, relative_distance=80
    ),
}


class Hubert(FrameTransformer):
    """Front-end, masking, Transformer, and a comparison of frames with cluster vectors."""

    name = "hubert"
    needs_labels: ClassVar[bool] = True
    floors = MappingProxyType({"prediction_perplexity": 2.0})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.objective:
            self.final_proj = nn.Linear(config.dim, config.final_dim)
            self.clusters_VF = nn.Parameter(torch.rand(config.clusters, config.final_dim))

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the clusters of masked frames.

        Equation 3 of the HuBERT paper with alpha = 1 - ``unmasked_weight``, plus fairseq's penalty;
        the mean is over masked frames.

        Raises:
            ValueError: the batch has no labels, labels of another length, or unknown ones.
        """
        if batch.labels is None:
            raise ValueError(
                "hubert predicts the clusters of frames and the batch names none: use "
                "'mynah pretrain hubert', which makes them, or set Batch.labels"
            )
        wavs = batch.wavs()
        mask_BT = self.span_mask(batch)
        labels_BT = torch.full(mask_BT.shape, -1, dtype=torch.int64)
        for row, (wav, labels_T) in enumerate(zip(wavs, batch.labels, strict=True)):
            count = self.num_frames(len(wav))
            if len(labels_T) != count:
                raise ValueError(
                    f"{batch.ids[row]}: {len(labels_T)} labels for {count} frames; labels must be "
                    "made for frames of this model"
                )
            labels_BT[row, :count] = labels_T
        if self.training and self.config.mix_share:
            wavs = mix_utterances(
                wavs,
                share=self.config.mix_share,
                decibels=self.config.mix_decibels,
                generator=batch.generator,
            )
        return self.predict(wavs, mask_BT, labels_BT)

    def predict(self, wavs: Sequence[Tensor], mask_BT: Tensor, labels_BT: Tensor) -> Loss:
        """Return the objective for given masks and labels.

        Args:
            wavs: 1-D waveforms.
            mask_BT: true where a frame is masked, false beyond an utterance's end; on the CPU.
            labels_BT: cluster of each frame, -1 where there is none; on the CPU.

        Raises:
            ValueError: the model has no cluster vectors, or a label is beyond them.
        """
        config: Config = self.config
        if not config.objective:
            raise ValueError(
                "this hubert was read without its cluster vectors (objective=False): it yields "
                "features and cannot be pretrained"
            )
        top = int(labels_BT.max())
        if top >= config.clusters:
            raise ValueError(
                f"label {top} for a model with {config.clusters} clusters: set model.clusters"
            )
        frames = self.frames(wavs)
        last_BTD = self.states(frames, sent(mask_BT, frames.x_BTD.device))[-1]
        known_BT = labels_BT >= 0
        masked = self._cross_entropy(last_BTD, labels_BT, mask_BT & known_BT)
        total = masked.loss
        if config.unmasked_weight:
            rest = self._cross_entropy(last_BTD, labels_BT, ~mask_BT & known_BT)
            total = total + config.unmasked_weight * rest.loss * (rest.count / max(masked.count, 1))
        parts = {
            "cross_entropy": masked.loss.detach(),
            "accuracy": masked.accuracy,
            "prediction_perplexity": masked.perplexity,
        }
        if config.penalty_weight:
            penalty = frames.energy()
            total = total + config.penalty_weight * penalty
            parts["penalty"] = penalty.detach()
        return Loss(total=total, parts=parts, weight=float(max(masked.count, 1)))

    def _cross_entropy(self, last_BTD: Tensor, labels_BT: Tensor, where_BT: Tensor) -> Prediction:
        frames_MF = self.final_proj(picked(last_BTD, where_BT))
        labels_M = sent(labels_BT[where_BT], last_BTD.device)
        if not len(labels_M):  # nothing to predict: a zero that every weight is part of
            zero = frames_MF.sum() + 0.0 * self.clusters_VF.sum()
            return Prediction(zero, zero.new_zeros(()), zero.new_ones(()), 0)
        # a zero vector has no direction; fairseq's cosine divides by at least 1e-8 too
        frames_MF = F.normalize(frames_MF.float(), dim=1, eps=1e-8)
        clusters_VF = F.normalize(self.clusters_VF.float(), dim=1, eps=1e-8)
        logits_MV = frames_MF @ clusters_VF.T / self.config.temperature
        loss = F.cross_entropy(logits_MV, labels_M)
        with torch.no_grad():
            accuracy = (logits_MV.argmax(dim=1) == labels_M).float().mean()
            spread = perplexity(logits_MV.softmax(dim=1).mean(dim=0, keepdim=True))
        return Prediction(loss, accuracy, spread, len(labels_M))


@dataclass(frozen=True)
class Prediction:
    """Loss over some frames, share of right answers, exp(entropy) of the mean answer, frames."""

    loss: Tensor
    accuracy: Tensor
    perplexity: Tensor
    count: int


MODEL = Hubert
