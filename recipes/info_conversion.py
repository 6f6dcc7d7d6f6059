"""What ``mynah info`` says of voice converters and vocoders."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

SPEAKERS = 100
SETTINGS = (
    "for `mynah pretrain`: the above as model.NAME=VALUE; model.noise_snr=[5,20] to "
    "learn to denoise (dB of speech over noise that is added to the input alone); with --teacher "
    "model.layer=N, the hidden state that is read, null for the mean of all"
)


def known() -> dict[str, str]:
    """Return every name -> the file that defines it: methods, vocoders, and variants of them.

    Methods that are trained are there as ``mynah pretrain`` calls them, too: ``vc/adain-tiny``.
    """
    from mynah import registry
    from mynah.downstream import conversion, vocoders

    names: dict[str, str] = {}
    for package, family in ((conversion, "vc"), (vocoders, "vocoder")):
        for name in package.available():
            shown = registry.variants(package.__path__[0], name)
            for variant in (name, *shown):
                names[variant] = names[f"{family}/{variant}"] = name
    return names


def describe(name: str) -> list[tuple[str, str]]:
    """Return (what, value) lines of a converter or vocoder, and of each of its variants.

    Raises:
        LookupError: no such method.
    """
    from mynah.downstream import conversion, vocoders

    method = known()[name]
    is_vocoder = method in vocoders.available()
    module: ModuleType = (vocoders if is_vocoder else conversion).get(method)
    family = "vocoder" if is_vocoder else "vc"
    lines = [("name", method), ("kind", "vocoder" if is_vocoder else "voice converter")]
    recipes = _recipes(family)
    for variant, config in getattr(module, "CONFIGS", {}).items():
        said = [f"{f.name}={getattr(config, f.name)}" for f in dataclasses.fields(type(config))]
        if (count := _size(module, config, is_vocoder=is_vocoder)) is not None:
            said.insert(0, f"{count:,} parameters")
        if variant in recipes:
            said.append(f"trained by `mynah pretrain {family}/{variant}`")
        lines.append((f"variant {variant}", ", ".join(said)))
    if not is_vocoder and any(variant in recipes for variant in getattr(module, "CONFIGS", {})):
        lines.append(("settings", SETTINGS))
    lines.append(("about", (module.__doc__ or "").strip()))
    return lines


def _recipes(family: str) -> set[str]:
    from importlib import resources

    folder = resources.files("mynah.recipes") / "conf" / "pretrain" / family
    return {path.name.removesuffix(".yaml") for path in folder.iterdir()}


def _size(module: ModuleType, config: Any, *, is_vocoder: bool) -> int | None:
    """Return the parameters of a model at its usual sizes; None where there is nothing to train."""
    import torch

    from mynah.downstream.conversion.core.contract import Sizes
    from mynah.downstream.core.melspec import MelSpec

    spec = MelSpec()
    with torch.device("meta"):
        if is_vocoder:
            model = module.GENERATOR(config, spec)
        else:
            model = module.CONVERTER(config, Sizes(dim=spec.num_mels, spec=spec, speakers=SPEAKERS))
    return sum(p.numel() for p in model.parameters()) or None
