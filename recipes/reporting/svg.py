"""Matplotlib figures as small inline SVG that follows the page's colours.

Text and axes are drawn in ``currentColor``, so that one picture serves light, dark and print; the
same input gives the same bytes (fixed hash salt, no date).
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INK = "#010203"
COLOURS = (
    "#3b82c4", "#e07b39", "#3a9d5d", "#c94f6d", "#8a6fd1",
    "#b08d2f", "#2aa5a5", "#d16fb5", "#7a8794", "#9c6644",
)  # fmt: skip

_STYLE: dict[str, Any] = {
    "svg.hashsalt": "mynah",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "path.simplify": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.unicode_minus": False,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "none",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.0,
}
_LONG_NUMBER = re.compile(r"(-?\d+\.\d{2})\d+")
_IMAGE = re.compile(r"(<image\b[^>]*>)", re.DOTALL)


@contextmanager
def style() -> Iterator[None]:
    """Draw with the report's settings, whatever the user's matplotlib settings are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def colour(index: int, count: int) -> str:
    """Return the colour of one of ``count`` things, as ``#rrggbb``."""
    if count <= len(COLOURS):
        return COLOURS[index]
    import colorsys

    hue = index / count
    level = (0.45, 0.6)[index % 2]
    r, g, b = colorsys.hls_to_rgb(hue, level, 0.55)
    return f"#{round(r * 255):02x}{round(g * 255):02x}{round(b * 255):02x}"


def draw(paint: Callable[[Any, Any], None], *, alt: str, width: float, height: float) -> str:
    """Return inline SVG of what ``paint(figure, axes)`` draws.

    Args:
        paint: draws on the axes.
        alt: what the picture says, for those who do not see it.
        width: inches.
        height: inches.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with style():
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        paint(figure, axes)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return inline(buffer.getvalue(), alt=alt)


def inline(text: str, *, alt: str) -> str:
    """Return matplotlib's SVG made fit for a page: one element, small, named, in its colours."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace(INK, "currentColor")
    parts = _IMAGE.split(text)  # numbers inside an embedded bitmap are not numbers
    parts = [p if p.startswith("<image") else _LONG_NUMBER.sub(r"\1", p) for p in parts]
    text = re.sub(r"\n\s*", "\n", "".join(parts))
    size = re.match(r'<svg[^>]*?viewBox="([^"]*)"', text, flags=re.DOTALL)
    box = size.group(1) if size else "0 0 1 1"
    body = text[text.index(">") + 1 :]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" role="img" aria-label="{html.escape(alt)}">{body}'.strip()
    )
