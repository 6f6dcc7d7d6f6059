"""Optimisers, gradient scaling and clipping, and the optimiser's state under readable names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mynah.recipes.training.lars import LARS
from mynah.recipes.training.sharding import full, like
from mynah.recipes.training.values import OptimizerConfig

State = Mapping[str, Tensor]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that want a gradient, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def build(model: nn.Module, config: OptimizerConfig, lr: float) -> torch.optim.Optimizer:
    """Return the optimiser of a model.

    Matrices decay and vectors (biases, norms, mask embeddings) do not, unless ``decay_vectors``;
    LARS adapts what decays, and takes plain steps for the rest (as SimCLR and Barlow Twins do).

    Raises:
        ValueError: the model has nothing to train.
    """
    parameters = trainable(model)
    if not parameters:
        raise ValueError(
            f"{getattr(model, 'name', type(model).__name__)} has no weights to train: pretrain "
            "another family ('mynah list'), or use this one as it is"
        )
    decayed = [p for p in parameters.values() if config.decay_vectors or p.ndim > 1]
    plain = [p for p in parameters.values() if not (config.decay_vectors or p.ndim > 1)]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if config.kind == "lars":
        groups[1].update(adapt=False, share=config.vector_share)
        found = [group for group in groups if group["params"]]
        lars = LARS(found, lr=lr, momentum=config.momentum, trust=config.trust)
        set_lr(lars, lr)
        return lars
    groups = [group for group in groups if group["params"]]
    # fused: one kernel for all weights, on CPU as well
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, fused=True)
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return kind(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group, of which one may have a share only."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("share", 1.0)


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Return the norm of all gradients together, where they are; nothing waits for it."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return full(nn.utils.get_total_norm(gradients)) if gradients else torch.zeros(())


def finish_gradients(
    parameters: Iterable[Tensor], scale: float, clip: float | None, *, found: Tensor | None = None
) -> float:
    """Multiply every gradient by ``scale``, clip them together, and return their norm before that.

    One pass over the gradients does both. A norm that is not finite leaves them as they are: the
    caller skips the step.

    Args:
        parameters: whose gradients are meant.
        scale: factor, applied before they are clipped.
        clip: largest norm, None for any.
        found: their :func:`gradient_norm`, where that was asked for already.
    """
    parameters = list(parameters)
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return 0.0
    norm = float(gradient_norm(parameters) if found is None else found) * scale
    factor = scale if clip is None or norm <= clip else scale * clip / norm
    if factor != 1.0 and norm == norm and norm != float("inf"):
        torch._foreach_mul_(gradients, factor)
    return norm


def state_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the optimiser's state as tensors named ``<parameter>|<quantity>``."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"{names[id(p)]}|{key}": value
        for p, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def load_state_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what ``state_tensors`` returned.

    Raises:
        ValueError: a name or a shape does not belong to this model.
    """
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        owner, _, key = name.rpartition("|")
        p = parameters.get(owner)
        if p is None or (value.ndim and value.shape != p.shape):
            raise ValueError(
                f"optimiser state {name!r} of shape {tuple(value.shape)} does not belong to this "
                "model; the checkpoint is of another one"
            )
        # Adam counts steps in a float32 scalar that lives where its kernel wants it.
        optimizer.state[p][key] = like(value, p)
