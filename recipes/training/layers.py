"""What may be done to a model's Transformer layers before training: compile, or compute twice.

Both replace the ``forward`` of each layer and nothing else: names of weights, types of modules and
their hooks stay as they are, so that checkpoints do not depend on it and both go with DDP and FSDP.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mynah.recipes.training.kernels import again
from mynah.recipes.training.values import TrainConfig
from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.transformer import Layer


def transformer_layers(module: nn.Module) -> list[Layer]:
    """Return the shared Transformer's layers in a module, each once."""
    return [layer for layer in module.modules() if isinstance(layer, Layer)]


def prepare_layers(upstream: Upstream, config: TrainConfig, device: torch.device) -> None:
    """Compile the layers, or let them forget their activations, as the recipe wants.

    Compiled for the lengths that come: torch compiles for the first, then once more for any length,
    so that crops of many lengths do not compile each. A layer that forgets keeps its input only and
    computes the rest again in the backward pass, with the same dropout.

    Raises:
        ValueError: the model has no such layers, or there is nothing to compile with.
    """
    if not (config.compile or config.checkpoint_activations):
        return
    layers = transformer_layers(upstream)
    if not layers:
        raise ValueError(
            f"{upstream.name} has no Transformer layers of ours: set train.compile and "
            "train.checkpoint_activations to false"
        )
    if config.compile:
        check_compiler(device)
    for layer in layers:
        forward: Callable[..., Any] = layer.forward
        if config.compile:
            forward = torch.compile(forward)
        if config.checkpoint_activations:
            forward = partial(checkpoint, forward, use_reentrant=False, context_fn=again)
        layer.forward = forward  # type: ignore[method-assign]


def check_compiler(device: torch.device) -> None:
    """Refuse where torch.compile would fail at the first step.

    Raises:
        ValueError: no C++ compiler (CPU), no triton (GPU).
    """
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        raise ValueError(
            "train.compile needs a C++ compiler on a CPU: install g++, or leave it out"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ValueError("train.compile needs triton on a GPU: pip install triton, or leave it out")
