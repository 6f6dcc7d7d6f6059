"""MoCo: a stretch of speech finds its key among those of many earlier batches.

He, Fan, Wu, Xie and Girshick 2020, "Momentum contrast for unsupervised visual representation learning"
(arXiv 1911.05722), on speech as in Xia et al. 2021, "Self-supervised text-independent speaker
verification using prototypical momentum contrastive learning" (arXiv 2012.07178): two stretches of an
utterance, distorted apart from each other, are encoded, one by the network that learns (the query),
one by its moving average (the key). The query is to match its key rather than any in a queue of
earlier keys. There is no batch norm here, so keys need no shuffling among devices. A key network that
follows too fast (decay 0.9) lets all queries drift away from old keys together: the loss falls, and
the embeddings, whose spread is watched, collapse.

The encoder is the shared Transformer, which is pooled over time for the objective only: its frames
are there for frame-level tasks. Hidden states: the input of each layer and the encoder's output.

Variants: ``base`` has the settings of the published speaker models on the Transformer's base size;
``tiny`` learns in minutes on a CPU.

Shape suffixes: B batch, S samples, T frames, D width, P width of a projection, Q keys of the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.ema import ema_update, make_teacher
from mynah.upstream.core.frames import TINY, FrameConfig, FrameTransformer
from mynah.upstream.core.pooling import mean_over_time, projection_head
from mynah.upstream.core.select import counted
from mynah.upstream.core.twin_losses import Queue, embedding_std, queue_nce
from mynah.upstream.core.waveviews import distort


@dataclass(frozen=True, kw_only=True)
class Config(FrameConfig):
    """Settings of MoCo.

    Attributes:
        view_share: length of a view as a share of the utterance; 1 for the same stretch twice.
        hidden: inner width of the projection head.
        final_dim: width P of queries and keys.
        temperature: divisor of the cosines.
        queue: keys kept.
        decay: share of itself that the key network keeps at each step.
        gain_decibels: largest change of loudness, either way.
        noise_decibels: smallest and largest signal-to-noise ratio.
        silence_share: longest silenced stretch, as a share of the view.
        reverb_share: probability of reverberation.
    """

    front: Literal["wave", "mel"] = "mel"
    num_mels: int = 80
    layerdrop: float = 0.0
    front_grad: float = 1.0
    view_share: float = 0.6
    hidden: int = 2048
    final_dim: int = 128  # MoCo: moco-dim
    temperature: float = 0.07  # MoCo: moco-t
    queue: int = 65536  # MoCo: moco-k
    decay: float = 0.999  # MoCo: moco-m
    gain_decibels: float = 6.0
    noise_decibels: tuple[float, float] = (5.0, 25.0)
    silence_share: float = 0.1
    reverb_share: float = 0.5


_TINY: dict[str, Any] = {
    **TINY,
    "num_mels": 40,
    "hidden": 192,
    "temperature": 0.1,
    "queue": 1024,
    "decay": 0.99,
}

CONFIGS = {"base": Config(), "tiny": Config(**_TINY)}


class Moco(FrameTransformer):
    """Front-end, Transformer and projection head, their moving average, and a queue of keys."""

    name = "moco"
    masks: ClassVar[bool] = False
    floors = MappingProxyType({"embedding_std": 0.05})
    least_items = 2

    def __init__(self, config: Config) -> None:
        if not 0 < config.view_share <= 1:
            raise ValueError(f"view_share must be above 0 and at most 1, got {config.view_share}")
        super().__init__(config)
        self.projector = projection_head(config.dim, config.hidden, config.final_dim)
        self.key_frontend = make_teacher(self.frontend)
        self.key_encoder = make_teacher(self.encoder)
        self.key_projector = make_teacher(self.projector)
        self.queue = Queue(config.queue, config.final_dim)

    def train(self, mode: bool = True) -> Self:
        """Switch training mode; the key network never drops anything."""
        super().train(mode)
        for module in self._pairs():
            module.eval()
        return self

    def loss(self, batch: Batch) -> Loss:
        """Return the contrast of each query with its key and the queue: equation 1 of MoCo.

        In training mode the keys then enter the queue.

        Raises:
            ValueError: fewer than two utterances.
        """
        wavs = batch.wavs()
        if len(wavs) < 2:
            raise ValueError(
                "moco tells utterances apart and the batch holds one: raise train.batch_seconds or "
                "lower train.crop_seconds"
            )
        q_BP = self.query(self.view(wavs, batch.generator))
        k_BP = self.key(self.view(wavs, batch.generator))
        outcome = queue_nce(q_BP, k_BP, self.queue.rows_QD, temperature=self.config.temperature)
        if self.training:
            self.queue.push(nn.functional.normalize(k_BP, dim=1))
        parts = {
            "contrastive": outcome.loss.detach(),
            "accuracy": outcome.accuracy,
            "embedding_std": embedding_std(q_BP.detach()),
        }
        return Loss(total=outcome.loss, parts=parts, weight=float(len(wavs)))

    def view(self, wavs: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Return a distorted stretch of each utterance."""
        config: Config = self.config
        stretches = []
        for wav in wavs:
            size = max(1, int(len(wav) * config.view_share))
            first = int(torch.randint(len(wav) - size + 1, (), generator=generator))
            stretches.append(wav[first : first + size])
        return distort(
            stretches,
            gain=config.gain_decibels,
            snr=config.noise_decibels,
            silence=config.silence_share,
            reverb=config.reverb_share,
            generator=generator,
        )

    def query(self, wavs: Sequence[Tensor]) -> Tensor:
        """Return the queries (B, P)."""
        frames = self.frames(wavs)
        vectors: Tensor = self.projector(mean_over_time(self.states(frames)[-1], frames.valid_BT))
        return vectors

    @torch.no_grad()
    def key(self, wavs: Sequence[Tensor]) -> Tensor:
        """Return the keys (B, P), by the moving average of the network."""
        raw_BTC, counts = self.key_frontend.raw(wavs)
        counts_B = counted(counts, raw_BTC.device)
        valid_BT = torch.arange(raw_BTC.shape[1], device=raw_BTC.device) < counts_B[:, None]
        x_BTD = self.key_frontend.proj(self.key_frontend.norm(raw_BTC))
        last_BTD = self.key_encoder(x_BTD, valid_BT if len(set(counts)) > 1 else None)[-1]
        keys: Tensor = self.key_projector(mean_over_time(last_BTD, valid_BT))
        return keys

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the key network towards the query network: equation 2 of MoCo."""
        for key, query in self._pairs().items():
            ema_update(key, query, self.config.decay)

    def _pairs(self) -> dict[nn.Module, nn.Module]:
        return {
            self.key_frontend: self.frontend,
            self.key_encoder: self.encoder,
            self.key_projector: self.projector,
        }


MODEL = Moco
