"""``mynah validate x.zip --against DIR`` or ``--keys CORPUS``: is a submission whole and right?

DIR is a folder of results, of any upstream, on the same test sets; it says which ids there are and what
is true. Without results, prepared corpora say it: the official ones, or any that a model was probed
on. Every kind of mistake is listed with its first five examples; one mistake is enough for exit
status 1. Means of enhancement and separation can be computed again where their audio is at hand.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, UseAppendAction

if TYPE_CHECKING:
    from mynah.recipes.submission.against import TestSet, Truth
    from mynah.recipes.submission.checks import Checked


@dataclass(frozen=True, kw_only=True)
class Args:
    """Check a submission before it is sent."""

    submission: Annotated[Path, Positional]
    """Zip, of ``mynah submit`` or of s3prl."""
    against: Path | None = None
    """Folder of results on the same test sets."""
    keys: Annotated[tuple[str, ...], UseAppendAction] = ()
    """A prepared corpus whose test set says which ids there are, before results do: FOLDER of an
    official one, TASK=FOLDER of any, or the YAML file of a suite; repeatable."""
    lexicon: Path | None = None
    """Of --keys for pr: pronunciations, where the corpus has no phones."""
    protocol: Literal["superb", "fixed"] | None = None
    """Only results of this protocol, where the folder has several; of --keys superb by default."""
    corpus: tuple[str, ...] = ()
    """Only results on these corpora."""
    official: bool = False
    """Also refuse test sets that have not the sizes of the leaderboard's own."""
    audio: Annotated[tuple[str, ...], UseAppendAction] = ()
    """se=FOLDER or ss=FOLDER: what ``mynah predict --out`` wrote, to compute their means again."""
    prepared: Annotated[tuple[str, ...], UseAppendAction] = ()
    """se=FOLDER or ss=FOLDER: the prepared corpus that this audio is of."""


def opened(
    submission: Path,
    against: Path,
    *,
    protocol: str | None,
    corpus: tuple[str, ...],
) -> tuple[Checked, dict[str, Truth]]:
    """Return a submission that was read and checked, and the results it was held against.

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


def known(args: Args, members: Mapping[str, bytes]) -> dict[str, TestSet]:
    """Return the test set of each task of a submission that corpora or results know.

    Raises:
        FileNotFoundError: no results, or no corpus.
        BadDataError: a corpus that cannot serve the task.
        ValueError: neither results nor corpora, or results on several test sets.
    """
    from mynah.recipes.submission import keys
    from mynah.recipes.submission.against import truths
    from mynah.recipes.submission.layout import place

    if args.against is None and not args.keys:
        raise ValueError(
            "say which ids there must be: --against RESULTS or --keys CORPUS (mynah prepare)"
        )
    found: dict[str, TestSet] = {}
    if args.against is not None:
        found |= truths(args.against, protocol=args.protocol, corpus=args.corpus)
    submitted = {part[0].task for name in members if (part := place(name)) is not None}
    for task, folder in keys.corpora(args.keys, submitted).items():
        found[task] = keys.test_set(
            task, folder, protocol=args.protocol or "superb", lexicon=args.lexicon
        )
    return found


def listened(
    checked: Checked,
    truths: Mapping[str, TestSet],
    audio: Mapping[str, Path],
    prepared: Mapping[str, Path],
) -> None:
    """Compute claimed means again from audio; what differs becomes a problem.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: audio without its corpus, or of a task that is not in the submission.
    """
    from mynah.recipes.submission import heard

    for task, folder in audio.items():
        if task not in prepared:
            raise ValueError(f"--audio {task}= needs its corpus: --prepared {task}=FOLDER")
        if task not in checked.means or task not in truths:
            raise ValueError(f"--audio {task}=: there is no {task} that could be held against it")
        found, bad = heard.means(task, truths[task].ids(), folder, prepared[task])
        for kind, examples in bad.items():
            checked.note(f"task {task}", kind, examples)
        if not bad:
            wrong = heard.differing(task, checked.means[task], found)
            checked.note(f"task {task}", "mean that its audio does not give", wrong)


def main(args: Args) -> int:
    """Print what is wrong; exit status 1 if anything is.

    Raises:
        FileNotFoundError: no zip, no results or corpus, or no audio where it should be.
        BadDataError: a corpus that cannot serve the task.
        ValueError: a zip that is not safe to read, results on several test sets, or options that do
            not go together.
    """
    from mynah.recipes.submission import heard, safezip
    from mynah.recipes.submission.against import Truth, claimant
    from mynah.recipes.submission.checks import check

    audio = heard.pairs(args.audio, "--audio")
    prepared = heard.pairs(args.prepared, "--prepared")
    members = safezip.read(args.submission)
    sets = known(args, members)
    checked = check(members, sets, official=args.official)
    listened(checked, sets, audio, prepared)
    say = sys.stdout.write
    for task, found in sorted(sets.items()):
        if not isinstance(found, Truth):
            say(f"{task}: {len(found.rows.ids)} ids of the corpus {found.corpus}\n")
    for problem in checked.problems:
        say(f"{problem}\n")
    if checked.problems:
        say(f"{args.submission} is NOT valid: {len(checked.problems)} kinds of mistakes\n")
        return 1
    tasks = sorted(
        {task + ("+lm" if lm else "") for task, lm in checked.predictions}
        | checked.means.keys()
        | ({"sd"} if checked.activities else set())
    )
    say(f"{args.submission} is valid: {', '.join(tasks)}\n")
    for task, means in sorted(checked.means.items()):
        if task in audio:
            say(f"{task}: means computed again from {audio[task]}\n")
        elif isinstance(truth := sets[task], Truth) and (own := claimant(truth, means)):
            say(f"{task}: means of the utterances of {own[0].name}; audio was not heard\n")
        else:
            say(f"{task}: means as claimed; to compute them again: --audio and --prepared\n")
    for doubt in checked.doubts:
        say(f"note: {doubt}\n")
    return 0
