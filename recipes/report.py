"""``mynah report DIR``: one self-contained HTML page about a folder of results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class Args:
    """Write one self-contained HTML page: scores, sweeps, layers, confusions, embeddings, costs."""

    results: Annotated[Path, Positional]
    """Folder that mynah probe or mynah bench wrote."""
    out: Path | None = None
    """The page; report.html in the folder of results unless given."""
    store: Path | None = None
    """Feature store to describe, too."""
    title: str | None = None
    """Of the page; the folder's name unless given."""
    points: int = 300
    """Utterances per scatter plot at most."""


def main(args: Args) -> int:
    """Write the page.

    Raises:
        FileNotFoundError: no results, or no such store.
        ValueError: a damaged result.
        OSError: the disk is full; an older page stays.
    """
    from mynah.recipes.progress import console
    from mynah.recipes.reporting import page
    from mynah.recipes.results import load_all, write_text

    if args.points < 3:
        raise ValueError(f"--points must be at least 3, got {args.points}")
    if args.store is not None and not args.store.is_dir():
        raise FileNotFoundError(f"no feature store {args.store}")
    results = load_all(args.results)
    title = args.title or f"mynah: {args.results.resolve().name}"
    text = page.render(args.results, results, title=title, points=args.points, store=args.store)
    out = args.out or args.results / "report.html"
    write_text(out, text)
    console.print(f"{out}: {len(results)} results, {len(text.encode()) / 1000:.0f} kB")
    return 0
