"""``mynah report DIR``: one self-contained HTML page about a folder of results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class Args:
    """Write one self-contained HTML page: scores, sweeps, layers, errors, embeddings, costs."""

    results: Annotated[Path, Positional]
    """Folder that mynah probe or mynah bench wrote."""
    out: Path | None = None
    """The page; report.html in the folder of results unless given."""
    store: Path | None = None
    """Feature store to describe, too."""
    title: str | None = None
    """Of the page; the folder's name unless given."""
    points: int = 300
    """Utterances per scatter plot at most; fewer are drawn where there are many plots."""
    audio: int = 0
    """Embed the audio of at most so many of the worst utterances (Ogg/Opus)."""
    audio_kb: int = 300
    """What embedded audio may take of the page at most, in kB."""
    corpus: tuple[Path, ...] = ()
    """Prepared corpora to take audio from; those that the results' commands name unless given."""


def main(args: Args) -> int:
    """Write the page.

    Raises:
        FileNotFoundError: no results, or no such store or corpus.
        ValueError: a damaged result, or an option out of range.
        OSError: the disk is full; an older page stays.
    """
    from mynah.files import write_text
    from mynah.recipes.kept import pairs
    from mynah.recipes.progress import console
    from mynah.recipes.reporting import clips, page

    if args.points < 3:
        raise ValueError(f"--points must be at least 3, got {args.points}")
    if args.audio < 0 or args.audio_kb < 1:
        raise ValueError(
            f"--audio must be 0 or more and --audio-kb 1 or more, got {args.audio} and {args.audio_kb}"
        )
    if args.corpus and not args.audio:
        raise ValueError("--corpus is where --audio N takes clips from: give --audio N, too")
    if args.store is not None and not args.store.is_dir():
        raise FileNotFoundError(f"no feature store {args.store}")
    entries = pairs(args.results)
    heard = None
    if args.audio:
        corpora = clips.named([r for _, r in entries], args.corpus)
        heard = clips.Clips(corpora, args.audio, 1000 * args.audio_kb)
    title = args.title or f"mynah: {args.results.resolve().name}"
    text = page.render(entries, title=title, points=args.points, store=args.store, clips=heard)
    out = args.out or args.results / "report.html"
    write_text(out, text)
    size = f"{len(text.encode()) / 1000:.0f} kB"
    if heard is not None:
        size += f", {len(heard)} clips of audio ({heard.bytes / 1000:.0f} kB)"
        if not len(heard):
            size += (
                "; no prepared corpus of these results was found, or nothing fitted: see --corpus"
            )
    console.print(f"{out}: {len(entries)} results, {size}")
    return 0
