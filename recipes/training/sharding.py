"""Weights, gradients and moments spread over the processes (FSDP2), and whole again to be written.

Each Transformer layer is gathered when it runs and let go afterwards; the rest of the model is one
more such unit. Teachers are sharded like their students, so that moving averages stay local. A layer
that is skipped at random is skipped by all processes: they wait for each other wherever one is
gathered. What is written (checkpoints, the final model) is whole and the same as without sharding, so
a run may be resumed from any of them by as many processes as it began with.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mynah.recipes.training.layers import transformer_layers
from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.transformer import Encoder


def shard(objective: nn.Module, upstream: Upstream, device: torch.device) -> None:
    """Shard an objective's weights in place; build the optimiser afterwards.

    Raises:
        ValueError: sides that take turns: FSDP wants a gradient of every weight in every step.
    """
    if upstream.players > 1:
        raise ValueError(
            f"train.fsdp cannot train {upstream.name}, whose sides take turns: use DDP "
            "(train.fsdp=false)"
        )
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in transformer_layers(objective):
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def shared_drops(upstream: Upstream) -> torch.Generator | None:
    """Give the encoders that skip layers a generator for that alone; None where there are none.

    Seeded alike in all processes before a batch, it lets them skip the same layers.
    """
    encoders = [
        module
        for module in upstream.modules()
        if isinstance(module, Encoder) and module.config.layerdrop
    ]
    if not encoders:
        return None
    drops = torch.Generator()
    for encoder in encoders:
        encoder.drops = drops
    return drops


def full(value: Tensor) -> Tensor:
    """Return a tensor whole; every process must ask for the same ones in the same order."""
    if hasattr(value, "full_tensor"):  # a DTensor; its module is not imported for nothing
        whole: Tensor = value.full_tensor()
        return whole
    return value


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a whole tensor as the parameter that it belongs to is kept: sharded, or as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not value.ndim or not isinstance(parameter, DTensor):
        return value.to(parameter.device)
    place = value.to(parameter.device)
    return distribute_tensor(place, parameter.device_mesh, parameter.placements)


class Keeper:
    """A plain copy of a model on the CPU of the first process, filled when something is written.

    Args:
        upstream: before it is sharded.
        first: whether this process writes.
    """

    def __init__(self, upstream: Upstream, *, first: bool) -> None:
        self.first = first
        self.copy = copy.deepcopy(upstream).cpu() if first else upstream

    @torch.no_grad()
    def whole(
        self, upstream: Upstream, moments: Mapping[str, Tensor]
    ) -> tuple[Upstream, dict[str, Tensor]]:
        """Return model and optimiser state whole (on the first process); all must call it."""
        mine: dict[str, Any] = self.copy.state_dict() if self.first else {}
        for name, value in upstream.state_dict().items():
            gathered = full(value)
            if self.first:
                mine[name].copy_(gathered)
        state = {}
        for name, value in moments.items():
            gathered = full(value)
            if self.first:
                state[name] = gathered.cpu()
        return self.copy, state
