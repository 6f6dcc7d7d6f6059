"""vq-wav2vec: wav2vec whose frames are codes.

Baevski, Schneider and Auli 2020, "vq-wav2vec: self-supervised learning of discrete speech
representations" (arXiv 1910.05453). Each 10 ms frame of wav2vec's extractor is replaced by a code
from each of two groups; context is computed from codes, and codes are what is to be predicted.
The codes are chosen by a Gumbel softmax (section 3.1) or as the nearest ones (section 3.2). A BERT
learns on such codes in :mod:`mynah.upstream.code_bert`.

Hidden states, as SUPERB counts them: the extractor's output *before* it is quantised, then the
output of each layer of the context network: 13 for base and kmeans.

A code is a decision: rounding may tip it, and then all that follows changes. Therefore extractor and
quantiser always run in float32, one utterance at a time, whatever the precision asked for; only the
context network runs in bfloat16.

Variants: ``base`` (Gumbel) and ``kmeans`` are fairseq's published ones; ``tiny`` and ``tiny-kmeans``
learn in minutes on a CPU because their extractor reads log-mel frames. The published Gumbel model
has no diversity term; the tiny one needs it.

Shape suffixes: B batch, T frames, N frames of a ragged batch, M true frames of a padded batch,
D width, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mynah.upstream.core.aggregator import Aggregator, Extractor
from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.contrastive import diversity_loss
from mynah.upstream.core.deep_gumbel import DeepGumbel
from mynah.upstream.core.framenorm import valid_frames
from mynah.upstream.core.future import FuturePredictor, blind_loss, draw_others, future_loss
from mynah.upstream.core.kmeans_quantizer import KmeansQuantizer
from mynah.upstream.core.packed_aggregator import PackedAggregator, PackedExtractor
from mynah.upstream.core.packing import Packing


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of vq-wav2vec; the defaults are fairseq's published Gumbel model.

    Attributes:
        front: ``wave`` for the waveform, ``mel`` for log-mel frames before the extractor.
        num_mels: filters of ``mel``.
        stack: 10 ms frames joined into one of ``mel``.
        channels: width of both stacks and of a quantised frame.
        kernels: taps of the extractor's layers, over samples or log-mel frames.
        strides: their strides.
        context_kernels: taps of the context network's layers.
        activation: of both.
        log_compression: whether frames are log(1 + |x|) of the extractor's output.
        skip: whether the context network has skip connections.
        residual_scale: the sum of input and output is multiplied by the root of this.
        zero_pad: zeros instead of copies of the first frame before the utterance.
        dropout: of the context network's convolutions and of the predictions.
        steps: how many frames ahead to predict.
        offset: first of them; None for the first that shares no sample with the present one.
        negatives: other frames that each one is to be told from.
        quantizer: ``gumbel`` or ``kmeans``.
        groups: groups of channels, each with a code.
        codes: codes of a group.
        shared: one set of codes for all groups.
        depth: layers before the Gumbel softmax.
        gumbel_start: its first temperature.
        gumbel_end: its last.
        gumbel_decay: factor per step; None falls evenly (in logarithm) from start to end over the
            run.
        diversity_weight: of the term that wants a Gumbel softmax to use all codes, between 0 and 1
            (fairseq's is larger by groups times codes).
        commitment: how much less than codes to frames the frames move to the nearest codes.
        kmeans_weight: of these two terms together.
        patience: steps after which a nearest code that no frame is near is put on one; None never
            does that.
    """

    front: Literal["wave", "mel"] = "wave"
    num_mels: int = 40
    stack: int = 2
    channels: int = 512  # fairseq: conv_feature_layers; vq_dim 0
    kernels: tuple[int, ...] = (10, 8, 4, 4, 4, 1, 1, 1)  # fairseq: conv_feature_layers
    strides: tuple[int, ...] = (5, 4, 2, 2, 2, 1, 1, 1)  # fairseq: conv_feature_layers
    context_kernels: tuple[int, ...] = tuple(range(2, 14))  # fairseq: conv_aggregator_layers
    activation: Literal["relu", "gelu"] = "gelu"  # fairseq: activation
    log_compression: bool = True  # fairseq: log_compression, its default
    skip: bool = True  # fairseq: skip_connections_agg
    residual_scale: float = 0.5  # fairseq: residual_scale
    zero_pad: bool = False  # fairseq: agg_zero_pad
    dropout: float = 0.0  # fairseq: dropout
    steps: int = 12  # fairseq: prediction_steps
    offset: int | None = None  # fairseq: offset, "auto"
    negatives: int = 10  # fairseq: num_negatives
    quantizer: Literal["gumbel", "kmeans"] = "gumbel"  # fairseq: vq_type
    groups: int = 2  # fairseq: vq_groups
    codes: int = 320  # fairseq: vq_vars
    shared: bool = True  # fairseq: combine_groups
    depth: int = 2  # fairseq: vq_depth
    gumbel_start: float = 2.0  # fairseq: vq_temp[0]
    gumbel_end: float = 0.5  # fairseq: vq_temp[1]
    gumbel_decay: float | None = 0.999995  # fairseq: vq_temp[2]
    diversity_weight: float = 0.0  # fairseq: loss_weights, not given
    commitment: float = 0.25  # fairseq: vq_gamma
    kmeans_weight: float = 1.0  # fairseq: loss_weights [1]
    patience: int | None = None


_TINY: dict[str, Any] = {
    "front": "mel",
    "channels": 192,
    "kernels": (1, 1),
    "strides": (1, 1),
    "context_kernels": (2, 3, 4, 5, 6),
    "steps": 6,
    "codes": 32,
    "shared": False,
}

CONFIGS = {
    "base": Config(),
    "kmeans": Config(quantizer="kmeans"),
    "tiny": Config(depth=1, gumbel_decay=None, diversity_weight=0.2, **_TINY),
    "tiny-kmeans": Config(quantizer="kmeans", patience=20, **_TINY),
}


class Coder(nn.Module):
    """Extractor and quantiser: from waveforms to codes.

    Args:
        config: of the whole model.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.extractor = Extractor(
            config.channels,
            config.kernels,
            config.strides,
            front=config.front,
            num_mels=config.num_mels,
            stack=config.stack,
            activation=config.activation,
            log_compression=config.log_compression,
        )
        self.quantizer: KmeansQuantizer | DeepGumbel
        if config.quantizer == "kmeans":
            self.quantizer = KmeansQuantizer(
                config.channels,
                groups=config.groups,
                codes=config.codes,
                shared=config.shared,
                commitment=config.commitment,
                patience=config.patience,
            )
        elif config.quantizer == "gumbel":
            self.quantizer = DeepGumbel(
                config.channels,
                groups=config.groups,
                codes=config.codes,
                shared=config.shared,
                depth=config.depth,
                activation=config.activation,
                temperature=config.gumbel_start,
            )
        else:
            raise ValueError(f"quantizer must be 'gumbel' or 'kmeans', got {config.quantizer!r}")

    @torch.no_grad()
    def codes(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Return the codes of each utterance, int64 (T, G), computed on it alone."""
        extract = PackedExtractor(self.extractor, dtype=torch.float32)
        return [self.quantizer.choose(extract(wav)) for wav in wavs]


class VqWav2Vec(Packing[tuple[PackedExtractor, PackedAggregator]]):
    """Coder, context network over codes, and the maps that predict the codes to come."""

    name = "vq_wav2vec"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.coder = Coder(config)
        self.aggregator = Aggregator(
            config.channels,
            config.context_kernels,
            activation=config.activation,
            skip=config.skip,
            residual_scale=config.residual_scale,
            zero_pad=config.zero_pad,
            dropout=config.dropout,
        )
        self.predictor = FuturePredictor(config.channels, config.steps, dropout=config.dropout)
        self.offset = self.coder.extractor.offset if config.offset is None else config.offset
        self.least_frames = self.offset + 1
        self.dim = config.channels
        self.num_layers = 1 + len(config.context_kernels)
        self.stride = self.coder.extractor.stride
        self.floors = {"code_perplexity": 2.0 * config.groups}  # groups: one code each

    # -- frozen features ----------------------------------------------------------------------

    def num_frames(self, n_samples: int) -> int:
        """Return the exact number of frames; fewer samples than one frame sees count as one.

        Raises:
            ValueError: no samples.
        """
        return self.coder.extractor.num_frames(n_samples)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the extractor's output and that of each layer over the codes, float32 (N, D)."""
        counts = [self.num_frames(len(wav)) for wav in wavs]
        extractor, aggregator = self.packed()
        with torch.no_grad():
            parts = [extractor(wav) for wav in wavs]
            quantizer = self.coder.quantizer
            codes_NG = torch.cat([quantizer.choose(z_TD) for z_TD in parts])
            x_ND = quantizer.lookup(codes_NG)
        yield torch.cat(parts)
        yield from aggregator(x_ND, counts)

    def codes(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Return the codes of each utterance, int64 (T, G)."""
        return self.coder.codes(wavs)

    def _pack(self, dtype: torch.dtype) -> tuple[PackedExtractor, PackedAggregator]:
        return (
            PackedExtractor(self.coder.extractor, dtype=torch.float32),
            PackedAggregator(self.aggregator, dtype=dtype),
        )

    # -- pretraining --------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of telling the codes to come from others, and the quantiser's own terms.

        ``parts`` holds ``blind`` too, the best loss of scores that do not depend on the audio: a
        model that is not below it has learnt nothing.

        Raises:
            ValueError: no utterance of the batch is long enough to predict anything.
        """
        wavs = batch.wavs()
        counts = [self.num_frames(len(wav)) for wav in wavs]
        others_BTN = draw_others(counts, self.config.negatives, generator=batch.generator)
        return self.predict(wavs, others_BTN, generator=batch.generator)

    def predict(
        self, wavs: Sequence[Tensor], others_BTN: Tensor, *, generator: torch.Generator | None
    ) -> Loss:
        """Return the objective for given others.

        Args:
            wavs: 1-D waveforms.
            others_BTN: for each frame, the numbers of other frames of its utterance.
            generator: of the Gumbel noise; needed by that quantiser in training mode.
        """
        config: Config = self.config
        z_BTD, counts = self.coder.extractor(wavs)
        valid_BT = valid_frames(counts, z_BTD.device)
        quantizer = self.coder.quantizer
        if isinstance(quantizer, KmeansQuantizer):
            nearest = quantizer(z_BTD, valid_BT, generator=generator)
            vectors_MD, code_perplexity = nearest.vectors_MF, nearest.code_perplexity
            name, term, weight = "kmeans", nearest.loss, config.kmeans_weight
        else:
            z_MD = z_BTD.flatten(0, 1) if valid_BT is None else z_BTD[valid_BT]
            found = quantizer(z_MD, generator=generator)
            vectors_MD, code_perplexity = found.vectors_MD, found.code_perplexity
            name, term = "diversity", diversity_loss(found.probs_GV)
            weight = config.diversity_weight
        x_BTD = _unpacked(vectors_MD, valid_BT, z_BTD.shape)
        predicted_BTKD = self.predictor(self.aggregator(x_BTD, valid_BT))
        task = future_loss(predicted_BTKD, x_BTD, others_BTN, counts, offset=self.offset)
        parts = {
            "nce": task.loss.detach(),
            "blind": torch.full((), blind_loss(config.negatives), device=z_BTD.device),
            name: term.detach(),
            "accuracy": task.accuracy,
            "code_perplexity": code_perplexity.detach(),
        }
        if isinstance(quantizer, DeepGumbel):
            parts["temperature"] = quantizer.temperature.detach().clone()
        total = task.loss + weight * term if weight else task.loss
        return Loss(total=total, parts=parts, weight=float(task.count))

    def after_step(self, step: int, total_steps: int) -> None:
        """Lower the temperature of the Gumbel softmax, or put idle codes on frames."""
        config: Config = self.config
        quantizer = self.coder.quantizer
        if isinstance(quantizer, KmeansQuantizer):
            quantizer.after_step()
        else:
            decay = config.gumbel_decay
            if decay is None:
                decay = (config.gumbel_end / config.gumbel_start) ** (1 / max(1, total_steps))
            quantizer.set_temperature(max(config.gumbel_start * decay**step, config.gumbel_end))


def _unpacked(x_MD: Tensor, valid_BT: Tensor | None, shape: torch.Size) -> Tensor:
    """Return frames laid end to end as a batch (B, T, D), zero beyond each utterance's end."""
    if valid_BT is None:
        return x_MD.reshape(shape)
    return x_MD.new_zeros(shape).masked_scatter(valid_BT[..., None], x_MD)


MODEL = VqWav2Vec
