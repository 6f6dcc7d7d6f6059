"""DeLoRes: views agree in every dimension of the embedding, and no dimension repeats another.

Ghosh, Seth, Mittal, Singh and Umesh 2022, "DeLoRes: decorrelating latent spaces for low-resource
audio representation learning" (arXiv 2203.13628), and Ghosh, Seth and Umesh 2022, "Decorrelating
feature spaces for learning general-purpose audio representations" (doi 10.1109/JSTSP.2022.3202093).
Front-end, encoder and views are BYOL-A's with librosa's mel filters, see
:mod:`mynah.upstream.core.clips`.

* DeLoRes-S: Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230) on projected clip embeddings.
* DeLoRes-M: MoCo (He et al. 2020, arXiv 1911.05722) on clip embeddings, with an averaged key
  encoder and a queue of keys, plus Barlow Twins on the time-averaged output of every block, between
  the query encoder's and the key encoder's.
* ``vicreg``: the same model with VICReg (Bardes et al. 2022, arXiv 2105.04906) in place of Barlow
  Twins, with the weights that suit speech.

The loss of the authors' later code (LAPE) is not Barlow Twins: it multiplies *both* sums by 5e-5,
and by 1/32 in addition. Here the second sum alone has the weight ``off_diagonal``; the settings
``off_diagonal=1`` and ``scale=1.5625e-6`` give theirs. Layers in front of a batch norm have no
bias, and a batch with few utterances takes several clips of each; neither changes what is learnt.

Hidden states: see :mod:`mynah.upstream.core.clips`.

Variants: ``base`` (also ``s``) is DeLoRes-S with 2048 dimensions, ``m`` DeLoRes-M, ``vicreg`` as
above; ``tiny``, ``tiny-m`` and ``tiny-vicreg`` have 20 ms frames of 320 dimensions and learn in
minutes on a CPU.

Shape suffixes: B batch, M mel bins, T frames, W width of a block's frames, D width of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.audiontt import pool
from mynah.upstream.core.clips import TINY, ClipConfig, ClipUpstream, projector
from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.ema import ema_update, make_teacher
from mynah.upstream.core.twin_losses import (
    Queue,
    barlow_twins,
    embedding_std,
    queue_nce,
    retrieval,
    vicreg,
)


@dataclass(frozen=True, kw_only=True)
class Config(ClipConfig):
    """Settings of DeLoRes; the defaults are DeLoRes-S.

    Attributes:
        method: ``s``, ``m`` or ``vicreg``.
        projector: width of each layer of a projector.
        off_diagonal: weight of the second sum of Barlow Twins (its lambda).
        scale: factor of the whole of Barlow Twins.
        invariance: weight of VICReg's invariance term.
        variance: weight of its variance term, the mean of the two views.
        covariance: weight of its covariance term, the sum of the two views.
        contrast_dim: width of queries and keys.
        temperature: divisor of their cosines.
        queue: number of earlier keys.
        decay: share of itself that the key encoder keeps at each step.
    """

    mel_scale: Literal["htk", "slaney"] = "slaney"  # LAPE: MelSpectrogramLibrosa
    mean: float = -7.6  # of read speech
    std: float = 4.0  # of read speech
    method: Literal["s", "m", "vicreg"] = "s"
    projector: tuple[int, ...] = (2048, 2048, 2048)  # LAPE: projection_dim
    off_diagonal: float = 0.0051  # DeLoRes: lambd
    scale: float = 1.0
    invariance: float = 1.0  # sslsv: inv_weight
    variance: float = 2.0  # sslsv: var_weight 1.0, summed over the views
    covariance: float = 0.1  # sslsv: cov_weight
    contrast_dim: int = 128  # LAPE: contrastive_dim
    temperature: float = 0.07  # LAPE: softmax_temperature
    queue: int = 65536  # LAPE: num_negatives
    decay: float = 0.999  # LAPE: encoder_momentum


_SMALL = Config(**TINY, projector=(256, 256, 256))

CONFIGS = {
    "base": Config(),
    "s": Config(),
    "m": Config(method="m", off_diagonal=5e-5, scale=1 / 32),  # LAPE: lambda_barlow, loss_scale
    "vicreg": Config(method="vicreg", projector=(2048, 2048, 512)),  # sslsv: projector
    "tiny": _SMALL,
    "tiny-m": Config(
        **TINY,
        method="m",
        projector=(256, 256, 256),
        scale=1 / 32,
        contrast_dim=64,
        queue=1024,
        decay=0.99,
    ),
    "tiny-vicreg": Config(**TINY, method="vicreg", projector=(256, 256, 256)),
}


class Delores(ClipUpstream):
    """AudioNTT with projectors; DeLoRes-M has a key encoder and a queue too."""

    name = "delores"
    floors = MappingProxyType({"embedding_std": 0.05})

    def __init__(self, config: Config) -> None:
        """Build the model; the key encoder starts as a copy.

        Raises:
            ValueError: an unknown method, or settings that do not fit together.
        """
        super().__init__(config)
        if config.method not in ("s", "m", "vicreg"):
            raise ValueError(f"method must be 's', 'm' or 'vicreg', got {config.method!r}")
        if not config.objective:
            return
        inputs = self.encoder.widths[:-1] if config.method == "m" else [config.embed_dim]
        self.projectors = nn.ModuleList(
            projector(width, config.projector, bias=False, norm=False) for width in inputs
        )
        if config.method == "m":
            self.contrast = nn.Linear(config.embed_dim, config.contrast_dim)
            self.key_encoder = make_teacher(self.encoder)
            self.key_contrast = make_teacher(self.contrast)
            self.queue = Queue(config.queue, config.contrast_dim)

    def loss(self, batch: Batch) -> Loss:
        """Return the family's loss on two views of each clip.

        ``parts`` holds the terms, the share of clips whose other view has the nearest embedding
        (in DeLoRes-M: nearer than every key of the queue), and the spread of the embeddings.

        Raises:
            ValueError: the model is for features only.
        """
        return self.compare(*self.views(batch))

    def compare(self, a_BMT: Tensor, b_BMT: Tensor) -> Loss:
        """Return the loss of two views (B, M, T); in DeLoRes-M the second one gives the keys."""
        if self.config.method == "m":
            return self._contrast(a_BMT, b_BMT)
        config: Config = self.config
        a_BD, b_BD = (self.projectors[0](self.encoder.embed(x)) for x in (a_BMT, b_BMT))
        health = {"accuracy": retrieval(a_BD, b_BD), "embedding_std": embedding_std(a_BD)}
        weight = float(len(a_BMT))
        if config.method == "s":
            twins = barlow_twins(a_BD, b_BD, off_diagonal=config.off_diagonal, scale=config.scale)
            terms = {"on_diagonal": twins.on_diagonal, "off_diagonal": twins.off_diagonal}
            return Loss(total=twins.loss, parts={**terms, **health}, weight=weight)
        three = vicreg(
            a_BD,
            b_BD,
            invariance=config.invariance,
            variance=config.variance,
            covariance=config.covariance,
        )
        terms = {
            "invariance": three.invariance,
            "variance": three.variance,
            "covariance": three.covariance,
        }
        return Loss(total=three.loss, parts={**terms, **health}, weight=weight)

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the key encoder towards the query encoder; batch statistics are its own."""
        if self.config.objective and self.config.method == "m":
            ema_update(self.key_encoder, self.encoder, self.config.decay, buffers="keep")
            ema_update(self.key_contrast, self.contrast, self.config.decay, buffers="keep")

    def _contrast(self, a_BMT: Tensor, b_BMT: Tensor) -> Loss:
        """Return DeLoRes-M's loss; in training mode the keys then enter the queue."""
        config: Config = self.config
        *blocks_a, last_a = self.encoder(a_BMT)
        q_BD = self.contrast(pool(last_a))
        with torch.no_grad():
            *blocks_b, last_b = self.key_encoder(b_BMT)
            k_BD = F.normalize(self.key_contrast(pool(last_b)).float(), dim=1)
        contrast = queue_nce(q_BD, k_BD, self.queue.rows_QD, temperature=config.temperature)
        barlow = contrast.loss.new_zeros(())
        for project, x_BTW, y_BTW in zip(self.projectors, blocks_a, blocks_b, strict=True):
            barlow = (
                barlow
                + barlow_twins(
                    project(x_BTW.mean(dim=1)),
                    project(y_BTW.mean(dim=1)),
                    off_diagonal=config.off_diagonal,
                    scale=config.scale,
                ).loss
            )
        if self.training:
            self.queue.push(k_BD)
        parts = {
            "nce": contrast.loss.detach(),
            "barlow": barlow.detach(),
            "accuracy": contrast.accuracy,
            "embedding_std": embedding_std(q_BD),
        }
        return Loss(total=contrast.loss + barlow, parts=parts, weight=float(len(a_BMT)))


MODEL = Delores
