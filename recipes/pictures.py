"""``mynah pictures RESULTS --out DIR``: reports and leaderboards as pictures, in the four ways they are read.

Light and dark, in a wide window and on a phone: the tops of the pages, as a headless Chromium of this
machine draws them. Of a folder of results both pages are made first, as ``mynah report`` and ``mynah
leaderboard --with-published`` make them. The pictures of the README are made so.
"""

from __future__ import annotations

import html
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
THEMES = {"light": 1, "dark": 0}  # Blink's numbers of preferred colour schemes
COLOURS = (64, 32, 16)  # of a palette: fewer where the picture is too large
MOST = 120_000  # bytes of a picture
SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Args:
    """Write PNG pictures of HTML pages: wide and narrow, light and dark."""

    pages: Annotated[tuple[Path, ...], Positional]
    """A folder of results, of which report and site are made; or HTML files."""
    out: Path
    """Folder of the pictures: report-wide-light.png and so on, or NAME-...; a page index.html is named
    as its folder."""


def browser() -> str:
    """Return the path of a Chromium.

    Raises:
        FileNotFoundError: there is none.
    """
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise FileNotFoundError(
            f"no browser to draw with: looked for {', '.join(BROWSERS)} (Debian: apt install chromium)"
        )
    return found


def name_of(page: Path) -> str:
    """Return what a page's pictures are called."""
    path = page.absolute()
    return path.parent.name if path.stem == "index" else path.stem


def shoot(page: Path, out: Path, *, width: int, height: int, theme: int) -> None:
    """Draw the top of a page.

    Args:
        page: an HTML file.
        out: the PNG to write, in a palette of at most 64 colours.
        width: of the window in pixels; a browser's own is no narrower than 500, so the page is drawn
            in a frame of this width.
        height: of the window in pixels.
        theme: Blink's number of the colour scheme that the reader prefers.

    Raises:
        RuntimeError: the browser failed; says what it said.
    """
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"
        address = html.escape(page.absolute().as_uri(), quote=True)
        frame.write_text(
            '<!doctype html><meta charset="utf-8"><style>*{margin:0;border:0}</style>'
            f'<iframe src="{address}" width="{width}" height="{height}"></iframe>',
            encoding="utf-8",
        )
        drawn = Path(folder) / "drawn.png"
        command = [
            browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--disable-background-networking", "--no-first-run", f"--user-data-dir={folder}/home",
            f"--window-size={max(width, 500)},{height + 200}", "--virtual-time-budget=3000",
            f"--blink-settings=preferredColorScheme={theme}", f"--screenshot={drawn}",
            frame.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode or not drawn.is_file():
            raise RuntimeError(f"{command[0]} drew nothing of {page}: {done.stderr.strip()[-500:]}")
        with Image.open(drawn) as picture:
            part = picture.convert("RGB").crop((0, 0, width, height))
        for colours in COLOURS:
            part.quantize(colours, dither=Image.Dither.NONE).save(out, optimize=True)
            if out.stat().st_size <= MOST:
                break


def made(results: Path, folder: Path) -> list[Path]:
    """Make report and site of a folder of results; returns both pages.

    Args:
        results: of one or several models.
        folder: to write them to.

    Raises:
        FileNotFoundError: no results there.
        ValueError: a damaged result.
    """
    from mynah.recipes import leaderboard, report

    report.main(report.Args(results=results, out=folder / "report.html"))
    leaderboard.main(leaderboard.Args(results=(results,), out=folder / "site", with_published=True))
    return [folder / "report.html", folder / "site" / "index.html"]


def names(pages: Sequence[Path]) -> dict[str, Path]:
    """Return the pages by name.

    Raises:
        FileNotFoundError: no such page.
        ValueError: none, or two of one name.
    """
    if not pages:
        raise ValueError("name a folder of results, or at least one HTML page")
    found: dict[str, Path] = {}
    for page in pages:
        if not page.is_file():
            raise FileNotFoundError(f"no page {page}")
        if found.setdefault(name_of(page), page) is not page:
            raise ValueError(f"two pages would be called {name_of(page)!r}: {page} is the second")
    return found


def main(args: Args) -> int:
    """Write the pictures.

    Raises:
        FileNotFoundError: no such page, no results, or no browser.
        ValueError: no page, two of one name, or a damaged result.
        RuntimeError: the browser failed.
    """
    folders = [path for path in args.pages if path.is_dir()]
    if len(folders) > 1:
        raise ValueError(
            f"one folder of results at a time, got {', '.join(map(str, folders))}: their pictures "
            "would have the same names"
        )
    given = [path for path in args.pages if not path.is_dir()]
    if given or not folders:
        names(given)
    browser()
    with tempfile.TemporaryDirectory() as folder:
        found = names([*given, *(page for path in folders for page in made(path, Path(folder)))])
        args.out.mkdir(parents=True, exist_ok=True)
        for name, page in found.items():
            for size, (width, height) in SIZES.items():
                for theme, number in THEMES.items():
                    out = args.out / f"{name}-{size}-{theme}.png"
                    shoot(page, out, width=width, height=height, theme=number)
                    sys.stdout.write(f"{out}: {out.stat().st_size / 1000:.0f} kB\n")
    return 0
