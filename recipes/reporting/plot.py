"""Small pictures as hand-written SVG: axes, lines, dots, bands, intervals.

A picture is a kilobyte or so: positions are rounded to a tenth, paths are relative, and colours,
dashes and fonts are classes of the page's style sheet (``c0`` ... ``c9``, ``d1`` ...), so that one
picture serves light, dark and print. The same input gives the same bytes.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

COLOURS = 10
WIDTH, HEIGHT = 330, 220
GLYPH = 5.9  # width of a digit or letter, on average, at the size of tick labels
_SHAPES = (
    "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z",
    "M-3.2-3.2h6.4v6.4h-6.4z",
    "M0-4.2l4 7h-8z",
    "M0-4.6l4.2 4.6-4.2 4.6-4.2-4.6z",
    "M0 4.2l4-7h-8z",
)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """How values become places between 0 and 1.

    Attributes:
        name: what is drawn along it.
        low: of what is shown, after ``forward``.
        high: likewise.
        ticks: values with labels.
        forward: of values; the identity unless the axis is logarithmic or the like.
    """

    name: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    forward: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        """Return the place of a value; what is outside lies on the edge."""
        share = (self.forward(value) - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))


def number(value: float) -> str:
    """Return a coordinate: a tenth is enough, and no more digits than needed."""
    text = f"{value:.1f}"
    return {"-0.0": "0"}.get(text, text.removesuffix(".0"))


def plain(value: float) -> str:
    """Return a tick label: at most three digits, thousands as k, millions as M."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if letter == 'k' else limit):.3g}{letter}"
    return f"{value:.4g}"


def linear(name: str, values: Iterable[float], *, count: int = 5, margin: float = 0.06) -> Axis:
    """Return an axis with round ticks that holds all values."""
    found = list(values) or [0.0]
    low, high = min(found), max(found)
    pad = margin * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - pad, high + pad
    step = _round_step((high - low) / count)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    ticks = tuple((k * step, plain(round(k * step, 12))) for k in range(first, last + 1))
    return Axis(name=name, low=low, high=high, ticks=ticks)


def whole(name: str, values: Iterable[float], *, count: int = 8) -> Axis:
    """Return an axis over whole numbers, such as layers or steps, with ticks at whole ones."""
    found = list(values) or [0.0]
    low, high = min(found), max(found)
    step = max(1.0, _round_step((high - low) / count))
    ticks, at = [], math.ceil(low / step) * step
    while at <= high:
        ticks.append((at, plain(at)))
        at += step
    pad = 0.04 * (high - low) or 0.5
    return Axis(name=name, low=low - pad, high=high + pad, ticks=tuple(ticks))


def logarithmic(
    name: str,
    values: Iterable[float],
    *,
    label: Callable[[float], str] = plain,
    at: Sequence[float] = (),
) -> Axis:
    """Return a logarithmic axis.

    Args:
        name: of the axis.
        values: positive.
        label: of ticks.
        at: where ticks are wanted; at 1, 2, 5 or decades if empty.

    Raises:
        ValueError: a value that is not positive.
    """
    found = list(values) or [1.0]
    if min(found) <= 0:
        raise ValueError(f"a logarithmic axis shows positive values only, got {min(found)}")
    low, high = math.log10(min(found)), math.log10(max(found))
    pad = 0.06 * (high - low) or 0.3
    low, high = low - pad, high + pad
    ticks = list(at) or _log_ticks(low, high)
    return Axis(
        name=name, low=low, high=high, ticks=tuple((t, label(t)) for t in ticks), forward=math.log10
    )


def probit(name: str, low: float, high: float) -> Axis:
    """Return an axis of normal deviates, as DET curves have, from one rate to another."""
    rates = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99)
    forward = NormalDist().inv_cdf

    def bounded(rate: float) -> float:
        return forward(min(max(rate, 1e-6), 1 - 1e-6))

    ticks = tuple((r, f"{100 * r:g}") for r in rates if low <= r <= high)
    return Axis(name=name, low=forward(low), high=forward(high), ticks=ticks, forward=bounded)


def _round_step(rough: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is not below ``rough``."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next((m * power for m in (1, 2, 5) if m * power >= rough * (1 - 1e-9)), 10 * power)


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(low), math.ceil(high) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5)):
        found = [s * 10.0**d for d in decades for s in steps]
        found = [x for x in found if low <= math.log10(x) <= high]
        if len(found) >= 3:
            return found[:: 1 + len(found) // 7]
    return found or [10.0 ** ((low + high) / 2)]


def mark(index: int) -> str:
    """Return the classes of one of several things: a colour, and a dash that tells it apart too."""
    dash = (index // COLOURS + index) % 4
    return f"c{index % COLOURS}" + (f" d{dash}" if dash else "")


def shape(index: int, x: float, y: float) -> str:
    """Return a filled symbol; neighbours in the order of things have other forms.

    The page holds each form once (:func:`forms`).
    """
    form = (index + index // COLOURS) % len(_SHAPES)
    return f'<use class="c{index % COLOURS}" href="#m{form}" x="{number(x)}" y="{number(y)}"/>'


def forms() -> str:
    """Return the hidden element that holds every symbol; a page needs it once."""
    held = "".join(f'<path id="m{i}" d="{d}"/>' for i, d in enumerate(_SHAPES))
    return f'<svg class="forms" aria-hidden="true"><defs>{held}</defs></svg>'


def key(index: int, *, symbol: bool = True) -> str:
    """Return the stroke of a thing for a legend, with its symbol where pictures have it."""
    line = f'<path class="{mark(index)}" d="M0 6h24"/>'
    form = shape(index, 12, 6) if symbol else ""
    return f'<svg viewBox="0 0 24 12" aria-hidden="true">{line}{form}</svg>'


def spot(index: int) -> str:
    """Return a dot of a colour for a legend."""
    return f'<svg viewBox="0 0 12 12" aria-hidden="true"><path class="c{index}" d="M6 6h0"/></svg>'


def track(points: Iterable[tuple[float, float]], *, digits: int = 1) -> str:
    """Return the ``d`` of a line through points, relative, without the drift of rounding.

    Args:
        points: of the line.
        digits: after the point, 0 where a curve is mere overview.
    """
    out, x, y = [], 0.0, 0.0
    for i, point in enumerate(points):
        u, v = (round(one, digits) for one in point)
        dx, dy = number(u - x), number(v - y)
        out.append(("M" if i == 0 else "l" if i == 1 else "" if dx[0] == "-" else " ") + dx)
        out.append(dy if dy[0] == "-" else f" {dy}")
        x, y = u, v
    return "".join(out)


def wrapped(body: str, *, alt: str, width: float, height: float, kind: str = "") -> str:
    """Return inline SVG with a text alternative."""
    named = f' class="{kind}"' if kind else ""
    return (
        f'<svg{named} viewBox="0 0 {number(width)} {number(height)}" role="img" '
        f'aria-label="{html.escape(alt)}">{body}</svg>'
    )


class Plot:
    """A picture with two axes; marks are drawn in the order of the calls."""

    def __init__(
        self,
        x: Axis,
        y: Axis,
        *,
        alt: str,
        width: float = WIDTH,
        height: float = HEIGHT,
        digits: int = 1,
    ) -> None:
        self.x, self.y, self.alt, self.width, self.height = x, y, alt, width, height
        longest = max((len(label) for _, label in y.ticks), default=1)
        self.digits = digits
        self.left, self.right = round(10 + GLYPH * longest), width - 10
        self.top, self.bottom = 20.0, height - 34  # the y axis is named above, the x axis below
        self.named = True  # whether the x axis has labels
        self._marks: list[Callable[[], str]] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a value is drawn."""
        return self._across(x), self._up(y)

    def _across(self, x: float) -> float:
        return self.left + self.x(x) * (self.right - self.left)

    def _up(self, y: float) -> float:
        return self.bottom - self.y(y) * (self.bottom - self.top)

    def line(
        self, xs: Sequence[float], ys: Sequence[float], index: int, *, gap: float = 0.0
    ) -> None:
        """Draw a line; a single point becomes a symbol.

        Args:
            xs: values.
            ys: likewise.
            index: of the thing, which gives its colour and dash.
            gap: points closer than this to the last one drawn are left out, but for the last.
        """
        if len(xs) == 1:
            self.dot(xs[0], ys[0], index)
            return

        def draw() -> str:
            points = [self.at(x, y) for x, y in zip(xs, ys, strict=True)]
            kept = points[:1]
            for p in points[1:-1]:
                if math.dist(p, kept[-1]) >= gap:
                    kept.append(p)
            kept += points[1:][-1:]
            return f'<path class="{mark(index)}" d="{track(kept, digits=self.digits)}"/>'

        self._marks.append(draw)

    def band(
        self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], index: int
    ) -> None:
        """Fill between two lines."""

        def draw() -> str:
            there = [self.at(x, y) for x, y in zip(xs, low, strict=True)]
            back = [self.at(x, y) for x, y in zip(xs, high, strict=True)]
            d = track([*there, *reversed(back)], digits=self.digits)
            return f'<path class="b c{index % COLOURS}" d="{d}z"/>'

        self._marks.append(draw)

    def dot(self, x: float, y: float, index: int) -> None:
        """Draw the symbol of a thing."""
        self._marks.append(lambda: shape(index, *self.at(x, y)))

    def ring(self, x: float, y: float) -> None:
        """Draw a ring round what was chosen."""

        def draw() -> str:
            u, v = self.at(x, y)
            return f'<circle class="r" cx="{number(u)}" cy="{number(v)}" r="5"/>'

        self._marks.append(draw)

    def diagonal(self) -> None:
        """Draw a dotted line between the corners."""

        def draw() -> str:
            ends = [(self.left, self.bottom), (self.right, self.top)]
            return f'<path class="g d2" d="{track(ends)}"/>'

        self._marks.append(draw)

    def svg(self) -> str:
        """Return the picture."""
        return wrapped(self.inside(), alt=self.alt, width=self.width, height=self.height)

    def inside(self) -> str:
        """Return what is drawn, without the element round it."""
        grid, labels = [], []
        last = -1e9
        for value, label in self.x.ticks:
            u = round(self._across(value))
            grid.append(f"M{number(u)} {number(self.top)}V{number(self.bottom)}")
            if (
                self.named and u - GLYPH * len(label) / 2 > last
            ):  # labels that would touch are left out
                labels.append(f'<text x="{u}" y="{number(self.bottom + 13)}">{label}</text>')
                last = u + GLYPH * len(label) / 2 + 3
        rows = []
        for value, label in self.y.ticks:
            v = round(self._up(value))
            grid.append(f"M{number(self.left)} {number(v)}H{number(self.right)}")
            rows.append(f'<text x="{number(self.left - 4)}" y="{v + 4}">{label}</text>')
        names = f'<text x="2" y="11" class="s">{html.escape(self.y.name)}</text>'
        if self.named:
            at = f'x="{number(self.right)}" y="{number(self.height - 6)}"'
            names += f'<text {at} class="e">{html.escape(self.x.name)}</text>'
        return (
            f'<path class="g" d="{"".join(grid)}"/>{"".join(draw() for draw in self._marks)}'
            f'{"".join(labels)}<g class="e">{"".join(rows)}</g>{names}'
        )


def beneath(plots: Sequence[Plot]) -> str:
    """Return pictures with the same x axis below each other, as one; the last names the axis."""
    left = max(one.left for one in plots)
    body, at = [], 0.0
    for one in plots:
        one.left, one.named = left, one is plots[-1]
        inside = one.inside()
        body.append(f'<g transform="translate(0 {number(at)})">{inside}</g>' if at else inside)
        at += one.height if one.named else one.bottom + 6
    alt = "; ".join(one.alt for one in plots)
    return wrapped("".join(body), alt=alt, width=plots[0].width, height=at)
