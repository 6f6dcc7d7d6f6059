"""``mynah info NAME``: one upstream, task, voice converter or vocoder in full."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class Args:
    """Describe an upstream (apc/tiny, a run folder, hf:DIR ...), a task, a converter or a vocoder."""

    name: Annotated[str, Positional]
    """Any upstream spec, or the name of a task (ks), voice converter (vc/adain) or vocoder
    (vocoder/hifigan). A family and variant also shows every recipe value that pretrain takes."""


def _names(count: int) -> list[str]:
    return [f"{i:04d}" for i in range(count)]


# What a task's state is on its official corpus, as far as the size of its head depends on it.
OFFICIAL: dict[str, dict[str, Any]] = {
    "ks": {"classes": _names(12)},
    "sid": {"classes": _names(1251)},
    "er": {"classes": _names(4)},
    "ic": {"slots": {"action": _names(6), "object": _names(14), "location": _names(4)}},
    "pr": {"symbols": ["<pad>", "<eos>", "<unk>", *_names(71)]},
    "asr": {"symbols": ["<s>", "<pad>", "</s>", "<unk>", *_names(28)]},
    "sf": {"symbols": ["<pad>", "<eos>", "<unk>", *_names(106)], "whole": True},
    "asv": {"classes": _names(1211)},
    "sd": {"speakers": 2, "threshold": 0.5, "median": 1},
    "se": {"sources": ["clean"]},
    "ss": {"sources": ["s1", "s2"]},
}
WIDTH, LAYERS, STRIDE = 768, 13, 320  # of a base-size upstream


def head_size(name: str) -> tuple[int, int] | None:
    """Return parameters of a task's head on its official corpus at width 768, and its outputs.

    None for tasks without a head, or whose inventory is not fixed (OOD-ASR, ST).
    """
    import torch

    from mynah import tasks
    from mynah.tasks.core.contract import Facts

    if name not in OFFICIAL:
        return None
    task = tasks.get(name).TASK("superb")
    task.restore(OFFICIAL[name])
    task.bind(Facts(dim=WIDTH, layers=LAYERS, stride=STRIDE, sample_rate=16000))
    with torch.device("meta"):
        head = task.head(WIDTH)
    return sum(p.numel() for p in head.parameters()), task.outputs


def describe_task(name: str) -> list[tuple[str, str]]:
    """Return (what, value) lines of a task: spec, head size and both protocols."""
    from mynah import tasks

    module = tasks.get(name)
    spec = module.TASK.SPEC
    lines = [(f.name, str(getattr(spec, f.name))) for f in dataclasses.fields(spec)]
    if size := head_size(name):
        lines.append(
            (
                "head",
                f"{size[0]:,} parameters at width {WIDTH}, {size[1]} outputs (official corpus)",
            )
        )
    for protocol, numbers in module.TASK.PROTOCOLS.items():
        shown = ", ".join(
            f"{f.name}={getattr(numbers, f.name)}" for f in dataclasses.fields(numbers)
        )
        lines.append((f"protocol {protocol}", shown))
    lines.append(("about", (module.__doc__ or "").strip()))
    return lines


def describe_upstream(spec: str) -> list[tuple[str, str]]:
    """Return (what, value) lines of an upstream: facts, sizes, config or recipe, method."""
    from mynah.upstream.core.spec import describe, has_weights, load, split

    model = load(spec)
    second = model.sample_rate
    facts: list[tuple[str, Any]] = [
        ("id", describe(spec)),
        ("family", model.name),
        ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
        ("sample rate", f"{model.sample_rate} Hz"),
        ("stride", f"{model.stride} samples = {1000 * model.stride / second:g} ms"),
        ("frames of 1 s", model.num_frames(second)),
        ("width", model.dim),
        ("hidden states", model.num_layers),
        ("fingerprint", model.fingerprint()),
    ]
    if split(spec)[0] == "family" and has_weights(spec):
        facts += recipe_values(spec)
    else:
        facts += [(f"config.{key}", value) for key, value in model.config_dict().items()]
    import sys

    about = sys.modules[type(model).__module__].__doc__ or ""
    return [(key, str(value)) for key, value in facts] + [("about", about.strip())]


def _unknown(name: str) -> LookupError:
    """Return the error for a name that nothing has; the closest are sought among all kinds."""
    from mynah import registry, tasks, upstream
    from mynah.recipes import info_conversion

    if upstream.variants_called(name):
        return LookupError(upstream.unknown(name))
    methods = [
        method for method in info_conversion.known() if "/" in method
    ]  # each has a short name
    known = [*upstream.available(), *tasks.available(), *methods]
    return LookupError(registry.unknown("upstream, task or converter", name, known))


def recipe_values(name: str) -> list[tuple[str, str]]:
    """Return every value of a variant's recipe, spelt as the overrides of pretrain want it.

    Raises:
        LookupError: unknown family or variant.
    """
    from mynah.recipes.training.config import load

    recipe = load(name)
    fields = [f.name for f in dataclasses.fields(recipe.model) if f.init]
    values = recipe.as_dict()
    values["model"] = {field: values["model"][field] for field in fields}
    lines = []
    for part in ("model", "train", "labels"):
        for key, value in values.get(part, {}).items():
            inner = value if part == "train" and isinstance(value, dict) else {"": value}
            lines += [(f"{part}.{key}.{sub}".rstrip("."), _spelt(v)) for sub, v in inner.items()]
    return lines


def _spelt(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def main(args: Args) -> int:
    """Print the description.

    Raises:
        LookupError: nothing has this name.
        FileNotFoundError, ValueError: a folder that is not there, or holds no model.
    """
    from mynah import tasks
    from mynah.recipes import info_conversion
    from mynah.upstream.core.spec import split

    if args.name in tasks.available():
        lines = describe_task(args.name)
    elif args.name in info_conversion.known() and not Path(args.name).is_dir():
        lines = info_conversion.describe(args.name)
    else:
        try:
            split(args.name)
        except LookupError as error:
            raise _unknown(args.name) from error
        lines = describe_upstream(args.name)
    from mynah.recipes.progress import console

    width = max(len(key) for key, _ in lines) + 2
    for key, value in lines:
        text = value.replace("\n", "\n" + " " * width)
        console.print(f"{key:<{width}}{text}", markup=False)
    return 0
