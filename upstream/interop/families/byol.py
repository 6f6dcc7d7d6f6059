"""BYOL-A from checkpoints in the form of s3prl's ``byol_a``: the weights of the encoder.

The authors publish such files (``AudioNTT2020-BYOLA-64x96d2048.pth``). The normalisation is the one
that s3prl uses. See :mod:`mynah.upstream.interop.audiontt`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop import audiontt
from mynah.upstream.interop.filling import at


def s3prl(content: Mapping[str, Any], path: str | Path) -> Upstream | None:
    """Return the BYOL-A of a checkpoint, for features only; None where it holds something else.

    Raises:
        ValueError: weights that do not fit.
    """
    from mynah.upstream.byol import Byol, Config

    state = _encoder(at(content, "state_dict") or content)
    return audiontt.read(state, lambda **settings: Byol(Config(**settings)), path)


def _encoder(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of the encoder without a prefix, leaving a target network out."""
    found: dict[str, Tensor] = {}
    for key, value in weights.items():
        name = re.search(r"(?:^|\.)((?:features|fc)\.\d+\.\w+)$", str(key))
        if name and isinstance(value, Tensor) and "target" not in str(key):
            found[name[1]] = value
    return found
