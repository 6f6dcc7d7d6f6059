"""LARS: steps as long as a fixed share of each weight's norm, for batches of thousands.

You et al. 2017 (arXiv:1708.03888), in the form that self-supervised methods use (SimCLR,
arXiv:2002.05709; Barlow Twins, arXiv:2103.03230): for a weight w with gradient g,

    d = g + weight_decay w
    v = momentum v + d trust |w| / |d|      (factor 1 where either norm is 0)
    w = w - lr v

You et al. have ``trust |w| / (|g| + weight_decay |w|)`` and put the learning rate into the momentum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

from mynah.recipes.training.sharding import full


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling; see the top of this module.

    Args:
        params: weights, or groups of them; a group with ``adapt=False`` takes steps of SGD.
        lr: learning rate.
        momentum: of the adapted gradients.
        weight_decay: added to the gradient before it is adapted.
        trust: the share of a weight's norm that an update of rate 1 has.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every weight that has a gradient; returns what a closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)
        return loss

    def _update(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        step = gradient.add(p, alpha=group["weight_decay"]) if group["weight_decay"] else gradient
        if group["adapt"]:
            weight, length = full(p.norm()), full(step.norm())
            ratio = torch.where(
                (weight > 0) & (length > 0),
                group["trust"] * weight / length,
                torch.ones_like(weight),
            )
            step = step * ratio
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        speed = state["momentum_buffer"].mul_(group["momentum"]).add_(step)
        p.sub_(speed, alpha=group["lr"])
