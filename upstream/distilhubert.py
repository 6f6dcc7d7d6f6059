"""DistilHuBERT: a small model predicts several hidden states of a large one.

Chang, Yang and Lee 2022, "DistilHuBERT: speech representation learning by layer-wise distillation of
hidden-unit BERT" (arXiv 2110.01900). A student with two layers has one prediction head per chosen
hidden state of the teacher; each head is compared with its state by L1 and cosine. The teacher may
be any upstream: ``mynah pretrain distilhubert --teacher SPEC``. A student whose front-end and layers
have the teacher's shapes starts from the teacher's weights, as published; any other from random
ones. Where teacher and student have different strides, a student's frame learns from the teacher's
frame that starts next to it.

Hidden states, as SUPERB counts them (s3prl's ``distiller``): the projected frames before the
position embedding, the output of each layer, and where the teacher is as wide as the student the
prediction of each head: 6 for the published model. The layer norm before the projection, which
HuBERT has, is missing here as it is there.

Shape suffixes: B batch, T frames, N frames of a ragged batch, D width, H heads (predicted states),
E width of the teacher.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.contract import Batch, Loss, Upstream
from mynah.upstream.core.frames import TINY, FrameConfig, FrameTransformer
from mynah.upstream.core.ragged import starting_next


@dataclass(frozen=True, kw_only=True)
class Config(FrameConfig):
    """Settings of DistilHuBERT; the defaults are the published student of HuBERT base.

    Attributes:
        objective: false for a model read from elsewhere without its heads.
        teacher_dim: width of the teacher; set from the teacher.
        teacher_layers: its hidden states to predict, counted from 0; negative ones from the last.
        cosine_weight: weight of the cosine term.
        from_teacher: start from the teacher's front-end and first layers where the shapes agree.
    """

    front_norm: bool = False
    layers: int = 2  # s3prl: encoder_layers
    layerdrop: float = 0.0  # s3prl: encoder_layerdrop
    input_dropout: float = 0.0
    objective: bool = True
    teacher_dim: int = 768  # s3prl: final_dim
    teacher_layers: tuple[int, ...] = (4, 8, 12)  # s3prl: pred_layer_id, as released
    cosine_weight: float = 1.0  # s3prl: cosine_loss
    from_teacher: bool = True  # s3prl: init_teacher_conv_layers, init_teacher_encoder_layers


CONFIGS = {
    "base": Config(),
    "tiny": Config(
        **{**TINY, "layers": 2},
        teacher_dim=192,
        teacher_layers=(-3, -2, -1),
        from_teacher=False,
    ),
}


class Distilhubert(FrameTransformer):
    """Front-end, a small Transformer, and a head per predicted state of the teacher."""

    name = "distilhubert"
    masks: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    floors = MappingProxyType({"prediction_std": 0.01})

    def __init__(self, config: Config) -> None:
        if not config.teacher_layers:
            raise ValueError("teacher_layers must name at least one hidden state")
        super().__init__(config)
        heads = len(config.teacher_layers) if config.objective else 0
        self.shown = heads if config.teacher_dim == config.dim else 0
        self.num_layers = 1 + config.layers + self.shown
        # in a tuple: the teacher is no part of the student, neither of its weights nor of its file
        self._teacher: tuple[Upstream, ...] = ()
        if not heads:
            return
        self.widen = nn.Linear(config.dim, config.dim * heads)
        # one matrix per head, as s3prl's SplitLinear
        self.heads_HDE = nn.Parameter(torch.empty(heads, config.dim, config.teacher_dim))
        self.heads_bias_HE = nn.Parameter(torch.zeros(heads, config.teacher_dim))
        bound = config.dim**-0.5
        nn.init.uniform_(self.heads_HDE, -bound, bound)
        nn.init.uniform_(self.heads_bias_HE, -bound, bound)

    # -- frozen features ----------------------------------------------------------------------

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield projected frames, each layer's output and each head's prediction, (N, D)."""
        front, encoder = self.packed()
        counts = [self.num_frames(len(wav)) for wav in wavs]
        x_ND = front(wavs)
        yield x_ND.clone()  # the encoder may add positions in place
        states = encoder(x_ND, counts)
        next(states)
        for last_ND in states:
            yield last_ND
        for head in range(self.shown):
            with torch.no_grad():
                prediction_NE = self.head(last_ND, head)
            yield prediction_NE

    def head(self, x_XD: Tensor, head: int) -> Tensor:
        """Return one head's prediction (..., E) of a state of the teacher."""
        rows = slice(head * self.dim, (head + 1) * self.dim)
        wide_XD = F.gelu(F.linear(x_XD, self.widen.weight[rows], self.widen.bias[rows]))
        out: Tensor = wide_XD @ self.heads_HDE[head] + self.heads_bias_HE[head]
        return out

    # -- pretraining --------------------------------------------------------------------------

    @classmethod
    def adopt_config(cls, config: Config, teacher: Upstream) -> Config:
        """Return the config with the teacher's width, its states, and its front-end if it has one.

        Raises:
            ValueError: a state that the teacher does not have.
        """
        states = teacher.num_layers
        layers = tuple(n + states if n < 0 else n for n in config.teacher_layers)
        if any(not 0 <= n < states for n in layers):
            raise ValueError(
                f"teacher_layers {list(config.teacher_layers)}: {teacher.name} has the hidden "
                f"states 0 to {states - 1}; set model.teacher_layers"
            )
        values: dict[str, Any] = {"teacher_dim": teacher.dim, "teacher_layers": layers}
        if config.from_teacher and isinstance(teacher, FrameTransformer):
            front = [f.name for f in dataclasses.fields(FrameConfig)]
            shape = front[: front.index("front_norm")] + front[front.index("norm") :]
            copied = [name for name in shape if "drop" not in name and name != "front_grad"]
            values.update({name: getattr(teacher.config, name) for name in copied})
            values.update(
                dim=teacher.config.dim, heads=teacher.config.heads, ffn=teacher.config.ffn
            )
        return dataclasses.replace(config, **values)

    def take_teacher(self, teacher: Upstream) -> None:
        """Receive the frozen teacher, and its first weights where the shapes agree.

        Raises:
            ValueError: the teacher is not frozen, or is narrower or shallower than configured.
        """
        if not teacher.frozen:
            raise ValueError("the teacher must be frozen: teacher.freeze()")
        states = teacher.num_layers
        if teacher.dim != self.config.teacher_dim or not all(
            -states <= n < states for n in self.config.teacher_layers
        ):
            raise ValueError(
                f"{teacher.name} has {states} states of width {teacher.dim}; this student expects "
                f"width {self.config.teacher_dim} and the states "
                f"{list(self.config.teacher_layers)}: build it from adopt_config(config, teacher)"
            )
        self._teacher = (teacher,)
        if self.config.from_teacher and isinstance(teacher, FrameTransformer):
            own = self.state_dict()
            given = teacher.state_dict()
            same = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
            self.load_state_dict(same, strict=False)

    def loss(self, batch: Batch) -> Loss:
        """Return mean |prediction - state| minus the log-sigmoid of their cosine.

        Equation 1 of the paper, averaged over heads and frames.

        Raises:
            ValueError: no teacher was given, or the model has no heads.
        """
        if not self.config.objective:
            raise ValueError(
                "this distilhubert was read without its heads (objective=False): it yields "
                "features and cannot be pretrained"
            )
        if not self._teacher:
            raise ValueError(
                "distilhubert learns from another upstream: 'mynah pretrain distilhubert "
                "--teacher SPEC', or take_teacher() before loss()"
            )
        wavs = batch.wavs()
        frames = self.frames(wavs)
        last_ND = self.states(frames)[-1][frames.valid_BT]
        targets = self.targets(wavs, frames.counts)
        l1 = cosine = last_ND.new_zeros((), dtype=torch.float32)
        spread = []
        for head, target_NE in enumerate(targets):
            predicted_NE = self.head(last_ND, head).float()
            l1 = l1 + F.l1_loss(predicted_NE, target_NE) / len(targets)
            similar_N = F.cosine_similarity(predicted_NE, target_NE, dim=1)
            cosine = cosine - F.logsigmoid(similar_N).mean() / len(targets)
            spread.append(predicted_NE.detach().std(dim=0).mean())
        total = l1 + self.config.cosine_weight * cosine
        constant = torch.stack([(t - t.mean(dim=0)).abs().mean() for t in targets]).mean()
        parts = {
            "l1": l1.detach(),
            "cosine": cosine.detach(),
            "mean": constant,
            "prediction_std": torch.stack(spread).mean(),
        }
        return Loss(total=total, parts=parts, weight=float(len(last_ND)))

    @torch.no_grad()
    def targets(self, wavs: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
        """Return the chosen states (N, E) of the teacher at this model's frames."""
        teacher = self._teacher[0]
        sizes = [teacher.num_frames(len(wav)) for wav in wavs]
        places = starting_next(counts, sizes, stride=self.stride, other=teacher.stride)
        firsts = accumulate(sizes, initial=0)
        place_N = torch.cat(
            [first + place_T for first, place_T in zip(firsts, places, strict=False)]
        )
        chosen = [n % teacher.num_layers for n in self.config.teacher_layers]
        found = {
            index: state_ND[place_N.to(state_ND.device)].float()
            for index, state_ND in enumerate(teacher.hidden_states(wavs))
            if index in chosen
        }
        return [found[index].to(self.device) for index in chosen]


MODEL = Distilhubert
