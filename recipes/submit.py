"""``mynah submit DIR --out x.zip``: a model's results as SUPERB's leaderboard takes them.

Beside the zip lies ``x.form.json``: what its form asks for, as far as results know it. Check it with
``mynah validate x.zip --against DIR``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction

if TYPE_CHECKING:
    from mynah.recipes.results import Result


@dataclass(frozen=True, kw_only=True)
class Args:
    """Package results for the SUPERB leaderboard."""

    results: Annotated[Path, Positional]
    """Folder of results."""
    out: Path
    """Zip to write."""
    upstream: str | None = None
    """Its row in ``mynah table``, where the folder has several."""
    protocol: str = "superb"
    """Of the results; the leaderboard's own is superb."""
    corpus: tuple[str, ...] = ()
    """Only results on these corpora."""
    seed: int | None = None
    """Of the heads, where there are several; default: the lowest."""
    without: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Task to leave out; repeatable."""


def main(args: Args) -> int:
    """Write the zip and the form.

    Raises:
        FileNotFoundError: no results, or no predictions beside them.
        ValueError: nothing or several models to submit, or predictions that the format cannot say.
    """
    from mynah.recipes import kept
    from mynah.recipes.results import write_text
    from mynah.recipes.submission import pack

    if args.out.suffix != ".zip":
        raise ValueError(f"--out must end in .zip, got {args.out}")
    entries = chosen(args, kept.pairs(args.results))
    packed = pack.pack(entries)
    if not packed.tasks:
        reasons = "; ".join(f"{task}: {why}" for task, why in packed.left.items())
        raise ValueError(f"nothing to submit: {reasons}")
    data = pack.as_zip(packed.files)
    form = pack.form([result for _, result in entries])
    pack.write(args.out, data)
    beside = args.out.with_suffix(".form.json")
    write_text(beside, pack.form_text(form))
    say = sys.stdout.write
    say(f"{args.out}: {', '.join(packed.tasks)}; {len(packed.files)} files, {len(data)} bytes\n")
    for task, why in packed.left.items():
        say(f"left out: {task}: {why}\n")
    say(f"{beside}: what the form asks for\n")
    if len(data) > pack.LIMIT:
        say(f"the leaderboard's form takes {pack.LIMIT} bytes at most\n")
    if args.protocol != "superb":
        say(f"protocol {args.protocol}: the leaderboard's rows are of protocol superb\n")
    return 0


def chosen(args: Args, entries: Sequence[tuple[Path, Result]]) -> list[tuple[Path, Result]]:
    """Return the results to submit: one model's, one seed of each task.

    Raises:
        ValueError: none, or several models or corpora.
    """
    wanted = [
        (path, r)
        for path, r in entries
        if r.protocol == args.protocol
        and args.upstream in (None, r.upstream)
        and (not args.corpus or r.corpus in args.corpus)
        and r.task not in args.without
        and r.layer is None
        and r.settings.get("heads") != "small"
    ]
    if not wanted:
        have = sorted({f"{r.upstream} ({r.protocol})" for _, r in entries})
        raise ValueError(
            f"no results of {args.upstream or 'any model'} under protocol {args.protocol}; there are: "
            f"{', '.join(have)}"
        )
    models = sorted({r.upstream for _, r in wanted})
    if len(models) > 1:
        raise ValueError(f"results of {', '.join(models)}: choose one with --upstream")
    best: dict[tuple[str, str, bool], tuple[Path, Result]] = {}
    for path, r in sorted(wanted, key=lambda e: e[1].seed):
        key = (r.task, r.corpus, bool(r.settings.get("lm")))
        if args.seed in (None, r.seed):
            best.setdefault(key, (path, r))
    if not best:
        raise ValueError(f"no results of seed {args.seed}")
    return list(best.values())
