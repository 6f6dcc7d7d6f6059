"""``mynah info NAME``: one upstream, task or model in full."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class Args:
    """Describe an upstream (``apc/tiny``, a run folder, ``hf:DIR`` ...) or a task (``ks``)."""

    name: Annotated[str, Positional]
    """Name of a task, or any upstream spec."""


def describe_task(name: str) -> list[tuple[str, str]]:
    """Return (what, value) lines of a task: spec, head size and both protocols."""
    from mynah import tasks

    module = tasks.get(name)
    spec = module.TASK.SPEC
    lines = [(f.name, str(getattr(spec, f.name))) for f in dataclasses.fields(spec)]
    for protocol, numbers in module.TASK.PROTOCOLS.items():
        shown = ", ".join(
            f"{f.name}={getattr(numbers, f.name)}" for f in dataclasses.fields(numbers)
        )
        lines.append((f"protocol {protocol}", shown))
    lines.append(("about", (module.__doc__ or "").strip()))
    return lines


def describe_upstream(spec: str) -> list[tuple[str, str]]:
    """Return (what, value) lines of an upstream: facts, sizes, config, method."""
    from mynah.upstream.core.spec import describe, load

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
    facts += [(f"config.{key}", value) for key, value in model.config_dict().items()]
    import sys

    about = sys.modules[type(model).__module__].__doc__ or ""
    return [(key, str(value)) for key, value in facts] + [("about", about.strip())]


def main(args: Args) -> int:
    """Print the description.

    Raises:
        LookupError: neither a task nor an upstream has this name.
    """
    from mynah import registry, tasks, upstream

    family = args.name.partition("/")[0]
    if args.name in tasks.available():
        lines = describe_task(args.name)
    elif ":" in args.name or family in upstream.available() or Path(args.name).is_dir():
        lines = describe_upstream(args.name)
    else:
        known = [*upstream.available(), *tasks.available()]
        raise LookupError(registry.unknown("upstream or task", args.name, known))
    from mynah.recipes.progress import console

    width = max(len(key) for key, _ in lines) + 2
    for key, value in lines:
        text = value.replace("\n", "\n" + " " * width)
        console.print(f"{key:<{width}}{text}", markup=False)
    return 0
