"""Choosing on dev: one learning rate per seed for all folds, one step per fold."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mynah.recipes.errors import DivergedError
from mynah.recipes.probing.train import Best, Trained


def choose(folds: Mapping[str, Trained], seed: int, *, higher: bool) -> dict[str, Best]:
    """Return the best weights of the best learning rate for one seed, by fold.

    The learning rate is the one whose best dev scores are best on average over the folds; between
    equals the lower dev loss decides. Heads that diverged in any fold, or never gave a finite dev
    loss, are out.

    Raises:
        DivergedError: no learning rate is left.
    """
    grid = next(iter(folds.values())).sweep.grid
    ranked = []
    for k, (own, _) in enumerate(grid):
        if own != seed or not all(k in f.best and f.sweep.alive[k] for f in folds.values()):
            continue
        found = [f.best[k].evaluation for f in folds.values()]
        score = math.fsum(e.dev or 0.0 for e in found) / len(found)
        loss = math.fsum(math.inf if e.dev_loss is None else e.dev_loss for e in found)
        ranked.append((-score if higher else score, loss, k))
    if not ranked:
        rates = ", ".join(f"{rate:g}" for own, rate in grid if own == seed)
        raise DivergedError(
            f"every head of seed {seed} diverged (learning rates {rates}): give lower ones with "
            "--lrs, and check the features (mynah check)"
        )
    k = min(ranked)[2]
    return {name: fold.best[k] for name, fold in folds.items()}
