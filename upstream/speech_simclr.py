"""Speech SimCLR: two distorted copies of an utterance are recognised as one, and repaired.

Jiang, Li, Zhang, Chen, Luo, Xu and Zou 2020, "Speech SimCLR: combining contrastive and reconstruction
objective for self-supervised speech representation learning" (arXiv 2010.13991). The utterance is
distorted twice; a Transformer of TERA's size hears both with some spans masked. The means over time
of its last layer, projected, find each other among those of the whole batch (NT-Xent), and every
frame gives back the clean spectrum (L1).

The distortions are those of :mod:`mynah.upstream.core.views` on waveforms: loudness, coloured noise,
reverberation by decaying noise, a silenced stretch. The paper's pitch and speed changes are left out:
they move frames, and the clean spectrum would have to be moved along.

The contrast is over whole utterances, the frames are the encoder's: every hidden state is there for
frame-level tasks. Hidden states: the input of each layer and the encoder's output.

Shape suffixes: B batch, S samples, T frames, C spectrum, D width, P width of a projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.frames import TINY, FrameConfig, FrameTransformer
from mynah.upstream.core.pooling import mean_over_time, projection_head
from mynah.upstream.core.twin_losses import embedding_std, nt_xent
from mynah.upstream.core.waveviews import distort


@dataclass(frozen=True, kw_only=True)
class Config(FrameConfig):
    """Settings of Speech SimCLR; the defaults are the paper's as far as it states them.

    Attributes:
        mask_prob: share of frames to mask if spans did not overlap.
        mask_length: frames of a span.
        mask_min_spans: fewest spans of an utterance.
        hidden: inner width of the projection head.
        final_dim: width P of a projection.
        temperature: divisor of the cosines.
        reconstruction_weight: of the L1 term.
        gain_decibels: largest change of loudness, either way.
        noise_decibels: smallest and largest signal-to-noise ratio.
        silence_share: longest silenced stretch, as a share of the utterance.
        reverb_share: probability of reverberation.
    """

    front: Literal["wave", "mel"] = "mel"  # the spectrum is what is repaired
    num_mels: int = 80  # paper: section 3, log-mel
    stack: int = 1
    layers: int = 3  # TERA base
    layerdrop: float = 0.0
    front_grad: float = 1.0
    mask_prob: float = 0.15  # TERA: mask_proportion
    mask_length: int = 7  # TERA: mask_consecutive
    mask_min_spans: int = 1
    hidden: int = 768
    final_dim: int = 256
    temperature: float = 0.1
    reconstruction_weight: float = 1.0
    gain_decibels: float = 6.0
    noise_decibels: tuple[float, float] = (5.0, 25.0)
    silence_share: float = 0.1
    reverb_share: float = 0.5


_TINY: dict[str, Any] = {**TINY, "num_mels": 40, "stack": 2, "hidden": 192, "final_dim": 128}

CONFIGS = {
    "base": Config(),
    "tiny": Config(**_TINY, mask_prob=0.4, mask_length=5),
}


class SpeechSimclr(FrameTransformer):
    """Log-mel front-end, Transformer, a projection of the mean and a repaired spectrum."""

    name = "speech_simclr"
    floors = MappingProxyType({"embedding_std": 0.05})
    least_items = 2

    def __init__(self, config: Config) -> None:
        if config.front != "mel":
            raise ValueError(
                f"speech_simclr repairs the spectrum that it hears: front must be 'mel', got "
                f"{config.front!r}"
            )
        super().__init__(config)
        self.projector = projection_head(config.dim, config.hidden, config.final_dim)
        self.repair = nn.Linear(config.dim, self.channels)

    def loss(self, batch: Batch) -> Loss:
        """Return NT-Xent of both views plus the L1 error of the clean spectrum.

        Raises:
            ValueError: fewer than two utterances, which leaves nothing to tell apart.
        """
        config: Config = self.config
        wavs = batch.wavs()
        if len(wavs) < 2:
            raise ValueError(
                "speech_simclr tells utterances apart and the batch holds one: raise "
                "train.batch_seconds or lower train.crop_seconds"
            )
        clean = self.frames(wavs)
        views = []
        for _ in range(2):
            distorted = distort(
                wavs,
                gain=config.gain_decibels,
                snr=config.noise_decibels,
                silence=config.silence_share,
                reverb=config.reverb_share,
                generator=batch.generator,
            )
            views.append((distorted, self.span_mask(batch)))
        return self.compare(views, clean.raw_BTC, clean.valid_BT)

    def compare(
        self,
        views: Sequence[tuple[Sequence[Tensor], Tensor]],
        clean_BTC: Tensor,
        valid_BT: Tensor,
    ) -> Loss:
        """Return the objective of two views.

        Args:
            views: waveforms and mask (B, T) of each.
            clean_BTC: spectrum of the clean utterances.
            valid_BT: false beyond an utterance's last frame.
        """
        vectors = []
        reconstruction = clean_BTC.new_zeros(())
        for wavs, mask_BT in views:
            frames = self.frames(wavs)
            last_BTD = self.states(frames, mask_BT.to(valid_BT.device))[-1]
            vectors.append(self.projector(mean_over_time(last_BTD, valid_BT)))
            repaired = self.repair(last_BTD[valid_BT]).float()
            reconstruction = reconstruction + F.l1_loss(repaired, clean_BTC[valid_BT]) / len(views)
        contrast = nt_xent(vectors[0], vectors[1], temperature=self.config.temperature)
        total = contrast.loss + self.config.reconstruction_weight * reconstruction
        parts = {
            "contrastive": contrast.loss.detach(),
            "accuracy": contrast.accuracy,
            "l1": reconstruction.detach(),
            "mean": clean_BTC[valid_BT].abs().mean(),
            "embedding_std": embedding_std(torch.cat(vectors).detach()),
        }
        return Loss(total=total, parts=parts, weight=float(len(vectors[0])))


MODEL = SpeechSimclr
