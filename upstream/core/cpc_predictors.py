"""What predicts later frames from a context in CPC: a matrix per step, or a small Transformer.

* :class:`LinearPredictors`: W_k of van den Oord et al. 2018 (arXiv 1807.03748) equation 3.
* :class:`TransformerPredictors`: for each step its own causal layer, Riviere et al. 2020
  (arXiv 2002.02848) and ``CPC_audio``.

Shape suffixes: K steps, B batch, T frames, H context width, D width of a predicted frame,
X = K * D, A attention heads, E width of a head, L longest distance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RESIDUAL_STD = 0.01  # CPC_audio: RESIDUAL_STD


class LinearPredictors(nn.Linear):
    """One matrix without bias for each step.

    The first H rows of each matrix are drawn from N(0, 1), the others from N(0, 0.01^2), as
    ``CPC_audio`` does where frames are wider than the context. Where they are not it draws from
    U(-1 / sqrt(H), 1 / sqrt(H)): scores are then next to zero, and a short run is over before they
    are not.

    Args:
        steps: K.
        inputs: H.
        outputs: D.
    """

    def __init__(self, steps: int, inputs: int, outputs: int) -> None:
        super().__init__(inputs, steps * outputs, bias=False)
        self.steps = steps
        with torch.no_grad():
            rows_KDH = self.weight.unflatten(0, (steps, outputs))
            rows_KDH[:, :inputs].normal_()
            rows_KDH[:, inputs:].normal_(std=RESIDUAL_STD)

    def forward(self, c_BTH: Tensor) -> Tensor:
        """Return the prediction of each step, (K, B, T, D)."""
        pred_BTX: Tensor = super().forward(c_BTH)
        pred_KBTD: Tensor = pred_BTX.unflatten(-1, (self.steps, -1)).movedim(-2, 0)
        return pred_KBTD


class TransformerPredictors(nn.ModuleList):
    """One causal Transformer layer for each step.

    Args:
        steps: K.
        dim: width of the context and of predicted frames.
        heads: attention heads.
        ffn: inner width.
        dropout: of attention weights and inside the feed-forward sublayer.
        distances: L, the number of distances with a position vector of their own.
    """

    def __init__(
        self, steps: int, dim: int, *, heads: int, ffn: int, dropout: float, distances: int
    ) -> None:
        super().__init__(
            CausalLayer(dim, heads=heads, ffn=ffn, dropout=dropout, distances=distances)
            for _ in range(steps)
        )

    def forward(self, c_BTD: Tensor) -> Tensor:
        """Return the prediction of each step, (K, B, T, D)."""
        return torch.stack([layer(c_BTD) for layer in self])


class CausalLayer(nn.Module):
    """Attention to the past, then a feed-forward sublayer, each with a residual and a layer norm.

    A query q_i scores the key k_j, j <= i, with q_i . (k_j + p_{i - j}) / sqrt(E), where p are
    learned position vectors that all heads share; frames that are L or more apart share the last.

    Args:
        dim: width.
        heads: attention heads.
        ffn: inner width.
        dropout: of attention weights and after the ReLU.
        distances: L.
    """

    def __init__(self, dim: int, *, heads: int, ffn: int, dropout: float, distances: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(
                f"predictor_heads must divide the width of the context, got {heads} and {dim}"
            )
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        width = dim // heads
        self.position_LE = nn.Parameter(torch.empty(distances, width))
        nn.init.uniform_(self.position_LE, -(width**-0.5), width**-0.5)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ff1, self.ff2 = nn.Linear(dim, ffn), nn.Linear(ffn, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return (B, T, D)."""
        x_BTD = self.norm1(x_BTD + self.attend(x_BTD))
        inner = self.dropout(self.ff1(x_BTD).relu())
        y_BTD: Tensor = self.norm2(x_BTD + self.ff2(inner))
        return y_BTD

    def attend(self, x_BTD: Tensor) -> Tensor:
        """Return what each frame collects from itself and those before it."""
        q_BATE, k_BATE, v_BATE = (
            layer(x_BTD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        time_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
        back_TT = time_T[:, None] - time_T
        score_BATT = q_BATE @ k_BATE.transpose(-1, -2)
        near_BATL = q_BATE @ self.position_LE[: len(time_T)].T.to(q_BATE.dtype)
        which_TT = back_TT.clamp(0, near_BATL.shape[-1] - 1)
        score_BATT = score_BATT + near_BATL.gather(-1, which_TT.expand_as(score_BATT))
        score_BATT = score_BATT.float() * q_BATE.shape[-1] ** -0.5
        score_BATT = score_BATT.masked_fill(back_TT < 0, float("-inf"))
        weight_BATT = self.dropout(F.softmax(score_BATT, dim=-1)).to(v_BATE.dtype)
        mixed: Tensor = self.o((weight_BATT @ v_BATE).transpose(1, 2).flatten(2))
        return mixed
