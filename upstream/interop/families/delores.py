"""DeLoRes from checkpoints of its authors' code (LAPE), which Lightning writes: the encoder.

DeLoRes-S keeps it as ``encoder.encoder``, DeLoRes-M the query's as ``encoder_q.encoder``. Projectors
and queue are dropped: what is read yields features. See :mod:`mynah.upstream.interop.audiontt`.
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

_NAME = re.compile(
    r"(?:.*\.)?(encoder|encoder_q)\.encoder\.(?:features_(\d)\.(\d)|fc\.(\d))\.(\w+)"
)


def s3prl(content: Mapping[str, Any], path: str | Path) -> Upstream | None:
    """Return the DeLoRes of a checkpoint, for features only; None where it holds something else.

    Raises:
        ValueError: weights that do not fit.
    """
    from mynah.upstream.delores import Config, Delores

    state: dict[str, Tensor] = {}
    method: dict[str, Any] = {"method": "s"}
    for key, value in at(content, "state_dict").items():
        found = _NAME.fullmatch(str(key))
        if found is None or not isinstance(value, Tensor):
            continue
        if found[1] == "encoder_q":
            method = {"method": "m"}
        place = (
            f"fc.{found[4]}" if found[4] else f"features.{4 * int(found[2]) - 4 + int(found[3])}"
        )
        state[f"{place}.{found[5]}"] = value
    return audiontt.read(state, lambda **settings: Delores(Config(**settings, **method)), path)
