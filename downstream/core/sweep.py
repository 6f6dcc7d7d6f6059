"""K heads trained at once on the same batches: every learning rate of the grid, every seed.

The learning rate is the one thing that SUPERB searches, and it decides the score: a probe that
trains one learning rate after another reads the same features K times. Here the K heads' parameters
are stacked along a first dimension and each batch is read once. Nothing is shared between heads:
each has its own gradient, its own clipping and its own Adam state, so that the result is that of
K separate ``torch.optim.Adam`` (or AdamW) runs over the same batches (to rounding, held by tests), and a head
that diverges leaves the others alone.

Shape suffixes: K heads, L layers, B batch.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from mynah.downstream.core.featurizer import Featurizer, Probe, one_layer, weighted_sum

Mode = Literal["auto", "stacked", "vmap", "loop"]
log = logging.getLogger(__name__)


class Sweep:
    """K = seeds x learning rates probes, stacked; seeds vary slowest.

    Each seed's probe is built under ``torch.manual_seed(seed)``, so probes that differ in learning
    rate only start from the same weights. The order of the batches is the caller's and is common
    to all heads. Dropout inside a head draws anew for each head.

    Args:
        build: makes one head, which takes (features, lengths).
        layers: number of hidden states L of the features.
        learning_rates: the grid.
        seeds: seeds of the initial weights.
        layer: use this layer only instead of the weighted sum.
        normalize: layer-norm every frame of every layer first.
        clip: limit of each head's gradient norm (over its weighted sum and head together).
        optimizer: ``adam`` or ``adamw``.
        eps: of the optimiser.
        weight_decay: of ``adamw``.
        patience: a head counts as diverged after this many updates in a row whose gradient was
            not finite; such updates are skipped, as s3prl skips them.
        mode: ``stacked`` uses the head's own ``stacked`` function for K heads at once, ``vmap``
            maps its ``forward``, ``loop`` computes one head after another; ``auto`` takes the first
            that the head can do, ``loop`` where it says ``one_by_one``.
        device: where to train.

    Attributes:
        grid: (seed, learning rate) of each head.
        alive: whether each head still trains.

    Raises:
        ValueError: an empty grid, or a learning rate that is not positive and finite.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        *,
        layers: int,
        learning_rates: Sequence[float],
        seeds: Sequence[int] = (0,),
        layer: int | None = None,
        normalize: bool = False,
        clip: float = 1.0,
        optimizer: Literal["adam", "adamw"] = "adam",
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        patience: int = 20,
        mode: Mode = "auto",
        device: torch.device | str = "cpu",
    ) -> None:
        if not learning_rates or not seeds:
            raise ValueError("a sweep needs at least one learning rate and one seed")
        wrong = [rate for rate in learning_rates if not (rate > 0 and math.isfinite(rate))]
        if wrong:
            raise ValueError(f"learning rates must be positive and finite, got {wrong}")
        self.grid = [(seed, rate) for seed in seeds for rate in learning_rates]
        self.clip = clip
        self.patience = patience
        self.mode: Mode = mode
        probes = [
            self._build(build, seed, layers, layer, normalize).to(device) for seed, _ in self.grid
        ]
        self._template = copy.deepcopy(probes[0])
        if mode == "auto" and hasattr(probes[0].head, "stacked"):
            self.mode = "stacked"
        elif mode == "auto" and getattr(probes[0].head, "one_by_one", False):
            self.mode = "loop"
        self._params, self._buffers = stack_module_state([*probes])
        self._views = [
            {name: stack.detach()[k] for name, stack in self._params.items()}
            for k in range(len(self.grid))
        ]
        groups = [
            {"params": list(views.values()), "lr": rate}
            for views, (_, rate) in zip(self._views, self.grid, strict=True)
        ]
        kind = torch.optim.AdamW if optimizer == "adamw" else torch.optim.Adam
        self._optimizer = kind(groups, eps=eps, weight_decay=weight_decay, fused=True)
        self._skips = [0] * len(self.grid)
        self.alive = [True] * len(self.grid)

    @staticmethod
    def _build(
        build: Callable[[], nn.Module], seed: int, layers: int, layer: int | None, normalize: bool
    ) -> Probe:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Probe(Featurizer(layers, layer=layer, normalize=normalize), build())

    def __len__(self) -> int:
        """Return K."""
        return len(self.grid)

    @property
    def num_params(self) -> int:
        """Trainable parameters of one probe."""
        return sum(stack[0].numel() for stack in self._params.values())

    def train(self, mode: bool = True) -> None:
        """Switch the heads between training and evaluation."""
        self._template.train(mode)

    # -- forward ----------------------------------------------------------------------------

    def scale_rates(self, factor: float) -> None:
        """Multiply every head's own learning rate by a factor, for schedules."""
        for group, (_, rate) in zip(self._optimizer.param_groups, self.grid, strict=True):
            group["lr"] = rate * factor

    def __call__(
        self, features: Tensor, lengths_B: Tensor | None = None, *inputs: Tensor
    ) -> Tensor:
        """Return the K probes' logits, (K, B, C) or (K, B, T, V).

        Args:
            features: pooled (B, L, D) or frames (L, B, T, D).
            lengths_B: valid frames of each item.
            inputs: what the heads take besides, the same for all of them; such heads are computed
                one by one or by vmap.
        """
        featurizer = self._template.featurizer
        if featurizer.layer is None and featurizer.layers > 1:
            weights_KL = self._params["featurizer.weights"].softmax(dim=1)
            mixed = weighted_sum(weights_KL, features, normalize=featurizer.normalize)
        else:
            layer = featurizer.layer or 0  # the sum of one layer is that layer
            one = one_layer(features, layer, normalize=featurizer.normalize)
            mixed = one.expand(len(self), *one.shape)
        if self.mode == "stacked" and not inputs:
            stacked: Tensor = self._template.head.stacked(self._head_state()[0], mixed, lengths_B)  # type: ignore[operator]
            return stacked
        if self.mode == "loop":
            return self._loop(mixed, lengths_B, inputs)
        if self.mode == "vmap":
            return self._vmap(mixed, lengths_B, inputs)
        try:
            outputs = self._vmap(mixed, lengths_B, inputs)
            self.mode = "vmap"
        except (RuntimeError, NotImplementedError) as error:
            outputs = self._loop(mixed, lengths_B, inputs)
            log.info("heads are computed one by one, vmap cannot do them: %s", error)
            self.mode = "loop"
        return outputs

    def _head_state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        cut = len("head.")
        params = {n[cut:]: p for n, p in self._params.items() if n.startswith("head.")}
        buffers = {n[cut:]: b for n, b in self._buffers.items() if n.startswith("head.")}
        return params, buffers

    def _vmap(self, mixed: Tensor, lengths_B: Tensor | None, inputs: tuple[Tensor, ...]) -> Tensor:
        params, buffers = self._head_state()

        def one(params: Any, buffers: Any, features: Tensor) -> Tensor:
            out: Tensor = functional_call(
                self._template.head, (params, buffers), (features, lengths_B, *inputs)
            )
            return out

        outputs: Tensor = vmap(one, randomness="different")(params, buffers, mixed)
        return outputs

    def _loop(self, mixed: Tensor, lengths_B: Tensor | None, inputs: tuple[Tensor, ...]) -> Tensor:
        params, buffers = self._head_state()
        split = {name: stack.unbind(0) for name, stack in params.items()}
        outputs = []
        for k in range(len(self)):
            state = {name: parts[k] for name, parts in split.items()}
            state.update({name: stack[k] for name, stack in buffers.items()})
            given = (mixed[k], lengths_B, *inputs)
            outputs.append(functional_call(self._template.head, state, given))
        return torch.stack(outputs)

    # -- update -----------------------------------------------------------------------------

    def backward(self, losses_K: Tensor) -> None:
        """Add the gradient of each head's own loss; call once per micro-batch."""
        losses_K.sum().backward()

    def update(self) -> Tensor:
        """Clip each head's gradient, take one Adam step for each head, forget the gradients.

        Returns:
            (K,) gradient norms before clipping, not finite for heads that were skipped.
        """
        with torch.no_grad():
            grads = {n: s.grad for n, s in self._params.items() if s.grad is not None}
            norms_PK = torch.stack(
                [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads.values()]
            )
            norms_K = torch.linalg.vector_norm(norms_PK, dim=0)
            scale_K = (self.clip / (norms_K + 1e-6)).clamp(max=1.0)
            clipped = not bool((scale_K == 1).all())
            for grad in grads.values():
                if clipped:
                    grad.mul_(scale_K.view(-1, *[1] * (grad.ndim - 1)))
        for k, finite in enumerate(torch.isfinite(norms_K).tolist()):
            self._skips[k] = 0 if finite else self._skips[k] + 1
            if self.alive[k] and self._skips[k] >= self.patience:
                self.alive[k] = False
                log.warning("seed %d, learning rate %g diverged", *self.grid[k])
            used = finite and self.alive[k]
            for name, view in self._views[k].items():
                view.grad = grads[name][k] if used and name in grads else None
        self._optimizer.step()
        for stack in self._params.values():
            stack.grad = None
        norms: Tensor = norms_K
        return norms

    # -- what comes out ---------------------------------------------------------------------

    def state(self, k: int) -> dict[str, Tensor]:
        """Return a copy of one probe's parameters and buffers, on the CPU."""
        both = {**self._params, **self._buffers}
        return {name: stack.detach()[k].cpu().clone() for name, stack in both.items()}

    def probe(self, state: Mapping[str, Tensor]) -> Probe:
        """Return a probe of its own, in eval mode, from what :meth:`state` gave."""
        probe = copy.deepcopy(self._template)
        probe.load_state_dict(dict(state))
        return probe.eval()

    def living(self) -> Iterator[int]:
        """Yield the indices of the heads that have not diverged."""
        return (k for k, alive in enumerate(self.alive) if alive)
