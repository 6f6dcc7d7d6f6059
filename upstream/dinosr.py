"""DinoSR: masked frames are told which cluster a slower copy of the model puts them in.

Liu, Chang, Auli, Hsu and Glass 2023, "DinoSR: self-distillation and online clustering for
self-supervised speech representation learning" (arXiv 2305.10005). As in data2vec the teacher is an
exponential moving average of the Transformer and hears the utterance without masks. Each of its last
layers has a codebook; the nearest code of the normalised feed-forward output is the label of a masked
frame, and the code moves towards the frames that chose it. The student names all labels from its
last layer. From half of the run on, the teacher and the front-end rest.

``spidr`` is Poli et al. 2025, "SpidR: learning fast and stable linguistic units for spoken language
models without supervision" (arXiv 2512.20308): each layer of the student names the labels of the
same layer of the teacher, from its own feed-forward output; the teacher starts from other random
weights and slows down exponentially.

What differs: targets are normalised over an utterance's true frames, not over the padding of its
batch; codebooks move once per optimiser step, also where it accumulates batches; SpidR's attention
has no biases in queries, keys and values, ours has them.

Hidden states, as SUPERB counts them: the input of each layer and the encoder's output, 13 for base.

Variants: ``base`` is DinoSR's, ``spidr`` SpidR's; ``tiny`` learns in minutes on a CPU because its
front-end is a log-mel filterbank.

Shape suffixes: B batch, T frames, D width, M masked frames of the whole batch, G codebooks, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.ema import ema_update, make_teacher
from mynah.upstream.core.ema_teacher import (
    exponential_decay,
    follow,
    layer_targets,
    linear_decay,
    span,
)
from mynah.upstream.core.frames import TINY, FrameConfig, FrameTransformer
from mynah.upstream.core.gumbel import perplexity
from mynah.upstream.core.online_codebook import OnlineCodebook
from mynah.upstream.core.transformer import Encoder


@dataclass(frozen=True, kw_only=True)
class Config(FrameConfig):
    """Settings of DinoSR; the defaults are the paper's base model as its authors train it.

    Attributes:
        objective: false for a model read from elsewhere without the parts that pretraining needs.
        mask_prob: share of frames to mask if spans did not overlap.
        mask_length: frames of a span.
        mask_min_spans: fewest spans of an utterance.
        top_layers: layers of the teacher that have a codebook.
        codes: codes of each.
        code_decay: share of itself that a code keeps in a step in which it was used.
        read: what names the labels: the student's ``last`` layer, or ``each`` of its layers those of
            the same layer of the teacher.
        teacher_start: the teacher begins as a ``copy`` of the student or with its own ``random``
            weights.
        ema_start: share of itself that the teacher keeps in the first step.
        ema_end: the same once it has grown.
        ema_anneal: steps over which it grows; up to 1, a share of the run.
        ema_timescale: it grows exponentially instead, over so many steps (or such a share of the
            run), until the teacher rests; 0 for not.
        freeze: step, or share of the run, from which the front-end rests and, unless a timescale
            says when, the teacher; 0 for never.
    """

    conv_norm: Literal["group", "layer"] = "layer"  # fairseq: extractor_mode
    normalize: bool = True  # fairseq: task.normalize
    position: Literal["conv", "conv-stack", "none"] = "conv-stack"  # fairseq: pos_conv_depth 5
    pos_kernel: int = 19  # fairseq: conv_pos 95 / pos_conv_depth
    input_dropout: float = 0.0  # fairseq: dropout_input
    front_grad: float = 1.0  # fairseq: feature_grad_mult
    objective: bool = True
    mask_prob: float = 0.8  # fairseq: mask_prob
    mask_length: int = 10  # fairseq: mask_length
    mask_min_spans: int = 1  # fairseq: min_masks
    top_layers: int = 8  # fairseq: average_top_k_layers
    codes: int = 256  # fairseq: codebook_size
    code_decay: float = 0.9  # fairseq: codebook_init_decay
    read: Literal["last", "each"] = "last"
    teacher_start: Literal["copy", "random"] = "copy"
    ema_start: float = 0.999  # fairseq: ema_decay
    ema_end: float = 0.9999  # fairseq: ema_end_decay
    ema_anneal: float = 30000.0  # fairseq: ema_anneal_end_step
    ema_timescale: float = 0.0
    freeze: float = 200000.0  # SpidR: freeze_step; fairseq: freeze_teacher_step 200001


_TINY: dict[str, Any] = {
    **TINY,
    "position": "conv",
    "input_dropout": 0.0,
    "mask_prob": 0.65,
    "mask_length": 5,
    "top_layers": 2,
    "codes": 64,
    "ema_start": 0.99,
    "ema_end": 0.999,
    "ema_anneal": 0.5,
    "freeze": 0.0,
}

CONFIGS = {
    "base": Config(),
    "spidr": Config(
        layerdrop=0.0,  # SpidR: encoder_layer_drop
        mask_min_spans=2,  # SpidR: min_masks
        read="each",
        teacher_start="random",
        ema_timescale=20000.0,  # SpidR: ema_timescale
    ),
    "tiny": Config(**_TINY),
}


class DinoSr(FrameTransformer):
    """Front-end, Transformer, its slower copy, a codebook per layer of the latter, and classifiers."""

    name = "dinosr"
    floors = MappingProxyType({"code_perplexity": 4.0, "prediction_perplexity": 2.0})
    front_rests: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.teacher: Encoder | None = None
        if not config.objective:
            return
        if not 1 <= config.top_layers <= config.layers:
            raise ValueError(
                f"top_layers must be between 1 and the {config.layers} layers, got "
                f"{config.top_layers}"
            )
        if config.read not in ("last", "each") or config.teacher_start not in ("copy", "random"):
            raise ValueError(
                "read must be 'last' or 'each' and teacher_start 'copy' or 'random', got "
                f"{config.read!r} and {config.teacher_start!r}"
            )
        if config.read == "each" and config.layerdrop:
            raise ValueError(
                f"read='each' needs every layer in every step: layerdrop must be 0, got "
                f"{config.layerdrop}"
            )
        self.teacher = make_teacher(self.encoder).eval()
        if config.teacher_start == "random":
            self.teacher = make_teacher(Encoder(config.encoder())).eval()
            if self.teacher.pos is not None and self.encoder.pos is not None:
                ema_update(self.teacher.pos, self.encoder.pos, 0.0)
        self.codebook = OnlineCodebook(
            config.top_layers, config.codes, config.dim, decay=config.code_decay
        )
        self.heads = nn.ModuleList(
            nn.Linear(config.dim, config.codes) for _ in range(config.top_layers)
        )
        self.register_buffer("front_rests", torch.tensor(False))

    def train(self, mode: bool = True) -> Self:
        """Switch training mode; the teacher stays in eval mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the labels of masked frames, mean over codebooks.

        Equation 5 of the paper; the mean is over masked frames. ``parts`` holds ``prior`` too, the
        entropy of the labels of the batch, which is the loss of a model that knows how frequent they
        are and nothing else.

        Raises:
            ValueError: the model has no teacher.
        """
        return self.predict(batch.wavs(), self.span_mask(batch))

    def predict(self, wavs: Sequence[Tensor], mask_BT: Tensor) -> Loss:
        """Return the objective for a given mask; in training mode the codebook notes the frames.

        Args:
            wavs: 1-D waveforms.
            mask_BT: true where a frame is masked, false beyond an utterance's end.

        Raises:
            ValueError: the model has no teacher.
        """
        teacher, config = self.teacher, self.config
        if teacher is None:
            raise ValueError(
                "this dinosr was read without its teacher (objective=False): it yields features "
                "and cannot be pretrained"
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not bool(self.front_rests)):
            frames = self.frames(wavs)
        mask_BT = mask_BT.to(frames.x_BTD.device)
        with torch.no_grad():
            # the teacher hears what the student does, but without dropout
            x_BTD = self.frontend.proj(frames.normed_BTC)
            layers = layer_targets(teacher, x_BTD, frames.padding(), top=config.top_layers)
            target_GMD = torch.stack([layer_BTD[mask_BT] for layer_BTD in layers])
            codes_GM = self.codebook.nearest(target_GMD)
            if self.training:
                self.codebook.gather(target_GMD, codes_GM)
        fed: list[Tensor] = []
        last_BTD = self.states(frames, mask_BT, fed=fed)[-1]
        if config.read == "each":
            heard = [fed_BTD[mask_BT] for fed_BTD in fed[-config.top_layers :]]
        else:
            heard = [last_BTD[mask_BT]] * config.top_layers
        masked = max(1, codes_GM.shape[1])
        total = last_BTD.new_zeros((), dtype=torch.float32)
        health: list[dict[str, Tensor]] = []
        for head, heard_MD, codes_M in zip(self.heads, heard, codes_GM, strict=True):
            logits_MV = head(heard_MD).float()
            total = total + F.cross_entropy(logits_MV, codes_M, reduction="sum")
            health.append(_health(logits_MV.detach(), codes_M))
        total = total / (len(self.heads) * masked)
        parts = {key: torch.stack([h[key] for h in health]).mean() for key in health[0]}
        parts["cross_entropy"] = total.detach()
        return Loss(total=total, parts=parts, weight=float(masked))

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the codes and the teacher; late in the run teacher and front-end rest."""
        config: Config = self.config
        if self.teacher is None:
            return
        self.codebook.follow()
        rest = bool(config.freeze) and step >= span(config.freeze, total_steps)
        self.front_rests.fill_(rest)
        if config.ema_timescale:
            decay = exponential_decay(
                step, total_steps, start=config.ema_start, timescale=config.ema_timescale
            )
        elif rest:
            decay = 1.0
        else:
            decay = linear_decay(
                step,
                total_steps,
                start=config.ema_start,
                end=config.ema_end,
                length=config.ema_anneal,
            )
        follow(self.teacher, self.encoder, decay, copy_position=True)


def _health(logits_MV: Tensor, codes_M: Tensor) -> dict[str, Tensor]:
    """Return accuracy, the labels' entropy, and how many codes are in use."""
    frames, codes = logits_MV.shape
    if not frames:
        return {}
    share_1V = codes_M.bincount(minlength=codes)[None].float() / frames
    answers_1V = logits_MV.softmax(dim=1).mean(dim=0, keepdim=True)
    return {
        "accuracy": (logits_MV.argmax(dim=1) == codes_M).float().mean(),
        "prior": torch.special.entr(share_1V).sum(),
        "code_perplexity": perplexity(share_1V),
        "prediction_perplexity": perplexity(answers_1V),
    }


MODEL = DinoSr
