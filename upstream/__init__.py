"""Upstreams: what listens. One file per speech SSL family.

The registry is the folder: ``upstream/apc.py`` *is* the upstream ``apc``. A family's file defines
``Config`` (a frozen keyword-only dataclass), ``CONFIGS`` (variant name -> Config; at least ``base``
and ``tiny``) and ``MODEL`` (its :class:`~mynah.upstream.core.contract.Upstream` class).
"""

if __name__ != "mynah.upstream":
    raise ImportError(
        f"this folder is the package mynah.upstream and was imported as {__name__!r}: "
        "install the project (pip install -e .) and write 'import mynah.upstream'"
    )

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from mynah import registry

if TYPE_CHECKING:
    from mynah.upstream.core.contract import Upstream


_ELSEWHERE: dict[str, str] = {}


def available() -> list[str]:
    """Return every name, without importing any of the files."""
    return registry.names(__name__)


def add(name: str, module: str) -> None:
    """Make a model of another package known here, so that its folders can be read and frozen.

    Args:
        name: of the family.
        module: import path of what defines ``Config``, ``CONFIGS`` and ``MODEL``.

    Raises:
        ValueError: a family of this folder has that name.
    """
    if name in available():
        raise ValueError(f"{name!r} is a family of {__name__} already")
    _ELSEWHERE[name] = module


def known() -> list[str]:
    """Return every name, those of other packages included."""
    return [*available(), *sorted(_ELSEWHERE)]


SIZES = ("base", "large", "tiny")


def variants_called(name: str) -> list[str]:
    """Return every ``family/variant`` whose variant is called like this: ``wavlm``, a HuBERT.

    Sizes aside, and whatever is written with or without a line between words.
    """
    given = name.partition("/")[0].replace("_", "").replace("-", "").lower()
    found = []
    for family in available():
        for variant in registry.variants(__path__[0], family):
            own = "".join(part for part in variant.split("-") if part not in SIZES)
            own = own.replace("_", "")
            if own and (own == given or (len(own) > 3 and own in given)):
                found.append(f"{family}/{variant}")
    return found


def unknown(name: str) -> str:
    """Return the message for a name, or family and variant, that is no upstream's."""
    if found := variants_called(name):
        return (
            f"unknown upstream {name!r}. As a variant: {', '.join(found)}. "
            f"Available: {', '.join(available())}."
        )
    return registry.unknown("upstream", name, available())


def get(name: str) -> ModuleType:
    """Import and return the module of one upstream.

    Raises:
        LookupError: no such name; the message lists variants of that name or the closest families,
            and all of them.
    """
    if name in _ELSEWHERE:
        return importlib.import_module(_ELSEWHERE[name])
    if name not in available():
        raise LookupError(unknown(name))
    return importlib.import_module(f"{__name__}.{name}")


def build(name: str, *, seed: int = 0) -> "Upstream":
    """Build ``family`` or ``family/variant`` with random weights drawn from ``seed``.

    Raises:
        LookupError: unknown family or variant.
    """
    import torch

    family, _, variant = name.partition("/")
    module = get(family)
    variant = variant or "base"
    if variant not in module.CONFIGS:
        raise LookupError(registry.unknown(f"variant of {family!r}:", variant, module.CONFIGS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Upstream = module.MODEL(module.CONFIGS[variant])
    return model
