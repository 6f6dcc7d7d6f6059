"""Progress for people: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

# without emoji: "wav.scp:100: error" would be printed as "wav.scp" and a picture of a hundred
console = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def bar() -> Progress:
    """Return a rich progress bar with count, elapsed and remaining time, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )


def track(
    items: Iterable[T], description: str, *, total: int | None = None, every: float = 15.0
) -> Iterator[T]:
    """Yield the items while showing progress.

    Args:
        items: what to iterate over.
        description: what is being done.
        total: number of items, where ``len`` does not tell.
        every: seconds between plain lines where standard error is not a terminal.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if err.is_terminal:
        with bar() as progress:
            yield from progress.track(items, total=total, description=description)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= every:
            last = now
            of = f"/{total}" if total else ""
            left = f", {(now - start) / done * (total - done):.0f} s left" if total and done else ""
            err.print(f"{description}: {done}{of} ({now - start:.0f} s{left})")
        yield item
