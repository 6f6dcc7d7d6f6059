"""One probe per hidden state: what each layer is worth for a task. Light to import.

The features are extracted once; then every layer's heads are trained by themselves, exactly as
``--layer K`` trains them, so that each stops when it does, and what is there of one layer is kept.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mynah.recipes.probing.settings import Settings

if TYPE_CHECKING:
    from mynah.recipes.results import Result

Layers = Literal["sum", "each"]


def run_each(
    spec: str, task: str, corpus_folder: Path, out: Path, *, settings: Settings, **options: Any
) -> list[list[Result] | Exception]:
    """Probe each hidden state of an upstream; returns for each its results, or why it failed.

    Args:
        spec: of the upstream.
        task: name of the task.
        corpus_folder: a prepared corpus.
        out: folder of results.
        settings: of every layer's probe; they name no layer.
        options: as of :func:`mynah.recipes.probing.job.run`; the upstream is loaded once.

    Raises:
        ValueError: settings that name a layer.
        LookupError, FileNotFoundError, BadDataError: no such upstream, task or corpus.
        OSError: the disk is full.
    """
    from mynah.recipes.errors import of_one_cell
    from mynah.recipes.probing.job import plan, run
    from mynah.recipes.probing.joint import run_together
    from mynah.upstream.core import spec as specs

    if settings.layer is not None:
        raise ValueError(f"give either one layer (got {settings.layer}) or --layers each, not both")
    if options.get("upstream") is None:
        options["upstream"] = specs.load(
            spec,
            precision=options.get("precision", "fp32"),
            device=options.get("device", "cpu"),
            seed=options.get("upstream_seed", 0),
        )
    each = [
        dataclasses.replace(settings, layer=layer)
        for layer in range(options["upstream"].num_layers)
    ]
    if settings.features == "stream":  # nothing is kept: all layers hear the same forwards
        plans = [plan(spec, task, corpus_folder, out, settings=one, **options) for one in each]
        return run_together(plans)
    found: list[list[Result] | Exception] = []
    for one in each:
        try:
            found.append(run(spec, task, corpus_folder, out, settings=one, **options))
        except Exception as error:  # noqa: BLE001  raised again where no layer is to blame
            found.append(of_one_cell(error))
    return found
