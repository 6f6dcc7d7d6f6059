"""The quick profile of ``mynah bench --quick``: a first impression for a fraction of the cost.

Narrow heads where a task has them, few updates, and one or two learning rates instead of five. Its
scores are not those of the protocol and are kept apart by their settings; what they are good for is
the order of upstreams. Light to import.
"""

from __future__ import annotations

import dataclasses

from mynah.recipes.probing.settings import Settings

# task -> updates at most, learning rates. Heads that are trained by CTC say nothing but blanks for
# their first hundred or two of updates; the sentences of OOD-ASR's test set are long besides, of
# accents that are never trained on.
QUICK: dict[str, tuple[int, tuple[float, ...]]] = {
    "ks": (400, (1e-2, 1e-3)),
    "sid": (400, (1e-2, 1e-3)),
    "ic": (400, (1e-2, 1e-3)),
    "er": (300, (1e-2, 1e-3)),
    "pr": (600, (1e-2,)),
    "asr": (500, (5e-3,)),
    "ood_asr": (1500, (5e-3,)),
    "sf": (400, (5e-3,)),
    "asv": (200, (1e-3,)),
    "sd": (200, (1e-3,)),
    "se": (400, (1e-3,)),
    "ss": (800, (1e-3,)),
    "st": (60, (2e-3,)),
}


def quick(settings: Settings, task: str) -> Settings:
    """Return the settings with the quick profile where they do not say otherwise."""
    steps, rates = QUICK.get(task, (300, (1e-3,)))
    return dataclasses.replace(
        settings,
        heads="small",
        steps=settings.steps or steps,
        learning_rates=settings.learning_rates or rates,
    )
