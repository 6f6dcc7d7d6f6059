"""The weighted sum over an upstream's hidden states, for one head or for K heads at once.

SUPERB's featurizer: ``sum_l softmax(w)_l h_l`` with ``w`` zero at first, so that training starts
from the plain mean of the layers. Options: one fixed layer, and a layer-norm without affine
parameters over each frame of each layer before the sum (s3prl's ``normalize``, which matters for
models whose residual streams have very different norms).

Shape suffixes: K heads, L layers, B batch, T frames, D width, N = B * T.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 128  # frames per product: float32 copies of all layers of a chunk stay in the CPU's cache


def _chunks(
    layers_LND: Tensor, normalize: bool, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, layers_LND.shape[1], CHUNK):
        part_LnD = layers_LND[:, start : start + CHUNK].to(dtype)
        if normalize:
            part_LnD = F.layer_norm(part_LnD, part_LnD.shape[-1:])
        yield slice(start, start + CHUNK), part_LnD.reshape(layers_LND.shape[0], -1)


class _ChunkedSum(torch.autograd.Function):
    """``weights @ layers`` without ever holding the layers in float32.

    The layers are data: they get no gradient, and a chunk is converted (and normalised) again in
    the backward pass instead of being kept.
    """

    @staticmethod
    def forward(ctx: Any, weights_KL: Tensor, layers_LND: Tensor, normalize: bool) -> Tensor:
        ctx.save_for_backward(layers_LND)
        ctx.normalize = normalize
        heads, (_, rows, dim) = weights_KL.shape[0], layers_LND.shape
        out_KND = torch.empty(heads, rows, dim, dtype=weights_KL.dtype, device=weights_KL.device)
        for at, flat_LX in _chunks(layers_LND, normalize, weights_KL.dtype):
            out_KND[:, at] = (weights_KL @ flat_LX).view(heads, -1, dim)
        return out_KND

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad_KND,) = grads
        (layers_LND,) = ctx.saved_tensors
        heads, layers = grad_KND.shape[0], layers_LND.shape[0]
        total_KL = grad_KND.new_zeros(heads, layers)
        for at, flat_LX in _chunks(layers_LND, ctx.normalize, grad_KND.dtype):
            total_KL += grad_KND[:, at].reshape(heads, -1) @ flat_LX.T
        return total_KL, None, None


def weighted_sum(weights_KL: Tensor, features: Tensor, *, normalize: bool = False) -> Tensor:
    """Return K weighted sums of the layers of a batch.

    Args:
        weights_KL: weights of each head, already softmaxed.
        features: (B, L, D) pooled means, or (L, B, T, D) frames in any float type.
        normalize: layer-norm every frame of every layer first.

    Returns:
        (K, B, D) or (K, B, T, D), of the weights' type.

    Raises:
        ValueError: another rank, another number of layers, or ``normalize`` on pooled features.
    """
    check(features, weights_KL.shape[1], normalize)
    if features.ndim == 3:
        return (weights_KL @ features.to(weights_KL.dtype)).transpose(0, 1)
    layers, *rest, dim = features.shape
    out_KND: Tensor = _ChunkedSum.apply(weights_KL, features.reshape(layers, -1, dim), normalize)
    return out_KND.view(-1, *rest, dim)


def one_layer(features: Tensor, layer: int, *, normalize: bool = False) -> Tensor:
    """Return one layer in float32: (B, D) of pooled (B, L, D), (B, T, D) of frames (L, B, T, D)."""
    check(features, None, normalize)
    chosen = features[:, layer] if features.ndim == 3 else features[layer]
    if chosen.dtype != torch.float64:
        chosen = chosen.float()
    return F.layer_norm(chosen, chosen.shape[-1:]) if normalize else chosen


def check(features: Tensor, layers: int | None, normalize: bool) -> None:
    """Refuse features that the featurizer cannot take.

    Raises:
        ValueError: as :func:`weighted_sum` says.
    """
    if features.ndim not in (3, 4):
        raise ValueError(
            "expected pooled features (B, L, D) or frames (L, B, T, D), "
            f"got shape {tuple(features.shape)}"
        )
    if features.ndim == 3 and normalize:
        raise ValueError(
            "the layer-norm of a frame does not commute with the mean over time: "
            "use frames (--features frames) with layer-norm"
        )
    given = features.shape[1] if features.ndim == 3 else features.shape[0]
    if layers is not None and given != layers:
        raise ValueError(f"the featurizer was made for {layers} layers, got {given}")


class Featurizer(nn.Module):
    """The weighted sum of one head.

    Args:
        layers: number of hidden states L.
        layer: use this one only (negative counts from the end); there is then no parameter.
        normalize: layer-norm every frame of every layer first.

    Raises:
        ValueError: no such layer.
    """

    def __init__(self, layers: int, *, layer: int | None = None, normalize: bool = False) -> None:
        super().__init__()
        if layer is not None and not -layers <= layer < layers:
            raise ValueError(f"layer must be between {-layers} and {layers - 1}, got {layer}")
        self.layers = layers
        self.layer = layer
        self.normalize = normalize
        if layer is None:
            self.weights = nn.Parameter(torch.zeros(layers))

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, D) of pooled features (B, L, D), or (B, T, D) of frames (L, B, T, D)."""
        if self.layer is not None:
            return one_layer(features, self.layer, normalize=self.normalize)
        weights_1L = self.weights.softmax(dim=0)[None]
        return weighted_sum(weights_1L, features, normalize=self.normalize)[0]

    def layer_weights(self) -> list[float]:
        """Return how much each layer counts; the entries sum to 1."""
        if self.layer is not None:
            return [float(i == self.layer % self.layers) for i in range(self.layers)]
        return [float(w) for w in self.weights.detach().double().softmax(dim=0)]


class Probe(nn.Module):
    """A featurizer and a head: everything that a probe trains.

    Args:
        featurizer: weighted sum or one layer.
        head: takes (features, lengths) and returns logits.
    """

    def __init__(self, featurizer: Featurizer, head: nn.Module) -> None:
        super().__init__()
        self.featurizer = featurizer
        self.head = head

    def forward(self, features: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Return the head's logits for pooled features (B, L, D) or frames (L, B, T, D)."""
        logits: Tensor = self.head(self.featurizer(features), lengths_B)
        return logits
