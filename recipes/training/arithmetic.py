"""Where and in which precision a step is computed, and whether its bits repeat."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from mynah.recipes.training.values import TrainConfig
from mynah.upstream.core.contract import Batch


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return a batch with its audio on a device; lengths and generator, read on the CPU, stay."""
    if device.type == "cpu":
        return batch
    # from pinned memory the copy goes on while the CPU draws masks
    speakers = None if batch.speakers_B is None else batch.speakers_B.to(device)
    return replace(batch, wav_BS=batch.wav_BS.to(device, non_blocking=True), speakers_B=speakers)


def autocast(device: torch.device, *, lower: bool) -> AbstractContextManager[Any]:
    """Return the context of the forward pass, in bfloat16 where ``lower`` is true."""
    if lower:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def reproducible(device: torch.device, config: TrainConfig) -> Iterator[None]:
    """Choose a GPU's arithmetic, and kernels that give the same bits each time where that is wanted.

    Torch's settings are left as they were. On a CPU kernels repeat their bits already, for a given
    number of threads.
    """
    with ExitStack() as stack:
        stack.enter_context(
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
        )
        if device.type == "cuda":
            rounding = torch.get_float32_matmul_precision()
            convolutions = torch.backends.cudnn.allow_tf32
            stack.callback(torch.set_float32_matmul_precision, rounding)
            stack.callback(setattr, torch.backends.cudnn, "allow_tf32", convolutions)
            torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = config.tf32
            if config.deterministic:
                stack.enter_context(_deterministic())
        yield


@contextmanager
def _deterministic() -> Iterator[None]:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark
