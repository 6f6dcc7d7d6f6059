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
    rehearsal: bool = False
    """Take results of small heads too (``mynah bench --quick``), to try the way to a submission
    before the long runs; the leaderboard's rows are of the protocol's heads."""


def main(args: Args) -> int:
    """Write the zip and the form.

    Raises:
        FileNotFoundError: no results.
        ValueError: nothing or several models to submit, predictions that are not those that were
            scored, or ones that the format cannot say.
    """
    from mynah.files import write_bytes, write_text
    from mynah.recipes import kept
    from mynah.recipes.submission import pack

    if args.out.suffix != ".zip":
        raise ValueError(f"--out must end in .zip, got {args.out}")
    everything = kept.pairs(args.results)
    entries = chosen(args, everything)
    packed = pack.pack(entries)
    left = {**packed.left, **passed_over(args, everything, entries)}
    if not packed.tasks:
        reasons = "; ".join(f"{task}: {why}" for task, why in left.items())
        raise ValueError(f"nothing to submit: {reasons}")
    data = pack.as_zip(packed.files)
    form = pack.form(packed.results, stride=known_stride(packed.results))
    write_bytes(args.out, data)
    beside = args.out.with_suffix(".form.json")
    write_text(beside, pack.form_text(form))
    say = sys.stdout.write
    say(f"{args.out}: {', '.join(packed.tasks)}; {len(packed.files)} files, {len(data)} bytes\n")
    for task, why in left.items():
        say(f"left out: {task}: {why}\n")
    for remark in packed.remarks:
        say(f"{remark}\n")
    say(f"{beside}: what the form asks for\n")
    if len(data) > pack.LIMIT:
        say(f"the leaderboard's form takes {pack.LIMIT} bytes at most\n")
    if small := sorted(r.task for r in packed.results if r.settings.get("heads") == "small"):
        say(f"a rehearsal, not for the leaderboard: small heads of {', '.join(small)}\n")
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
        and own_protocol(r, rehearsal=args.rehearsal) is None
    ]
    if not wanted:
        have = sorted({f"{r.upstream} ({r.protocol})" for _, r in entries})
        reasons = passed_over(args, entries, ())
        raise ValueError(
            f"no results of {args.upstream or 'any model'} under protocol {args.protocol}; there are: "
            f"{', '.join(have)}" + "".join(f"; {task}: {why}" for task, why in reasons.items())
        )
    models = sorted({r.upstream for _, r in wanted})
    if len(models) > 1:
        raise ValueError(f"results of {', '.join(models)}: choose one with --upstream")
    best: dict[tuple[str, str, bool], tuple[Path, Result]] = {}
    for path, r in sorted(wanted, key=lambda e: (own_protocol(e[1]) is not None, e[1].seed)):
        key = (r.task, r.corpus, bool(r.settings.get("lm")))
        if args.seed in (None, r.seed):
            best.setdefault(key, (path, r))
    if not best:
        raise ValueError(f"no results of seed {args.seed}")
    return list(best.values())


def known_stride(results: Sequence[Result]) -> float | None:
    """Return the milliseconds between frames, as results or else their upstream say; None if neither.

    The upstream is asked only where its weights are those of the results.
    """
    told = [r.upstream_stride_ms for r in results if r.upstream_stride_ms is not None]
    if told:
        return told[0]
    from mynah.upstream.core import spec as specs

    try:
        model = specs.load(results[0].spec)
    except (LookupError, ValueError, OSError, ImportError):  # moved, or made elsewhere
        return None
    if model.fingerprint() != results[0].fingerprint:
        return None
    return 1000 * model.stride / model.sample_rate


def own_protocol(result: Result, *, rehearsal: bool = False) -> str | None:
    """Return what sets a result apart from its protocol, and what to run; None where nothing does.

    Args:
        result: to judge.
        rehearsal: whether a small head will do.
    """
    if result.settings.get("heads") == "small" and not rehearsal:
        return (
            "its head is a small one: probe it without --quick and --heads small, or give "
            "--rehearsal to try the way only"
        )
    if result.layer is not None:
        return f"its head reads layer {result.layer} only: probe it with --layers sum"
    return None


def passed_over(
    args: Args, everything: Sequence[tuple[Path, Result]], entries: Sequence[tuple[Path, Result]]
) -> dict[str, str]:
    """Return task -> why no result of it was chosen, of those tasks that there are results of."""
    have = {r.task for _, r in entries} | set(args.without)
    models = {r.upstream for _, r in entries} or {r.upstream for _, r in everything}
    out: dict[str, str] = {}
    for _, r in everything:
        if r.task in have or r.upstream not in models or args.upstream not in (None, r.upstream):
            continue
        if r.protocol != args.protocol:
            why = f"there are results of protocol {r.protocol} only"
        else:
            why = (
                own_protocol(r, rehearsal=args.rehearsal)
                or "its results are of another corpus or seed"
            )
        if r.protocol == args.protocol or r.task not in out:
            out[r.task] = why
    return out
