"""What readers of foreign checkpoints share: look settings up, refuse others, copy the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Upstream

Model = TypeVar("Model", bound=Upstream)


def fill(
    model: Model, state: Mapping[str, Tensor], name: Callable[[str], str], path: str | Path
) -> Model:
    """Copy foreign weights into a model; every weight of both sides must find its partner.

    Args:
        model: to fill.
        state: foreign name -> tensor.
        name: gives the foreign name of one of our weights.
        path: what error messages name.

    Raises:
        ValueError: weights that are missing, left over, or of another shape.
    """
    own = model.state_dict()
    difference = modelfolder.diff(
        {name(key): str(tuple(value.shape)) for key, value in own.items()},
        {key: str(tuple(value.shape)) for key, value in state.items()},
    )
    if difference:
        raise ValueError(f"{path} does not fit {model.name}: {difference}")
    model.load_state_dict({key: state[name(key)].float() for key in own})
    return model


def at(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return a nested dictionary, empty where it is missing."""
    for key in keys:
        content = content.get(key) or {}
        if not isinstance(content, Mapping):
            return {}
    return dict(content)


def require(path: str | Path, settings: Mapping[str, Any], **wanted: Any) -> None:
    """Refuse settings that differ from what our model does; missing ones pass.

    Args:
        path: what error messages name.
        settings: name -> value.
        wanted: name -> the value that is implemented, or a tuple of those that are.

    Raises:
        ValueError: a setting that is not implemented.
    """
    for key, value in wanted.items():
        allowed = value if isinstance(value, tuple) else (value,)
        if key in settings and settings[key] not in allowed:
            raise ValueError(
                f"{path} was trained with {key}={settings[key]!r}; ours knows "
                f"{' or '.join(map(repr, allowed))} only. s3prl can run it: "
                f"s3prl:<hub name>,ckpt={path}"
            )
