"""Context prediction: how far apart in an utterance are these two stretches?

Tagliasacchi, Gfeller, de Chaumont Quitry and Roblek 2019, "Self-supervised audio representation
learning for mobile devices" (arXiv 1905.11796), method TemporalGap: two stretches of an utterance are
encoded without seeing each other; from both vectors a small network estimates the time between
them, as a share of the longest possible time. The loss is the cross-entropy between the true and the
estimated share. Whoever knows what usually follows what, and how a breath, a phrase and its melody
go on, can tell.

Each utterance gives several pairs; stretches are cut out of its normalised spectrum, so that its
loudness and channel are the same in both. The error of always guessing the mean is logged beside
the model's (``guess``).

The encoder is the shared Transformer, pooled over time for the objective only: its frames are there
for frame-level tasks. Hidden states: the input of each layer and the encoder's output.

Shape suffixes: B batch, K pairs, T frames, W frames of a stretch, C spectrum, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.frames import TINY, FrameConfig, FrameTransformer
from mynah.upstream.core.twin_losses import embedding_std


@dataclass(frozen=True, kw_only=True)
class Config(FrameConfig):
    """Settings of context prediction.

    Attributes:
        stretch: frames W of a stretch.
        pairs: pairs per utterance and step.
        order: also tell which stretch comes first, by one more cross-entropy.
        hidden: inner width of the estimator.
    """

    front: Literal["wave", "mel"] = "mel"  # stretches are cut out of the spectrum
    num_mels: int = 64  # paper: section IV-A
    stack: int = 1
    layers: int = 3
    layerdrop: float = 0.0
    front_grad: float = 1.0
    stretch: int = 98  # paper: section IV-A, slices of 975 ms
    pairs: int = 8
    order: bool = False
    hidden: int = 768


_TINY: dict[str, Any] = {
    **TINY,
    "num_mels": 40,
    "stack": 2,
    "stretch": 25,
    "pairs": 4,
    "order": True,
    "hidden": 192,
}

CONFIGS = {"base": Config(), "tiny": Config(**_TINY)}


class Pairs:
    """Stretches of a batch and what is true of them.

    Attributes:
        row_K: utterance of each pair.
        first_K: frame where its first stretch starts.
        second_K: frame where its second stretch starts.
        gap_K: distance over the longest possible one, 0 to 1.
        later_K: 1 where the second stretch starts later, else 0.
    """

    def __init__(
        self, counts: list[int], *, stretch: int, pairs: int, generator: torch.Generator
    ) -> None:
        rows = [row for row, count in enumerate(counts) if count > stretch]
        self.row_K = torch.tensor(rows, dtype=torch.int64).repeat_interleave(pairs)
        spare_K = torch.tensor(counts)[self.row_K] - stretch
        u = torch.rand(2, len(self.row_K), generator=generator, dtype=torch.float64)
        self.first_K, self.second_K = (u * (spare_K + 1)).long()
        self.gap_K = (self.second_K - self.first_K).abs() / spare_K
        self.later_K = (self.second_K > self.first_K).float()


class ContextPrediction(FrameTransformer):
    """Log-mel front-end, Transformer, and an estimator of the time between two stretches."""

    name = "context_prediction"
    masks: ClassVar[bool] = False
    floors = MappingProxyType({"embedding_std": 0.05})

    def __init__(self, config: Config) -> None:
        if config.front != "mel":
            raise ValueError(
                "context_prediction cuts stretches out of the spectrum: front must be 'mel', got "
                f"{config.front!r}"
            )
        super().__init__(config)
        self.least_frames = config.stretch + 1
        self.estimate = nn.Sequential(
            nn.Linear(2 * config.dim, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, 2 if config.order else 1),
        )

    def loss(self, batch: Batch) -> Loss:
        """Return -g log p - (1 - g) log(1 - p) of the true gap g and its estimate p, averaged.

        Raises:
            ValueError: no utterance is longer than a stretch.
        """
        config: Config = self.config
        raw_BTC, counts = self.frontend.raw(batch.wavs())
        pairs = Pairs(counts, stretch=config.stretch, pairs=config.pairs, generator=batch.generator)
        if not len(pairs.row_K):
            raise ValueError(
                f"every utterance of the batch has at most {config.stretch} frames, too few for two "
                f"stretches: leave out the shortest ({', '.join(batch.ids[:5])} ...)"
            )
        return self.compare(raw_BTC, pairs)

    def compare(self, raw_BTC: Tensor, pairs: Pairs) -> Loss:
        """Return the objective for given pairs.

        Args:
            raw_BTC: normalised spectra.
            pairs: stretches.
        """
        vectors = torch.cat(
            [self.encode(raw_BTC, pairs.row_K, start) for start in (pairs.first_K, pairs.second_K)],
            dim=1,
        )
        logits = self.estimate(vectors).float()
        gap_K = pairs.gap_K.float().to(logits.device)
        total = F.binary_cross_entropy_with_logits(logits[:, 0], gap_K)
        mean = gap_K.mean()
        parts = {
            "gap": total.detach(),
            "error": (logits[:, 0].detach().sigmoid() - gap_K).abs().mean(),
            "guess": (gap_K - mean).abs().mean(),
            "embedding_std": embedding_std(vectors.detach()),
        }
        if self.config.order:
            later_K = pairs.later_K.to(logits.device)
            order = F.binary_cross_entropy_with_logits(logits[:, 1], later_K)
            total = total + order
            parts["order"] = order.detach()
            parts["accuracy"] = ((logits[:, 1] > 0) == (later_K > 0)).float().mean()
        return Loss(total=total, parts=parts, weight=float(len(gap_K)))

    def encode(self, raw_BTC: Tensor, row_K: Tensor, start_K: Tensor) -> Tensor:
        """Return the mean (K, D) over time of each stretch, encoded by itself."""
        place_KW = start_K[:, None] + torch.arange(self.config.stretch)
        device = raw_BTC.device
        stretch_KWC = raw_BTC[row_K.to(device)[:, None], place_KW.to(device)]
        x_KWD = self.frontend.proj(self.frontend.norm(stretch_KWC))
        pooled: Tensor = self.encoder(self.input_dropout(x_KWD))[-1].mean(dim=1)
        return pooled


MODEL = ContextPrediction
