"""The processes of a run: one, or those that ``torchrun`` started.

Only what a loop needs: who am I, wrap a model so that gradients are averaged (DDP) or spread as well
(FSDP2), and a few numbers or objects exchanged per step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mynah.upstream.core.contract import Batch, Upstream
from mynah.upstream.core.devices import device_for

T = TypeVar("T")

HANG = timedelta(minutes=10)  # a rank that is silent for so long is taken for dead


class Objective(nn.Module):
    """A model whose ``forward`` is the upstream's loss, which is what DDP can wrap."""

    def __init__(self, upstream: Upstream) -> None:
        super().__init__()
        self.upstream = upstream

    def forward(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor], float]:
        """Return total, parts and weight of the loss."""
        loss = self.upstream.loss(batch)
        return loss.total, loss.parts, loss.weight


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among its peers.

    Attributes:
        rank: number of this process; 0 writes, the others do not.
        size: number of processes.
        device: where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def wrap(self, upstream: Upstream, *, fsdp: bool = False) -> nn.Module:
        """Return the objective, with gradients averaged over the processes where there are many.

        Args:
            upstream: on its device.
            fsdp: spread its weights over the processes; they are replaced, so that the optimiser
                must be built afterwards.

        Raises:
            ValueError: ``fsdp`` with one process, or with a model that cannot be spread.
        """
        objective = Objective(upstream)
        if fsdp:
            from mynah.recipes.training.sharding import shard

            if self.size == 1:
                raise ValueError(
                    "train.fsdp spreads weights over processes and there is one: start the run with "
                    "torchrun --nproc-per-node N -m mynah pretrain ..., or set train.fsdp=false"
                )
            shard(objective, upstream, self.device)
            return objective
        if self.size == 1:
            return objective
        # Layer drop and empty masks leave parameters without gradient in some steps. Where there are
        # none every rank would be told to turn off the search for them: here there always is one.
        objective.unused = nn.Parameter(torch.zeros((), device=self.device))
        return nn.parallel.DistributedDataParallel(objective, find_unused_parameters=True)

    def accumulating(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Return a context in which gradients stay local unless this is the step's last batch."""
        synchronise = getattr(model, "set_requires_gradient_sync", None)  # FSDP2
        if callable(synchronise):
            synchronise(last)
        if last or not isinstance(model, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return model.no_sync()

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over processes of a vector."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Return one object per process, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_first(self, function: Callable[[], T]) -> T:
        """Call a function on rank 0 alone; its result, or its error, reaches every process."""
        if self.size == 1:
            return function()
        message: list[Any] = [None, None]
        if self.first:
            try:
                message[0] = function()
            except Exception as error:
                message[1] = error
                dist.broadcast_object_list(message, src=0)
                raise
        dist.broadcast_object_list(message, src=0)
        if message[1] is not None:
            raise message[1]
        result: T = message[0]
        return result


@contextmanager
def world(device: str = "auto") -> Iterator[World]:
    """Join the processes that ``torchrun`` started, if it did, and leave them at the end.

    Raises:
        ValueError: the device cannot be used.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = device_for(device, int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size == 1:
        yield World(device=chosen)
        return
    mine = not dist.is_initialized()  # a group can be made once in the life of a process
    if mine:
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=HANG)
    try:
        yield World(rank=dist.get_rank(), size=size, device=chosen)
    finally:
        if mine:
            dist.destroy_process_group()


def hardware(device: torch.device) -> str:
    """Return the name of a device, as it matters for exact resumption."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})"
