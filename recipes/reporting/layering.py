"""Pictures of hidden states: their weights in the sum, and what each is worth by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from mynah.recipes.reporting import embeddings, plot
from mynah.recipes.reporting.figures import Picture, direction, over, unit
from mynah.recipes.reporting.groups import Files, by_layer
from mynah.recipes.results import Result


def weights(files: Files, results: Sequence[Result], index: Mapping[str, int]) -> list[Picture]:
    """The weight of every layer in the head's weighted sum: as trained, and times the layer's norm.

    A weight alone says little where one layer's values are larger than another's; what reaches the
    head is weight times norm. The norms are those of the test utterances' time means, kept by the
    probe where each row that is scored is an utterance.

    Args:
        files: of the results.
        results: of one task, one for each upstream.
        index: upstream -> its place among all things of the page.
    """
    raw = {r.upstream: r.layer_weights for r in results if len(r.layer_weights) > 1}
    if not raw:
        return []
    corrected = {}
    for r in results:
        norms = _norms(files, r) if r.upstream in raw else None
        if norms is not None:
            parts = np.asarray(r.layer_weights) * norms
            corrected[r.upstream] = tuple(float(p) for p in parts / max(parts.sum(), 1e-12))
    mean = over(next(r for r in results if r.upstream in raw))
    out = [
        _lines(
            raw,
            index,
            f"Weight of each layer in the head's softmax-weighted sum{mean}, as trained.",
        )
    ]
    if corrected:
        missing = len(raw) - len(corrected)
        said = (
            "The same times the mean norm of the layer's time means on test, scaled to sum to one: "
        )
        said += "the share of each layer in what the head reads."
        if missing:
            said += f" {missing} upstream{'s' if missing > 1 else ''} kept no norms."
        out.append(_lines(corrected, index, said))
    return out


def _norms(files: Files, result: Result) -> np.ndarray | None:
    """Return the norm of each layer, None where none was kept, or where layers were normalised."""
    if result.embeddings is None or result.settings.get("layer_norm") == "true":
        return None
    found = embeddings.norms(files.beside(result, result.embeddings))
    return found if found is not None and len(found) == len(result.layer_weights) else None


def _lines(found: Mapping[str, Sequence[float]], index: Mapping[str, int], said: str) -> Picture:
    width = max(map(len, found.values()))
    most = "; ".join(
        f"{u}: most ({100 * max(w):.0f} %) on layer {int(np.argmax(w))}" for u, w in found.items()
    )
    drawn = plot.Plot(
        plot.whole("layer (0: before the first block)", range(width), count=12),
        plot.linear("share, per cent", [0.0, *(100 * w for ws in found.values() for w in ws)]),
        alt=f"layer weights. {most}",
        digits=0,
    )
    for name, ws in found.items():
        drawn.line(range(len(ws)), [100 * w for w in ws], index[name])
        top = int(np.argmax(ws))
        drawn.dot(top, 100 * ws[top], index[name])
    return Picture(svg=drawn.svg(), caption=f"{said} The symbol is on the largest.")


def alone(results: Sequence[Result], index: Mapping[str, int]) -> Picture | None:
    """What each hidden state scores by itself (``mynah probe --layers each``), with intervals.

    Args:
        results: of one task, any layers.
        index: upstream -> its place among all things of the page.
    """
    found = by_layer(results)
    if not found:
        return None
    first = results[0]
    lines: dict[str, list[tuple[int, float, float, float]]] = {}
    for name, mine in found.items():
        by: dict[int, list[Result]] = defaultdict(list)
        for r in mine:
            by[r.layer if r.layer is not None else 0].append(r)
        lines[name] = [
            (layer, _mean(rs, "value"), _mean(rs, "low"), _mean(rs, "high"))
            for layer, rs in sorted(by.items())
        ]
    pick = max if first.higher_is_better else min
    best = {u: pick(points, key=lambda p: p[1]) for u, points in lines.items()}
    said = "; ".join(f"{u}: best {p[1]:.3g} at layer {p[0]}" for u, p in best.items())
    scale = first.main.scale
    drawn = plot.Plot(
        plot.whole(
            "layer (0: before the first block)", [p[0] for ps in lines.values() for p in ps]
        ),
        plot.linear(
            f"{first.metric}{unit(scale)}", [v for ps in lines.values() for p in ps for v in p[1:]]
        ),
        alt=f"{first.metric} by layer. {said}",
    )
    for name, points in lines.items():
        layers, values, low, high = (list(column) for column in zip(*points, strict=True))
        drawn.band(layers, low, high, index[name])
        drawn.line(layers, values, index[name])
        drawn.dot(best[name][0], best[name][1], index[name])
    return Picture(
        svg=drawn.svg(),
        caption=f"A probe of each hidden state by itself: test {first.metric} with 95 % intervals, "
        f"{direction(higher=first.higher_is_better)}. {said}.",
    )


def _mean(results: Sequence[Result], of: Literal["value", "low", "high"]) -> float:
    """Return a mean over seeds, as tables show it."""
    return float(np.mean([r.main.scale * getattr(r.main, of) for r in results]))
