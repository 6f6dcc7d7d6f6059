"""wav2vec: convolutions whose context tells the frames to come from other frames.

Schneider, Baevski, Collobert and Auli 2019, "wav2vec: unsupervised pre-training for speech
recognition" (arXiv 1904.05862). One stack of convolutions turns the waveform into 10 ms frames z,
another, causal one into context c, from which twelve affine maps predict the frames that follow;
each prediction must tell its frame from ten others of the utterance (equation 2).

Every layer ends in a group norm with one group: features depend on the whole utterance, and here on
nothing but the utterance (s3prl's depend on the padding of the batch as well).

Hidden states, as SUPERB counts them: z, then the output of each layer of the context network after
its skip connection: 13 for base.

Variants: ``base`` is the released model, the paper's "wav2vec large", SUPERB's ``wav2vec`` row: with
log compression, skip connections, and copies of the first frame before the utterance, which the
paper does not mention and fairseq has; ``tiny`` learns in minutes on a CPU because its extractor
reads log-mel frames.

Shape suffixes: B batch, T frames, N frames of a ragged batch, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from mynah.upstream.core.aggregator import Aggregator, Extractor
from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.framenorm import valid_frames
from mynah.upstream.core.future import FuturePredictor, blind_loss, draw_others, future_loss
from mynah.upstream.core.packed_aggregator import PackedAggregator, PackedExtractor
from mynah.upstream.core.packing import Packing


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of wav2vec; the defaults are those of the released model.

    Attributes:
        front: ``wave`` for the waveform, ``mel`` for log-mel frames before the extractor.
        num_mels: filters of ``mel``.
        stack: 10 ms frames joined into one of ``mel``.
        channels: width of both stacks.
        kernels: taps of the extractor's layers, over samples or log-mel frames.
        strides: their strides.
        context_kernels: taps of the context network's layers.
        activation: of both.
        log_compression: whether z is log(1 + |x|) of the extractor's output.
        skip: whether the context network has skip connections.
        residual_scale: the sum of input and output is multiplied by the root of this.
        zero_pad: zeros instead of copies of the first frame before the utterance.
        dropout: of the context network's convolutions and of the predictions.
        steps: how many frames ahead to predict.
        offset: first of them; None for the first that shares no sample with the present one.
        negatives: other frames that each one is to be told from.
    """

    front: Literal["wave", "mel"] = "wave"
    num_mels: int = 40
    stack: int = 2
    channels: int = 512  # fairseq: conv_feature_layers
    kernels: tuple[int, ...] = (10, 8, 4, 4, 4, 1, 1)  # fairseq: conv_feature_layers
    strides: tuple[int, ...] = (5, 4, 2, 2, 2, 1, 1)  # fairseq: conv_feature_layers
    context_kernels: tuple[int, ...] = tuple(range(2, 14))  # fairseq: conv_aggregator_layers
    activation: Literal["relu", "gelu"] = "relu"  # fairseq: activation
    log_compression: bool = True  # fairseq: log_compression
    skip: bool = True  # fairseq: skip_connections_agg
    residual_scale: float = 0.5  # fairseq: residual_scale
    zero_pad: bool = False  # fairseq: agg_zero_pad
    dropout: float = 0.0  # fairseq: dropout
    steps: int = 12  # fairseq: prediction_steps
    offset: int | None = None  # fairseq: offset, "auto"
    negatives: int = 10  # fairseq: num_negatives


CONFIGS = {
    "base": Config(),
    "tiny": Config(
        front="mel",
        channels=192,
        kernels=(1, 1),
        strides=(1, 1),
        context_kernels=(2, 3, 4, 5, 6),
        steps=6,
    ),
}


class Wav2Vec(Packing[tuple[PackedExtractor, PackedAggregator]]):
    """Extractor, context network, and the maps that predict the frames to come."""

    name = "wav2vec"
    floors: Mapping[str, float] = MappingProxyType({"embedding_std": 0.01})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
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
        self.offset = self.extractor.offset if config.offset is None else config.offset
        self.least_frames = self.offset + 1
        self.dim = config.channels
        self.num_layers = 1 + len(config.context_kernels)
        self.stride = self.extractor.stride

    # -- frozen features ----------------------------------------------------------------------

    def num_frames(self, n_samples: int) -> int:
        """Return the exact number of frames; fewer samples than one frame sees count as one.

        Raises:
            ValueError: no samples.
        """
        return self.extractor.num_frames(n_samples)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield z and the output of each layer of the context network, float32 (N, D)."""
        counts = [self.num_frames(len(wav)) for wav in wavs]
        extractor, aggregator = self.packed()
        z_ND = torch.cat([extractor(wav) for wav in wavs])
        yield z_ND
        yield from aggregator(z_ND, counts)

    def _pack(self, dtype: torch.dtype) -> tuple[PackedExtractor, PackedAggregator]:
        return (
            PackedExtractor(self.extractor, dtype=dtype),
            PackedAggregator(self.aggregator, dtype=dtype),
        )

    # -- pretraining --------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of telling the frames to come from others (equation 2).

        ``parts`` holds ``blind`` too, the best loss of scores that do not depend on the audio: a
        model that is not below it has learnt nothing; and ``embedding_std``, how much z varies
        from frame to frame.

        Raises:
            ValueError: no utterance of the batch is long enough to predict anything.
        """
        wavs = batch.wavs()
        counts = [self.num_frames(len(wav)) for wav in wavs]
        others_BTN = draw_others(counts, self.config.negatives, generator=batch.generator)
        return self.predict(wavs, others_BTN)

    def predict(self, wavs: Sequence[Tensor], others_BTN: Tensor) -> Loss:
        """Return the objective for given others.

        Args:
            wavs: 1-D waveforms.
            others_BTN: for each frame, the numbers of other frames of its utterance.
        """
        z_BTD, counts = self.extractor(wavs)
        valid_BT = valid_frames(counts, z_BTD.device)
        predicted_BTKD = self.predictor(self.aggregator(z_BTD, valid_BT))
        task = future_loss(predicted_BTKD, z_BTD, others_BTN, counts, offset=self.offset)
        with torch.no_grad():
            z_MD = z_BTD.flatten(0, 1) if valid_BT is None else z_BTD[valid_BT]
            std = z_MD.float().std(dim=0, correction=0).mean()
        parts = {
            "nce": task.loss.detach(),
            "blind": torch.full((), blind_loss(self.config.negatives), device=z_BTD.device),
            "accuracy": task.accuracy,
            "embedding_std": std,
        }
        return Loss(total=task.loss, parts=parts, weight=float(task.count))


MODEL = Wav2Vec
