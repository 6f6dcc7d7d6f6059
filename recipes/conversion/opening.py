"""Engines as commands name them: a method without training, or the folder of a trained one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mynah.recipes.conversion.contender import SPEAKER
from mynah.recipes.conversion.engine import Engine
from mynah.recipes.conversion.watermark import KEY

SIMPLE = ("copy", "knn", "mkl", "stats")
"""Methods that need no training."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is asked for.

    Attributes:
        method: one of ``SIMPLE``, or None where ``model`` is given.
        model: run or model folder of a trained converter.
        upstream: spec of the upstream that content is read from, for ``knn``; for a trained
            converter, where its own upstream lies now.
        layer: hidden state that ``knn`` reads.
        vocoder: name, None for the default.
        options: settings of the method, such as ``{"neighbours": 8}``.
        longest: seconds of a source.
        marked: whether what comes out carries a watermark.
    """

    method: str | None = None
    model: Path | None = None
    upstream: str | None = None
    layer: int | None = -1
    vocoder: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    longest: float = 300.0
    marked: bool = True


def open_engine(choice: Choice) -> Engine:
    """Return an engine.

    Raises:
        LookupError: an unknown method, vocoder or upstream.
        FileNotFoundError: no such folder.
        ValueError: settings that do not go together, or a damaged folder.
    """
    from mynah.recipes.conversion.vocoder import default_vocoder, open_vocoder

    if (choice.method is None) == (choice.model is None):
        raise ValueError("name a method (--method mkl) or a trained converter (--model RUN)")
    converter, hearing, identity = _trained(choice) if choice.model is not None else _simple(choice)
    vocoder = open_vocoder(choice.vocoder or default_vocoder(), hearing.spec)
    return Engine(
        converter,
        hearing,
        vocoder,
        identity=identity,
        longest=choice.longest,
        key=KEY if choice.marked else None,
    )


def _trained(choice: Choice) -> tuple[Any, Any, dict[str, Any]]:
    from mynah.recipes.conversion.trainee import load_converter, only_voice
    from mynah.upstream.core.spec import load

    assert choice.model is not None
    if choice.options:
        raise ValueError("a trained converter has the settings that it was trained with")
    given = None if choice.upstream is None else load(choice.upstream)
    model = load_converter(choice.model, upstream=given)
    identity = {
        "method": model.config.method,
        "variant": model.variant,
        "fingerprint": model.fingerprint(),
        "upstream": model.config.upstream,
    }
    if (speaker := only_voice(model.config.method, model.config.speakers)) is not None:
        identity[SPEAKER] = speaker
    return model.converter, model.hearing, identity


def _simple(choice: Choice) -> tuple[Any, Any, dict[str, Any]]:
    import dataclasses

    from mynah import registry
    from mynah.downstream import conversion
    from mynah.downstream.conversion.core.contract import Sizes
    from mynah.downstream.core.melspec import MelSpec
    from mynah.recipes.conversion.hearing import Hearing, Input
    from mynah.upstream.core.spec import load

    method = str(choice.method)
    if method not in SIMPLE:
        hint = ""
        if method in conversion.available():
            hint = (
                f" {method!r} must be trained first: mynah pretrain vc/{method} ..., then --model"
            )
        raise LookupError(registry.unknown("method", method, SIMPLE) + hint)
    if choice.upstream is not None and method != "knn":
        raise ValueError(f"{method} works on spectrograms: --upstream is for knn")
    module = conversion.get(method)
    source = Input()
    if choice.upstream is not None:
        source = Input(upstream=load(choice.upstream), layer=choice.layer)
    hearing = Hearing(MelSpec(), source)
    config = module.CONFIGS[method]
    known = {f.name for f in dataclasses.fields(config)}
    for name, _ in choice.options:
        if name not in known:
            raise ValueError(registry.unknown(f"setting of {method}:", name, sorted(known)))
    config = replace(config, **dict(choice.options))
    converter = module.CONVERTER(config, Sizes(dim=hearing.dim, spec=hearing.spec)).eval()
    identity: dict[str, Any] = {"method": method, "settings": dataclasses.asdict(config)}
    if source.upstream is not None:
        identity |= {
            "upstream": choice.upstream,
            "layer": choice.layer,
            "fingerprint": source.upstream.fingerprint(),
        }
    return converter, hearing, identity
