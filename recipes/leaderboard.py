"""``mynah leaderboard DIR... --out site``: a static site over folders of results.

A table of all models with intervals, SUPERB's score and rank, and what they cost; a page for each
model; two models side by side, paired; and the data as JSON. Nothing is fetched: the pages work from
a disk and from any web server. The same results give the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from mynah.files import new_folder, sync_tree

MARK = ".mynah-leaderboard"


@dataclass(frozen=True, kw_only=True)
class Args:
    """Make a static leaderboard of folders of results."""

    results: Annotated[tuple[Path, ...], Positional]
    """Folders that ``mynah probe`` or ``mynah bench`` wrote."""
    out: Path
    """Folder of the site; what an earlier call made there is replaced."""
    title: str = "Speech representations"
    """Heading of the first page."""
    with_published: bool = False
    """Also the published rows of SUPERB; models that were scored as these, on the same whole test
    sets, stand among them by rank, the others apart."""


def main(args: Args) -> int:
    """Make the site; exit status 0.

    Raises:
        FileNotFoundError: a folder without results.
        ValueError: no folders, a damaged result, results that contradict each other, or a folder that
            holds something else.
    """
    from mynah.recipes.site.build import pages
    from mynah.recipes.site.entries import gather

    if not args.results:
        raise ValueError("name at least one folder of results")
    _check(args.out)
    models = gather(args.results)
    files = pages(models, title=args.title, published=args.with_published)
    write(args.out, files)
    size = sum(len(text.encode()) for text in files.values())
    sys.stdout.write(
        f"{args.out / 'index.html'}: {len(models)} models, {len(files)} files, {size / 1000:.0f} kB\n"
    )
    return 0


def _check(out: Path) -> None:
    if out.exists() and not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"{out} is there and no leaderboard of ours: name another folder, or remove it"
        )


def write(out: Path, files: Mapping[str, str]) -> None:
    """Put a site in place of the one that is there, whole or not at all."""
    with new_folder(out, over=True) as made:
        (made / MARK).write_text("made by mynah leaderboard\n", encoding="utf-8")
        for name, text in files.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        sync_tree(made)
