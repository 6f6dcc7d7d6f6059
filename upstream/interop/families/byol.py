"""BYOL-A from checkpoints in the form of s3prl's ``byol_a``: the weights of the encoder.

The authors publish such files (``AudioNTT2020-BYOLA-64x96d2048.pth``). Their convolutions have a
bias in front of a batch norm, ours have none: the bias is taken off the batch norm's running mean,
which gives the same function. The normalisation is the one that s3prl uses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop.filling import at, fill

_BLOCKS = 3


def s3prl(content: Mapping[str, Any], path: str | Path) -> Upstream | None:
    """Return the BYOL-A of a checkpoint, for features only; None where it holds something else.

    Raises:
        ValueError: weights that do not fit.
    """
    from mynah.upstream.byol import Byol, Config

    state = _encoder(at(content, "state_dict") or content)
    last, width = state.get("features.8.weight"), state.get("fc.0.weight")
    if last is None or width is None:
        return None
    mels = width.shape[1] // last.shape[0] << _BLOCKS
    channels = tuple(
        state[f"features.{4 * depth}.weight"].shape[0]
        for depth in range(_BLOCKS)
        if f"features.{4 * depth}.weight" in state
    )
    model = Byol(
        Config(num_mels=mels, channels=channels, embed_dim=width.shape[0], objective=False)
    )
    for depth in range(_BLOCKS):
        bias = state.pop(f"features.{4 * depth}.bias", None)
        mean = state.get(f"features.{4 * depth + 1}.running_mean")
        if bias is not None and mean is not None and bias.shape == mean.shape:
            state[f"features.{4 * depth + 1}.running_mean"] = mean - bias
    own = model.state_dict()
    state.update({key: own[key] for key in own if key.startswith("norm.")})
    return fill(model, state, byol_a_key, path)


def byol_a_key(key: str) -> str:
    """Return BYOL-A's name of one of our weights."""
    found = re.fullmatch(r"encoder\.blocks\.(\d+)\.(conv|norm)\.(\w+)", key)
    if found:
        return f"features.{4 * int(found[1]) + (found[2] == 'norm')}.{found[3]}"
    return key.replace("encoder.fc1.", "fc.0.").replace("encoder.fc2.", "fc.3.")


def _encoder(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of the encoder without a prefix, leaving a target network out."""
    found: dict[str, Tensor] = {}
    for key, value in weights.items():
        name = re.search(r"(?:^|\.)((?:features|fc)\.\d+\.\w+)$", str(key))
        if name and isinstance(value, Tensor) and "target" not in str(key):
            found[name[1]] = value
    return found
