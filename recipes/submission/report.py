"""``mynah score x.zip --against DIR``: the scores of a submission, offline."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mynah.recipes.aggregate import VIEWS, View, missing, superb_s
from mynah.recipes.submission.scoring import Score, scores


def score_zip(
    submission: Path,
    against: Path,
    *,
    view: View,
    protocol: str | None = None,
    corpus: tuple[str, ...] = (),
    out: Path | None = None,
) -> int:
    """Print a submission's scores; exit status 1 where it is not valid, and then none are printed.

    Raises:
        FileNotFoundError: no zip, or no results.
        ValueError: a zip that is not safe to read, or results on several test sets.
    """
    from mynah.files import write_text
    from mynah.recipes.validate import opened

    checked, truths = opened(submission, against, protocol=protocol, corpus=corpus)
    if checked.problems:
        for problem in checked.problems:
            sys.stdout.write(f"{problem}\n")
        sys.stdout.write(f"{submission} is not scored: it is not valid\n")
        return 1
    found = scores(checked, truths)
    for line in lines(found, view):
        sys.stdout.write(f"{line}\n")
    for doubt in checked.doubts:
        sys.stdout.write(f"note: {doubt}\n")
    if out is not None:
        page = [{**vars(s), "interval": s.interval and vars(s.interval)} for s in found]
        write_text(out, json.dumps({"view": view, "scores": page}, indent=1) + "\n")
    return 0


def lines(found: list[Score], view: View) -> list[str]:
    """Return a Markdown table, and superb_s of the view."""
    out = ["| task | metric | value | of |", "|---|---|---|---|"]
    for s in found:
        task = s.task + (" + LM" if s.lm else "")
        if s.interval is None:
            out.append(f"| {task} | {s.metric} | {s.value:.2f} | as claimed |")
            continue
        low, high = s.scale * s.interval.low, s.scale * s.interval.high
        cell = f"{s.value:.2f} [{low:.2f}, {high:.2f}]"
        out.append(f"| {task} | {s.metric} | {cell} | {s.interval.n}, by {s.interval.unit} |")
    values = {(s.task, s.metric): s.value for s in found if not s.lm}
    total = superb_s(values, view)
    gone = ", ".join(missing(values, view))
    shown = f"{total:.0f}" if total is not None else f"not defined without {gone}"
    return [*out, "", f"superb_s ({view}: {', '.join(VIEWS[view])}): {shown}"]
