"""data2vec: masked frames predict what a slower copy of the model makes of the whole utterance.

Baevski, Hsu, Xu, Babu, Gu and Auli 2022, "data2vec: a general framework for self-supervised
learning in speech, vision and language" (arXiv 2202.03555). The teacher, an exponential moving
average of the Transformer, hears the utterance without masks; the targets are the feed-forward
outputs of its last layers, each normalised over time, averaged. The student hears spans masked and
regresses the targets of the masked frames.

``base2`` is data2vec 2.0 (Baevski, Babu, Hsu and Auli 2022, arXiv 2212.07525): several masked clones
of an utterance share one pass of the teacher, the encoder sees only the frames that are not masked,
attention adds ALiBi, and a small convolutional decoder predicts the masked frames. Its teacher
averages the position embedding too; that of the first version takes the student's.

What differs from fairseq: targets are normalised over an utterance's true frames, fairseq's over the
padding of its batch as well (the same where all are equally long), and 2.0 leaves a frame of
utterances so short that a span would cover them.

Hidden states, as SUPERB counts them: the input of each layer and the encoder's output: 13 for base,
25 for large.

Variants: ``base`` and ``large`` are the first paper's, ``base2`` the second's; ``tiny`` and ``tiny2``
learn in minutes on a CPU because their front-end is a log-mel filterbank.

Shape suffixes: B batch, T frames, D width, M masked frames of the whole batch, R rows: masked clones
of utterances, those of an utterance one after another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.data2vec_decoder import ConvDecoder, leave_a_frame, visible
from mynah.upstream.core.ema import make_teacher
from mynah.upstream.core.ema_teacher import follow, layer_targets, linear_decay
from mynah.upstream.core.frames import TINY, FrameConfig, Frames, FrameTransformer
from mynah.upstream.core.health import spread
from mynah.upstream.core.masking import span_mask
from mynah.upstream.core.transformer import Encoder


@dataclass(frozen=True, kw_only=True)
class Config(FrameConfig):
    """Settings of data2vec; the defaults are the paper's base model as fairseq trains it.

    Attributes:
        objective: false for a model read from elsewhere without the parts that pretraining needs.
        mask_prob: share of frames to mask if spans did not overlap.
        mask_length: frames of a span.
        mask_min_spans: fewest spans of an utterance.
        top_layers: layers of the teacher that make up the targets.
        ema_start: share of itself that the teacher keeps in the first step.
        ema_end: the same once it has grown.
        ema_anneal: steps over which it grows; up to 1, a share of the run.
        clones: masked clones of an utterance in data2vec 2.0; 0 for the first version, whose encoder
            sees a vector in place of masked frames.
        mask_noise: standard deviation of what 2.0's decoder sees in place of masked frames.
        decoder_dim: width of its convolutions.
        decoder_kernel: their taps.
        decoder_groups: their groups.
        decoder_depth: their number.
        decoder_dropout: of its input.
    """

    conv_norm: Literal["group", "layer"] = "layer"  # fairseq: extractor_mode
    normalize: bool = True  # fairseq: task.normalize
    position: Literal["conv", "conv-stack", "none"] = "conv-stack"  # fairseq: pos_conv_depth 5
    pos_kernel: int = 19  # fairseq: conv_pos 95 / pos_conv_depth
    input_dropout: float = 0.0  # fairseq: dropout_input
    front_grad: float = 1.0  # fairseq: feature_grad_mult
    objective: bool = True
    mask_prob: float = 0.65  # fairseq: mask_prob
    mask_length: int = 10  # fairseq: mask_length
    mask_min_spans: int = 1  # fairseq: min_masks
    top_layers: int = 8  # fairseq: average_top_k_layers
    ema_start: float = 0.999  # fairseq: ema_decay
    ema_end: float = 0.9999  # fairseq: ema_end_decay
    ema_anneal: float = 30000.0  # fairseq: ema_anneal_end_step
    clones: int = 0  # fairseq: clone_batch
    mask_noise: float = 0.01  # fairseq: mask_noise_std
    decoder_dim: int = 384  # fairseq: decoder_dim
    decoder_kernel: int = 7  # fairseq: decoder_kernel
    decoder_groups: int = 16  # fairseq: decoder_groups
    decoder_depth: int = 4  # fairseq: decoder_layers
    decoder_dropout: float = 0.1  # fairseq: input_dropout


_SECOND: dict[str, Any] = {"bias": "alibi", "mask_prob": 0.5, "mask_length": 5}
_TINY: dict[str, Any] = {
    **TINY,
    "position": "conv",
    "input_dropout": 0.0,
    "mask_prob": 0.65,
    "mask_length": 10,
    "top_layers": 2,
    "ema_anneal": 0.5,
}

CONFIGS = {
    "base": Config(),
    "large": Config(dim=1024, layers=24, heads=16, ffn=4096),
    "base2": Config(clones=8, ema_end=0.99999, ema_anneal=75000.0, **_SECOND),
    "tiny": Config(**_TINY),
    "tiny2": Config(
        clones=4,
        decoder_dim=192,
        decoder_depth=2,
        **{**_TINY, **_SECOND},
    ),
}


class Data2Vec(FrameTransformer):
    """Front-end, Transformer, its slower copy, and a head or a decoder that predicts the latter."""

    name = "data2vec"
    floors = MappingProxyType({"target_std": 0.1, "prediction_std": 0.01})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if not 1 <= config.top_layers <= config.layers and config.objective:
            raise ValueError(
                f"top_layers must be between 1 and the {config.layers} layers, got "
                f"{config.top_layers}"
            )
        self.teacher: Encoder | None = None
        self.decoder: ConvDecoder | None = None
        if config.clones:
            del self.mask_emb  # 2.0 has nothing in place of masked frames
        if not config.objective:
            return
        self.teacher = make_teacher(self.encoder).eval()
        if config.clones:
            self.decoder = ConvDecoder(
                config.dim,
                width=config.decoder_dim,
                kernel=config.decoder_kernel,
                groups=config.decoder_groups,
                depth=config.decoder_depth,
                dropout=config.decoder_dropout,
            )
        else:
            self.final_proj = nn.Linear(config.dim, config.dim)

    def train(self, mode: bool = True) -> Self:
        """Switch training mode; the teacher stays in eval mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def loss(self, batch: Batch) -> Loss:
        """Return the squared error of masked frames, summed over channels, over sqrt(D).

        Equation 2 of the first paper as fairseq scales it; the mean is over masked frames (of all
        clones). ``parts`` holds ``mean`` too, the error of predicting the mean target of the batch:
        a model that is not below it has learnt nothing.

        Raises:
            ValueError: the model has no teacher.
        """
        mask_RT = self.draw_mask(batch)
        noise_MD = None
        if self.config.clones:
            count = int(mask_RT.sum())
            noise_MD = torch.randn(count, self.dim, generator=batch.generator)
            noise_MD *= self.config.mask_noise
        return self.regress(batch.wavs(), mask_RT, noise_MD)

    def draw_mask(self, batch: Batch) -> Tensor:
        """Draw which frames to mask: bool (B, T), or (R, T) for the clones of data2vec 2.0."""
        config: Config = self.config
        if not config.clones:
            return self.span_mask(batch)
        counts = torch.tensor([self.num_frames(int(n)) for n in batch.lengths_B])
        counts_R = counts.repeat_interleave(config.clones)
        mask_RT = span_mask(
            counts_R,
            prob=config.mask_prob,
            length=config.mask_length,
            generator=batch.generator,
            min_spans=config.mask_min_spans,
            same_count=len(set(counts.tolist())) == 1,
        )
        return leave_a_frame(mask_RT, torch.arange(mask_RT.shape[1]) < counts_R[:, None])

    def regress(
        self, wavs: Sequence[Tensor], mask_RT: Tensor, noise_MD: Tensor | None = None
    ) -> Loss:
        """Return the objective for given masks.

        Args:
            wavs: 1-D waveforms.
            mask_RT: true where a frame is masked, false beyond an utterance's end; one row per
                utterance, or per clone.
            noise_MD: what the decoder of data2vec 2.0 sees in place of masked frames.

        Raises:
            ValueError: the model has no teacher, or 2.0 was given no noise.
        """
        teacher = self.teacher
        if teacher is None:
            raise ValueError(
                "this data2vec was read without its teacher (objective=False): it yields features "
                "and cannot be pretrained"
            )
        frames = self.frames(wavs)
        mask_RT = mask_RT.to(frames.x_BTD.device)
        with torch.no_grad():
            # the teacher hears what the student does, but without dropout
            x_BTD = self.frontend.proj(frames.normed_BTC)
            layers = layer_targets(teacher, x_BTD, frames.padding(), top=self.config.top_layers)
            target_BTD = torch.stack(layers).mean(dim=0)
        row_M, time_M = mask_RT.nonzero(as_tuple=True)
        target_MD = target_BTD[row_M // max(1, self.config.clones), time_M]
        if self.decoder is None:
            predicted_MD = self.final_proj(self.states(frames, mask_RT)[-1][mask_RT])
        elif noise_MD is None:
            raise ValueError("data2vec 2.0 needs noise_MD, one row for each masked frame")
        else:
            predicted_MD = self._fill_in(frames, mask_RT, noise_MD)[mask_RT]
        error_MD = (predicted_MD.float() - target_MD).square()
        masked, root = max(1, len(target_MD)), math.sqrt(self.dim)
        total = error_MD.sum() / (root * masked)
        centred_MD = target_MD - target_MD.sum(dim=0) / masked
        parts = {
            "regression": total.detach(),
            "mean": centred_MD.square().sum() / (root * masked),
            "target_std": spread(target_MD),
            "prediction_std": spread(predicted_MD),
        }
        return Loss(total=total, parts=parts, weight=float(masked))

    def _fill_in(self, frames: Frames, mask_RT: Tensor, noise_MD: Tensor) -> Tensor:
        """Return data2vec 2.0's predictions (R, T, D) from the frames that are not masked."""
        assert self.decoder is not None
        clones = self.config.clones
        x_RTD = frames.x_BTD.repeat_interleave(clones, dim=0)
        valid_RT = frames.valid_BT.repeat_interleave(clones, dim=0)
        padding_RT = None if frames.padding() is None else valid_RT
        seen = visible(mask_RT, valid_RT)
        # masked frames count as zeros for the position embedding, then they are left out
        placed_RTD = self.encoder.place(x_RTD * ~mask_RT[..., None], padding_RT)
        states = self.encoder.attend(
            seen.take(placed_RTD), seen.padding_RK, distance_BTT=seen.distances()
        )
        predicted_RTD: Tensor = self.decoder(states[-1], seen, mask_RT, noise_MD, padding_RT)
        return predicted_RTD

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the teacher towards the student."""
        if self.teacher is None:
            return
        config: Config = self.config
        decay = linear_decay(
            step,
            total_steps,
            start=config.ema_start,
            end=config.ema_end,
            length=config.ema_anneal,
        )
        follow(self.teacher, self.encoder, decay, copy_position=not config.clones)


MODEL = Data2Vec
