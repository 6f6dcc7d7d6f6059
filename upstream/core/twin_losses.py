"""Losses of twin networks: two embeddings of one sound should agree, and must not collapse.

What keeps every sound from getting the same embedding differs: other sounds of the batch
(:func:`nt_xent`) or of earlier batches (:func:`queue_nce`) as negatives, decorrelation
(:func:`barlow_twins`), a floor under the variance (:func:`vicreg`), or a predictor and a target
that gets no gradient (:func:`negative_cosine`). :func:`embedding_std` tells whether it worked.

Everything is computed in float32, whatever the autocast. All losses need a batch of at least two:
with one sound there is nothing to differ from.

Shape suffixes: B batch, D width of an embedding, Q rows of a queue, A = 2 B embeddings of both
views.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Nce(NamedTuple):
    """Outcome of a contrastive loss.

    Attributes:
        loss: scalar, mean cross-entropy in nats.
        accuracy: detached scalar, share of embeddings whose positive beats every negative.
    """

    loss: Tensor
    accuracy: Tensor


class Barlow(NamedTuple):
    """Outcome of :func:`barlow_twins`.

    Attributes:
        loss: scalar to differentiate.
        on_diagonal: detached scalar, sum over i of (C_ii - 1) ** 2.
        off_diagonal: detached scalar, sum over i != j of C_ij ** 2, without its weight.
    """

    loss: Tensor
    on_diagonal: Tensor
    off_diagonal: Tensor


class Vicreg(NamedTuple):
    """Outcome of :func:`vicreg`.

    Attributes:
        loss: scalar to differentiate, the weighted sum of the terms.
        invariance: detached scalar, mean squared difference of the views.
        variance: detached scalar, mean shortfall of the standard deviation below 1.
        covariance: detached scalar, squared off-diagonal covariances of both views over D.
    """

    loss: Tensor
    invariance: Tensor
    variance: Tensor
    covariance: Tensor


def nt_xent(a_BD: Tensor, b_BD: Tensor, *, temperature: float) -> Nce:
    """Return SimCLR's loss: find the other view of a sound among all 2 B - 1 other embeddings.

    -log softmax of cosine / temperature, averaged over the 2 B embeddings of both views; an
    embedding is never compared with itself. Gradients flow into both views.

    Source: Chen et al. 2020 (arXiv 2002.05709) equation 1.

    Args:
        a_BD: embeddings of the first view, of any length (cosines are taken).
        b_BD: of the second view, in the same order.
        temperature: divisor of the cosines, above 0.

    Raises:
        ValueError: shapes differ, fewer than two rows, or a temperature that is not positive.
    """
    a_BD, b_BD = _pair(a_BD, b_BD)
    _positive(temperature)
    with torch.autocast(a_BD.device.type, enabled=False):
        x_AD = F.normalize(torch.cat([a_BD, b_BD]), dim=1)
        logits_AA = x_AD @ x_AD.T / temperature
        logits_AA = logits_AA.masked_fill(_eye(logits_AA), float("-inf"))
        other_A = torch.arange(len(x_AD), device=x_AD.device).roll(len(a_BD))
        return _nce(logits_AA, other_A)


def queue_nce(q_BD: Tensor, k_BD: Tensor, queue_QD: Tensor, *, temperature: float) -> Nce:
    """Return MoCo's loss: find a query's key among this key and those of earlier batches.

    Cross-entropy of [q . k, q . queue] / temperature with the key first. Neither the key nor the
    queue gets a gradient.

    Source: He et al. 2020 (arXiv 1911.05722) equation 1 and algorithm 1.

    Args:
        q_BD: queries, of any length (cosines are taken).
        k_BD: their keys, in the same order.
        queue_QD: earlier keys of unit length (:attr:`Queue.rows_QD`).
        temperature: divisor of the cosines, above 0.

    Raises:
        ValueError: shapes that do not belong together, fewer than two queries, an empty queue, or
            a temperature that is not positive.
    """
    q_BD, k_BD = _pair(q_BD, k_BD)
    _positive(temperature)
    if queue_QD.ndim != 2 or len(queue_QD) < 1 or queue_QD.shape[1] != q_BD.shape[1]:
        raise ValueError(
            f"the queue must hold at least one row of width {q_BD.shape[1]}, got "
            f"{tuple(queue_QD.shape)}"
        )
    with torch.autocast(q_BD.device.type, enabled=False):
        q_BD, k_BD = F.normalize(q_BD, dim=1), F.normalize(k_BD.detach(), dim=1)
        positive_B1 = (q_BD * k_BD).sum(dim=1, keepdim=True)
        # a copy: the queue may be written to before the gradient is taken
        negative_BQ = q_BD @ queue_QD.detach().to(q_BD, copy=True).T
        logits = torch.cat([positive_B1, negative_BQ], dim=1) / temperature
        return _nce(logits, torch.zeros(len(q_BD), dtype=torch.int64, device=q_BD.device))


def barlow_twins(a_BD: Tensor, b_BD: Tensor, *, off_diagonal: float, scale: float = 1.0) -> Barlow:
    """Return Barlow Twins' loss: the views' cross-correlation matrix should be the identity.

    scale (sum_i (C_ii - 1) ** 2 + off_diagonal sum_{i != j} C_ij ** 2) with C = A' B / batch of the
    embeddings normalised over the batch (biased variance, eps 1e-5, no affine map). With fewer
    sounds than dimensions C cannot have full rank, and the second sum has a floor of about
    D ** 2 / B.

    Source: Zbontar et al. 2021 (arXiv 2103.03230) equations 1 and 2.

    Args:
        a_BD: embeddings of the first view.
        b_BD: of the second view, in the same order.
        off_diagonal: weight of the second sum (the paper's lambda).
        scale: factor of the whole.

    Raises:
        ValueError: shapes differ or fewer than two rows.
    """
    a_BD, b_BD = _pair(a_BD, b_BD)
    with torch.autocast(a_BD.device.type, enabled=False):
        c_DD = _standardise(a_BD).T @ _standardise(b_BD) / len(a_BD)
        on = (c_DD.diagonal() - 1).square().sum()
        off = c_DD.masked_fill(_eye(c_DD), 0.0).square().sum()
        return Barlow(scale * (on + off_diagonal * off), on.detach(), off.detach())


def vicreg(
    a_BD: Tensor, b_BD: Tensor, *, invariance: float, variance: float, covariance: float
) -> Vicreg:
    """Return VICReg's loss: invariance, variance and covariance terms, each with its weight.

    * invariance: mean over all elements of (a - b) ** 2;
    * variance: mean over dimensions of max(0, 1 - sqrt(Var + 1e-4)), mean of the two views;
    * covariance: sum_{i != j} Cov_ij ** 2 / D, sum of the two views;

    variances and covariances are unbiased. These are the normalisations of the authors' code, which
    its weights 25, 25, 1 belong to. The paper's equations sum the invariance over dimensions and
    the variance over views: ``variance`` is then twice the weight written there.

    Source: Bardes et al. 2022 (arXiv 2105.04906) equations 1 to 6; the authors' ``main_vicreg.py``.

    Args:
        a_BD: embeddings of the first view.
        b_BD: of the second view, in the same order.
        invariance: weight of the invariance term.
        variance: weight of the variance term.
        covariance: weight of the covariance term.

    Raises:
        ValueError: shapes differ or fewer than two rows.
    """
    a_BD, b_BD = _pair(a_BD, b_BD)
    with torch.autocast(a_BD.device.type, enabled=False):
        apart = F.mse_loss(a_BD, b_BD)
        short, correlated = a_BD.new_zeros(()), a_BD.new_zeros(())
        for x_BD in (a_BD, b_BD):
            short = short + F.relu(1 - (x_BD.var(dim=0) + 1e-4).sqrt()).mean() / 2
            centred_BD = x_BD - x_BD.mean(dim=0)
            cov_DD = centred_BD.T @ centred_BD / (len(x_BD) - 1)
            off = cov_DD.masked_fill(_eye(cov_DD), 0.0).square().sum()
            correlated = correlated + off / x_BD.shape[1]
        loss = invariance * apart + variance * short + covariance * correlated
    return Vicreg(loss, apart.detach(), short.detach(), correlated.detach())


def negative_cosine(p_BD: Tensor, z_BD: Tensor) -> Tensor:
    """Return -mean cos(p, z), between -1 (they agree) and 1; no gradient flows into z.

    It is SimSiam's distance (Chen and He 2021, arXiv 2011.10566, equation 1). BYOL's squared
    distance of unit vectors (Grill et al. 2020, arXiv 2006.07733, equation 2) is 2 - 2 cos, that
    is ``2 + 2 * negative_cosine(p, z)``.

    Args:
        p_BD: predictions.
        z_BD: what they predict, in the same order.

    Raises:
        ValueError: shapes differ or fewer than two rows.
    """
    p_BD, z_BD = _pair(p_BD, z_BD)
    return -F.cosine_similarity(p_BD, z_BD.detach(), dim=1).mean()


@torch.no_grad()
def embedding_std(x_BD: Tensor) -> Tensor:
    """Return how far embeddings of unit length spread over the batch: about 1, or 0 if collapsed.

    The mean over dimensions of the standard deviation over the batch of x / |x|, times sqrt(D):
    random directions give 1, equal ones 0.

    Source: Chen and He 2021 (arXiv 2011.10566) section 4.1.

    Raises:
        ValueError: not a matrix of at least two rows.
    """
    if x_BD.ndim != 2 or len(x_BD) < 2:
        raise ValueError(f"expected at least two embeddings (B, D), got {tuple(x_BD.shape)}")
    return F.normalize(x_BD.float(), dim=1).std(dim=0).mean() * math.sqrt(x_BD.shape[1])


@torch.no_grad()
def retrieval(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    """Return the share of sounds whose second view is nearer to the first than all others are.

    Nearest by cosine, after the mean of each view's batch is taken away; 1 / B is chance, and 0 if
    all embeddings are equal.

    Raises:
        ValueError: shapes differ or fewer than two rows.
    """
    a_BD, b_BD = (x_BD - x_BD.mean(dim=0) for x_BD in _pair(a_BD, b_BD))
    with torch.autocast(a_BD.device.type, enabled=False):
        cosines_BB = F.normalize(a_BD, dim=1) @ F.normalize(b_BD, dim=1).T
    others_BB = cosines_BB.masked_fill(_eye(cosines_BB), float("-inf"))
    return (cosines_BB.diagonal() > others_BB.amax(dim=1)).float().mean()


class Queue(nn.Module):
    """The newest Q rows of a stream, in buffers: a resumed run goes on with the same ones.

    It starts with random vectors of unit length, as MoCo's queue does (He et al. 2020, arXiv
    1911.05722); :attr:`filled` counts the rows that came from the stream. Any number of rows may
    be pushed at a time; of more than Q, the last Q stay.

    Attributes:
        rows_QD: float32 rows.
        place: int64 scalar, row that the next one is written to.
        filled: int64 scalar, rows written so far, at most Q.
    """

    rows_QD: Tensor
    place: Tensor
    filled: Tensor

    def __init__(self, rows: int, width: int) -> None:
        """Draw the first rows from torch's global generator.

        Args:
            rows: Q, at least 1.
            width: D, at least 1.

        Raises:
            ValueError: rows or width below 1.
        """
        super().__init__()
        if rows < 1 or width < 1:
            raise ValueError(f"a queue needs rows >= 1 and width >= 1, got {rows} and {width}")
        self.register_buffer("rows_QD", F.normalize(torch.randn(rows, width), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, x_BD: Tensor) -> None:
        """Write rows over the oldest ones.

        Raises:
            ValueError: not a matrix of the queue's width.
        """
        size, width = self.rows_QD.shape
        if x_BD.ndim != 2 or x_BD.shape[1] != width:
            raise ValueError(f"expected rows of width {width}, got shape {tuple(x_BD.shape)}")
        x_BD = x_BD.detach().to(self.rows_QD)[-size:]
        where_B = (torch.arange(len(x_BD), device=x_BD.device) + self.place) % size
        self.rows_QD[where_B] = x_BD
        self.place.copy_((self.place + len(x_BD)) % size)
        self.filled.copy_((self.filled + len(x_BD)).clamp(max=size))


def _pair(a_BD: Tensor, b_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in float32 after a check of their shapes."""
    if a_BD.ndim != 2 or a_BD.shape != b_BD.shape or len(a_BD) < 2:
        raise ValueError(
            "expected two matrices of one shape (B, D) with at least two rows, got "
            f"{tuple(a_BD.shape)} and {tuple(b_BD.shape)}"
        )
    return a_BD.float(), b_BD.float()


def _positive(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")


def _standardise(x_BD: Tensor) -> Tensor:
    variance_D, mean_D = torch.var_mean(x_BD, dim=0, unbiased=False)
    return (x_BD - mean_D) * (variance_D + 1e-5).rsqrt()


def _eye(x_DD: Tensor) -> Tensor:
    return torch.eye(len(x_DD), dtype=torch.bool, device=x_DD.device)


def _nce(logits: Tensor, positive: Tensor) -> Nce:
    with torch.no_grad():
        own = logits.gather(1, positive[:, None])
        wins = logits.scatter(1, positive[:, None], float("-inf")).amax(dim=1) < own[:, 0]
    return Nce(F.cross_entropy(logits, positive), wins.float().mean())
