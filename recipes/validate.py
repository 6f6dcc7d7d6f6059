"""``mynah validate x.zip --against DIR``: is a submission whole and right?

DIR is a folder of results, of any upstream, on the same test sets; it says which ids there are and what
is true. Every kind of mistake is listed with its first five examples; one mistake is enough for exit
status 1.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

if TYPE_CHECKING:
    from mynah.recipes.submission.against import Truth
    from mynah.recipes.submission.checks import Checked


@dataclass(frozen=True, kw_only=True)
class Args:
    """Check a submission before it is sent."""

    submission: Annotated[Path, Positional]
    """Zip, of ``mynah submit`` or of s3prl."""
    against: Path
    """Folder of results on the same test sets."""
    protocol: str | None = None
    """Only results of this protocol, where the folder has several."""
    corpus: tuple[str, ...] = ()
    """Only results on these corpora."""


def opened(
    submission: Path, against: Path, *, protocol: str | None, corpus: tuple[str, ...]
) -> tuple[Checked, dict[str, Truth]]:
    """Return a submission that was read and checked, and what it was held against.

    Raises:
        FileNotFoundError: no zip, or no results.
        ValueError: a zip that is not safe to read, or results on several test sets.
    """
    from mynah.recipes.submission import safezip
    from mynah.recipes.submission.against import truths
    from mynah.recipes.submission.checks import check

    members = safezip.read(submission)
    found = truths(against, protocol=protocol, corpus=corpus)
    return check(members, found), found


def main(args: Args) -> int:
    """Print what is wrong; exit status 1 if anything is.

    Raises:
        FileNotFoundError: no zip, or no results.
        ValueError: a zip that is not safe to read, or results on several test sets.
    """
    checked, _ = opened(args.submission, args.against, protocol=args.protocol, corpus=args.corpus)
    for problem in checked.problems:
        sys.stdout.write(f"{problem}\n")
    if checked.problems:
        sys.stdout.write(
            f"{args.submission} is NOT valid: {len(checked.problems)} kinds of mistakes\n"
        )
        return 1
    tasks = sorted(
        {task + ("+lm" if lm else "") for task, lm in checked.predictions}
        | checked.means.keys()
        | ({"sd"} if checked.activities else set())
    )
    sys.stdout.write(f"{args.submission} is valid: {', '.join(tasks)}\n")
    for task in sorted(checked.means):
        sys.stdout.write(f"{task}: means as claimed; they cannot be computed again without audio\n")
    return 0
