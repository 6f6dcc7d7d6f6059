"""AudioNTT, the encoder of BYOL-A and DeLoRes, from the weights that their authors publish.

Their convolutions have a bias in front of a batch norm, ours have none: the bias is taken off the
batch norm's running mean, which gives the same function. How inputs are normalised is not among the
weights; ours has its family's values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop.filling import fill

_BLOCKS = 3


def read(
    state: Mapping[str, Tensor], build: Callable[..., Upstream], path: str | Path
) -> Upstream | None:
    """Return an encoder's model for features only, None where the weights are of something else.

    Args:
        state: weights by the names ``features.<0...>`` and ``fc.<0|3>``.
        build: makes the model of the settings that the shapes tell.
        path: what error messages name.

    Raises:
        ValueError: weights that do not fit.
    """
    state = dict(state)
    last, width = state.get("features.8.weight"), state.get("fc.0.weight")
    if last is None or width is None:
        return None
    channels = tuple(
        state[f"features.{4 * depth}.weight"].shape[0]
        for depth in range(_BLOCKS)
        if f"features.{4 * depth}.weight" in state
    )
    settings: dict[str, Any] = {
        "num_mels": width.shape[1] // last.shape[0] << _BLOCKS,
        "channels": channels,
        "embed_dim": width.shape[0],
        "objective": False,
    }
    model = build(**settings)
    for depth in range(_BLOCKS):
        bias = state.pop(f"features.{4 * depth}.bias", None)
        mean = state.get(f"features.{4 * depth + 1}.running_mean")
        if bias is not None and mean is not None and bias.shape == mean.shape:
            state[f"features.{4 * depth + 1}.running_mean"] = mean - bias
    own = model.state_dict()
    state.update({key: own[key] for key in own if key.startswith("norm.")})
    return fill(model, state, name_of, path)


def name_of(key: str) -> str:
    """Return the published name of one of our weights."""
    found = re.fullmatch(r"encoder\.blocks\.(\d+)\.(conv|norm)\.(\w+)", key)
    if found:
        return f"features.{4 * int(found[1]) + (found[2] == 'norm')}.{found[3]}"
    return key.replace("encoder.fc1.", "fc.0.").replace("encoder.fc2.", "fc.3.")
