"""A spectrogram with its F0 curve as inline SVG, drawn so that several share one time axis.

The spectrogram is a palette PNG of one colour from clear to full, so that one picture serves light and
dark; the F0 curve runs in a strip of its own below, on a logarithmic axis. Everything is plain text and
zlib: a page of eight pictures costs milliseconds.

Shape suffixes: T frames, M mel bins.
"""

from __future__ import annotations

import base64
import html
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INK = (47, 111, 178)
"""Of the spectrogram, full."""
RANGE = 60.0
"""dB below the loudest bin that are still seen."""
COLUMNS = 720
"""Most columns of a picture: more frames are averaged."""
WIDTH, TALL, STRIP, LEFT, BELOW, GAP = 360, 112, 46, 26, 16, 6  # of the SVG, in its own units
LOWEST, HIGHEST = 60.0, 500.0  # Hz, of the F0 strip
MARKS = (100.0, 200.0, 400.0)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What is drawn of one recording.

    Attributes:
        mel_TM: natural-log mel spectrogram.
        f0_T: Hz at the same frames, 0 where nothing is voiced.
        seconds: how long it is.
    """

    mel_TM: NDArray[np.float32]
    f0_T: NDArray[np.float32]
    seconds: float


def picture(drawn: Drawn, *, axis: float, alt: str) -> str:
    """Return inline SVG of a spectrogram above its F0 curve.

    Args:
        drawn: what is drawn.
        axis: seconds that the time axis spans, at least those of the recording; the same for all
            pictures that are to be compared.
        alt: what the picture says, for those who do not see it.
    """
    inner = WIDTH - LEFT
    wide = inner * drawn.seconds / axis
    top = TALL + GAP
    bottom = top + STRIP
    image = base64.b64encode(spectrogram_png(drawn.mel_TM)).decode()
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + BELOW}" '
        f'role="img" aria-label="{html.escape(alt)}">',
        f'<rect class="ground" x="{LEFT}" width="{inner}" height="{TALL}"/>',
        f'<image x="{LEFT}" width="{wide:.2f}" height="{TALL}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{image}"/>',
        f'<rect class="ground" x="{LEFT}" y="{top}" width="{inner}" height="{STRIP}"/>',
    ]
    for hertz in MARKS:
        y = top + _height(hertz)
        parts.append(f'<line class="mark" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="y" x="{LEFT - 4}" y="{y + 2.8:.1f}">{hertz:.0f}</text>')
    parts += [
        f'<path class="f0" d="{path}"/>'
        for path in [f0_path(drawn.f0_T, x=LEFT, width=wide, y=top)]
        if path
    ]
    for second in ticks(axis):
        x = LEFT + inner * second / axis
        anchor = "start" if second == 0 else "middle"
        parts.append(
            f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 3}"/>'
        )
        parts.append(
            f'<text class="x" x="{x:.1f}" y="{bottom + 12}" text-anchor="{anchor}">{second:g}</text>'
        )
    return "".join(parts) + "</svg>"


def spectrogram_png(mel_TM: NDArray[np.float32]) -> bytes:
    """Return a log-mel spectrogram as a PNG, one row per mel bin, low ones at the bottom."""
    decibel_TM = mel_TM * (20 / math.log(10))
    columns = min(len(decibel_TM), COLUMNS)
    edges = np.linspace(0, len(decibel_TM), columns + 1).astype(int)[:-1]
    sizes = np.diff(np.append(edges, len(decibel_TM)))
    shrunk = np.add.reduceat(decibel_TM, edges, axis=0) / sizes[:, None]
    share = np.clip((shrunk - shrunk.max()) / RANGE + 1, 0, 1)
    return palette_png(np.round(255 * share.T[::-1]).astype(np.uint8), INK)


def palette_png(level: NDArray[np.uint8], colour: tuple[int, int, int]) -> bytes:
    """Return a PNG of one colour whose opacity is given for each pixel, rows by columns."""
    height, width = level.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # a leading 0: the row is not filtered
    rows[:, 1:] = level
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(colour) * 256),
        (b"tRNS", bytes(range(256))),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    out = [b"\x89PNG\r\n\x1a\n"]
    for name, body in chunks:
        out.append(struct.pack(">I", len(body)) + name + body)
        out.append(struct.pack(">I", zlib.crc32(name + body)))
    return b"".join(out)


def f0_path(f0_T: NDArray[np.float32], *, x: float, width: float, y: float) -> str:
    """Return an SVG path of the voiced stretches of an F0 curve, empty where there are none.

    Args:
        f0_T: Hz, 0 where nothing is voiced.
        x: where the first frame is.
        width: of all frames.
        y: of the strip's upper edge.
    """
    stride = max(1, -(-len(f0_T) // COLUMNS))
    step = width * stride / max(1, len(f0_T))
    out: list[str] = []
    pen = False
    for t, hertz in enumerate(f0_T[::stride].tolist()):
        if hertz <= 0:
            pen = False
            continue
        out.append(f"{'L' if pen else 'M'}{x + step * (t + 0.5):.1f} {y + _height(hertz):.1f}")
        pen = True
    return "".join(out)


def ticks(seconds: float) -> Sequence[float]:
    """Return three to seven round positions on an axis from 0."""
    step = next(s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if seconds / s <= 6.5)
    return [round(i * step, 3) for i in range(int(seconds / step + 1e-9) + 1)]


def _height(hertz: float) -> float:
    """Return the distance of a frequency from the strip's upper edge."""
    share = math.log(min(max(hertz, LOWEST), HIGHEST) / LOWEST) / math.log(HIGHEST / LOWEST)
    return STRIP * (1 - share)
