"""What a table of results cost, in a line."""

from __future__ import annotations

from collections.abc import Sequence

from mynah.recipes.results import Result


def cost_of(results: Sequence[Result]) -> str:
    """Return what results cost, by stage; what several seeds share counts once."""
    cells = {(r.upstream, r.label, r.layer, r.corpus, r.protocol): r for r in results}.values()
    spent = {
        stage: sum(r.costs[stage].cpu for r in cells if stage in r.costs)
        for stage in ("extract", "train", "score")
    }
    whole = sum(spent.values()) or 1.0
    shares = ", ".join(f"{name} {s:.0f} ({100 * s / whole:.0f} %)" for name, s in spent.items())
    heard = sum(r.forwards for r in cells if not r.shared_with)
    shared = {(r.upstream, r.corpus, r.forwards) for r in cells if r.shared_with}
    heard += sum(count for _, _, count in shared)
    return f"CPU seconds: {shares}; {heard} utterances through the upstreams"
