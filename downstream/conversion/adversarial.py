"""``adversarial``: a classifier looks for the speaker in the code, the encoder learns to hide it.

Chou et al. 2018 (arXiv:1804.02812). The two are trained in turn: on a classifier's turn it alone learns
to name the speaker, on the auto-encoder's turn encoder and decoder learn to say again what was heard
while the classifier's answer comes as near to a guess as can be. The paper maximises the classifier's
cross-entropy, which has no bound; here its answer is drawn towards the uniform distribution, which is
the best that hiding can reach.

A turn is an optimiser step; parameters that are not in it get no gradient and stay as they are.

Shape suffixes: B batch, T frames, C code, H hidden, P speakers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from mynah.downstream.conversion.core.autoencoding import AutoEncoder, AutoEncoderConfig
from mynah.downstream.conversion.core.blocks import mean_and_deviation
from mynah.downstream.conversion.core.bottleneck import Plain
from mynah.downstream.conversion.core.contract import ConversionBatch, Objective, Sizes


@dataclass(frozen=True, kw_only=True)
class Config(AutoEncoderConfig):
    """See :class:`AutoEncoderConfig`.

    Attributes:
        weight: of the divergence of the classifier's answer from the uniform distribution.
        warm: share of the steps over which that weight grows from 0.
        turns: classifier's turns for each of the auto-encoder's.
    """

    weight: float = 0.3
    warm: float = 0.4
    turns: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight < 0 or not 0 < self.warm <= 1 or self.turns < 1:
            raise ValueError(
                "weight must be 0 or more, warm in (0, 1], turns 1 or more, got "
                f"{self.weight}, {self.warm}, {self.turns}"
            )


class SpeakerClassifier(nn.Module):
    """Three convolutions, mean and deviation over time, a linear layer."""

    def __init__(self, code: int, hidden: int, speakers: int) -> None:
        super().__init__()
        sizes = [code, hidden, hidden, hidden]
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 5, padding=2) for a, b in pairwise(sizes))
        self.last = nn.Linear(2 * hidden, speakers)

    def forward(self, code_BCT: Tensor, mask_B1T: Tensor) -> Tensor:
        """Return logits (B, P)."""
        h_BHT = code_BCT
        for conv in self.convs:
            h_BHT = F.leaky_relu(conv(h_BHT), 0.2) * mask_B1T
        logits_BP: Tensor = self.last(torch.cat(mean_and_deviation(h_BHT, mask_B1T), dim=1))
        return logits_BP


class Adversarial(AutoEncoder):
    """An auto-encoder whose code a classifier is to learn nothing of the speaker from.

    Raises:
        ValueError: fewer than two training speakers.
    """

    config: Config
    turn: Tensor

    def __init__(self, config: Config, sizes: Sizes) -> None:
        if sizes.speakers < 2:
            raise ValueError(
                f"an adversary tells speakers apart: it needs two or more, got {sizes.speakers}"
            )
        super().__init__(config, sizes)
        self.classifier = SpeakerClassifier(self.bottleneck.width, config.hidden, sizes.speakers)
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))

    def make_bottleneck(self) -> Plain:
        """Return a linear map."""
        return Plain(self.config.hidden, self.config.code)

    @property
    def classifying(self) -> bool:
        """Whether it is the classifier's turn."""
        return int(self.turn) < self.config.turns

    def loss(self, batch: ConversionBatch) -> Objective:
        """Return the classifier's objective on its turn, else the auto-encoder's."""
        if self.classifying:
            with torch.no_grad():
                passed, mask_B1T = self.encoded(batch.x_BTD, batch.lengths_B)
            logits_BP = self.classifier(passed.code_BCT, mask_B1T)
            entropy = F.cross_entropy(logits_BP, batch.speakers_B)
            hits = (logits_BP.argmax(1) == batch.speakers_B).float().mean()
            parts = {"classifier": entropy.detach(), "classifier_accuracy": hits}
            return Objective(total=entropy, parts=parts, weight=float(batch.lengths_B.sum()))
        passed, mask_B1T = self.encoded(batch.x_BTD, batch.lengths_B)
        l1 = self.reconstruction(passed, batch, mask_B1T)
        frozen = {name: p.detach() for name, p in self.classifier.named_parameters()}
        logits_BP = functional_call(self.classifier, frozen, (passed.code_BCT, mask_B1T))
        hidden = confusion(logits_BP)
        ramp = (self.share / self.config.warm).clamp(max=1.0)
        return Objective(
            total=l1 + self.config.weight * ramp * hidden,
            parts={"l1": l1.detach(), "confusion": hidden.detach(), **passed.parts},
            weight=float(batch.lengths_B.sum()),
        )

    def after_step(self, step: int, total_steps: int) -> None:
        """Pass the turn on."""
        super().after_step(step, total_steps)
        self.turn.fill_(step % (self.config.turns + 1))


def confusion(logits_BP: Tensor) -> Tensor:
    """Return the mean divergence KL(uniform || answer) of a classifier's answers, in nats."""
    logs_BP = logits_BP.log_softmax(1)
    return (-logs_BP.mean(1) - math.log(logits_BP.shape[1])).mean()


CONVERTER = Adversarial
CONFIGS = {
    "adversarial": Config(),
    "adversarial-tiny": Config(
        hidden=128, encoder_blocks=2, decoder_blocks=2, speaker="statistics", voice=64
    ),
}
