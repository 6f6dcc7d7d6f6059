"""BYOL-A: predict how an averaged copy of the network sees another view of the same sound.

Niizumi, Takeuchi, Ohishi, Harada and Kashino 2021, "BYOL for audio: self-supervised learning for
general-purpose audio representation" (arXiv 2103.06695), with its front-end, encoder and views
(see :mod:`mynah.upstream.core.clips`). An online network (encoder, projector, predictor) sees one
view, a target network (encoder, projector) another; the prediction should point in the target's
direction (BYOL: Grill et al. 2020, arXiv 2006.07733). The target gets no gradient: after each step
it moves a little towards the online network. Nothing pushes different sounds apart, so the spread
of the projections is watched.

Two choices differ from the authors' code without changing what is learnt: layers whose bias a
later batch norm takes away have none, and a batch with few utterances takes several clips of each.
As in that code, each view passes the networks by itself, so that batch norms see one view at a
time, and both views together are first normalised by their common mean and deviation.

Hidden states: see :mod:`mynah.upstream.core.clips`. s3prl's ``byol_a`` has one vector per second of
padded audio instead, the published clip embedding.

Variants: ``base`` is BYOL-A with 2048 dimensions; ``simsiam`` has no second network, the target is
the online projection without gradient, and the predictor is a bottleneck (Chen and He 2021, arXiv
2011.10566); ``tiny`` and ``tiny-simsiam`` have 20 ms frames of 320 dimensions and learn in minutes
on a CPU.

Shape suffixes: B batch, M mel bins, T frames, P width of a projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from mynah.upstream.core.clips import TINY, ClipConfig, ClipUpstream, projector
from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.ema import ema_update, make_teacher
from mynah.upstream.core.twin_losses import embedding_std, negative_cosine, retrieval


@dataclass(frozen=True, kw_only=True)
class Config(ClipConfig):
    """Settings of BYOL-A; the defaults are its 2048-dimensional model.

    Attributes:
        method: ``byol`` with a target network, ``simsiam`` without.
        projector: width of each layer of the projector.
        projector_norm: end the projector with a batch norm.
        predictor: inner width of the predictor.
        decay: share of itself that the target network keeps at each step.
    """

    method: Literal["byol", "simsiam"] = "byol"
    projector: tuple[int, ...] = (4096, 256)  # BYOL-A: proj_dim, proj_size
    projector_norm: bool = False
    predictor: int = 4096  # BYOL-A: proj_dim
    decay: float = 0.99  # BYOL-A: ema_decay


CONFIGS = {
    "base": Config(),
    "simsiam": Config(
        method="simsiam", projector=(2048, 2048, 2048), projector_norm=True, predictor=512
    ),
    "tiny": Config(**TINY, projector=(512, 128), predictor=512),
    "tiny-simsiam": Config(
        **TINY, method="simsiam", projector=(256, 256, 256), projector_norm=True, predictor=64
    ),
}


class Byol(ClipUpstream):
    """AudioNTT with a projector and a predictor, and their averaged target."""

    name = "byol"
    floors = MappingProxyType({"embedding_std": 0.05})

    def __init__(self, config: Config) -> None:
        """Build the model; the target starts as a copy.

        Raises:
            ValueError: an unknown method, or settings that do not fit together.
        """
        super().__init__(config)
        if config.method not in ("byol", "simsiam"):
            raise ValueError(f"method must be 'byol' or 'simsiam', got {config.method!r}")
        if not config.objective:
            return
        width = config.projector[-1]
        self.projector = projector(
            config.embed_dim,
            config.projector,
            bias=False,
            norm=config.projector_norm,
        )
        self.predictor = projector(width, (config.predictor, width), bias=True, norm=False)
        if config.method == "byol":
            self.target_encoder = make_teacher(self.encoder)
            self.target_projector = make_teacher(self.projector)

    def loss(self, batch: Batch) -> Loss:
        """Return the distance of predictions from targets on two views of each clip.

        See :meth:`compare` for its terms.

        Raises:
            ValueError: the model is for features only.
        """
        return self.compare(*self.views(batch))

    def compare(self, a_BMT: Tensor, b_BMT: Tensor) -> Loss:
        """Return the loss of two views (B, M, T).

        BYOL: the mean of 2 - 2 cos of each view's prediction and the other view's target, summed
        over the two directions (equation 2 of BYOL, symmetrised). SimSiam: the mean of 1 - cos over
        both directions, that is its -cos counted from the best value.

        ``parts`` holds the mean cosine, the share of clips whose other view has the nearest
        projection, and the spread of the projections.
        """
        both = torch.cat([a_BMT, b_BMT])
        std, mean = torch.std_mean(both)  # BYOL-A: NormalizeBatch
        a_BMT, b_BMT = ((both - mean) / std.clamp_min(torch.finfo(torch.float32).eps)).chunk(2)
        z_a, z_b = (self.projector(self.encoder.embed(x)) for x in (a_BMT, b_BMT))
        p_a, p_b = self.predictor(z_a), self.predictor(z_b)
        t_a, t_b = z_a, z_b
        if self.config.method == "byol":
            with torch.no_grad():
                t_a, t_b = (
                    self.target_projector(self.target_encoder.embed(x)) for x in (a_BMT, b_BMT)
                )
        apart = negative_cosine(p_a, t_b) + negative_cosine(p_b, t_a)
        parts = {
            "cosine": -apart.detach() / 2,
            "accuracy": retrieval(z_a, z_b),
            "embedding_std": embedding_std(z_a),
        }
        total = 4 + 2 * apart if self.config.method == "byol" else 1 + apart / 2
        return Loss(total=total, parts=parts, weight=float(len(a_BMT)))

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the target network towards the online network; batch statistics are its own."""
        if self.config.objective and self.config.method == "byol":
            pairs: tuple[tuple[nn.Module, nn.Module], ...] = (
                (self.target_encoder, self.encoder),
                (self.target_projector, self.projector),
            )
            for target, online in pairs:
                ema_update(target, online, self.config.decay, buffers="keep")


MODEL = Byol
