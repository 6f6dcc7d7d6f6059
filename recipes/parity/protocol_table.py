"""The table of ``mynah check protocol``. Light to import."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

HEAD = (
    "task",
    "of s3prl",
    "updates",
    "judged",
    "loss, first and last",
    "largest difference, judged",
    "allowed",
    "of all",
    "ours to itself",
    "metric",
    "ours, %",
    "s3prl's, %",
    "same answers",
    "CPU s, ours",
    "s3prl's",
    "ok",
)
NOTES = (
    "Ours: the loop of `mynah probe` with the task's `superb` head, losses, decoding and metric. "
    "s3prl's: its Featurizer, head, loss and optimiser, its numbers for batches and clipping, its "
    "decoding and metric. Both start from our weights and see our batches and the same features, "
    "which are extracted once; its Runner cannot be imported, so its loop is written out.",
    "Differences are absolute, of the loss of an update. Training magnifies rounding, in some runs "
    "without end: ours to itself is how far our own losses move if the first weights are changed by "
    "four roundings. Updates are judged until that is a hundredth of what is allowed.",
    "Scores are of the last weights on test, each by its own metric, with 95 % intervals from our "
    "bootstrap. Same answers: equal predictions, for asv trials on the same side of s3prl's "
    "threshold; where every update is judged, all must be in float64, 90 % in float32. CPU seconds "
    "are of the updates and of answering test, on one thread, without extraction; for ks and sid "
    "ours trains on time means.",
    "DownstreamExpert: as it is, but for its data sets, which are asked for the number of classes "
    "only; absent packages that it imports have stand-ins (catalyst, sox effects: never called; "
    "editdistance: our own Levenshtein distance).",
    "asv: s3prl's expert calls .cuda() and needs sox, so its classes are put together as it does. Its "
    "mean and deviation of a padded utterance take in one frame of padding (ours do not, on "
    "purpose), so with padded batches the losses differ and are shown but not judged; each "
    "utterance alone, they are judged.",
)
METRIC_ALLOWED = 1e-6  # s3prl averages in float32


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score of test with its interval, as fractions.

    Attributes:
        value: by the side's own metric.
        low: 2.5th percentile.
        high: 97.5th percentile.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} [{100 * self.low:.2f}, {100 * self.high:.2f}]"


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one side did.

    Attributes:
        losses: of each update.
        score: of test.
        train: CPU seconds of the updates.
        answer: CPU seconds of answering test.
    """

    losses: Sequence[float]
    score: Score
    train: float
    answer: float

    @property
    def cpu(self) -> float:
        """CPU seconds of both."""
        return self.train + self.answer


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came out for one task and one way of running s3prl.

    Attributes:
        task: its name.
        metric: of the scores.
        what: what of s3prl was run.
        allowed: largest absolute difference of a loss; None where the difference is known and not
            judged.
        ours: our side; None where there was an error.
        theirs: s3prl's.
        judged: how many updates are compared, from the first.
        least: how many it must be, where there are as many.
        difference: the largest absolute one of their losses; None where there was an error.
        later: of all updates.
        echo: likewise, between our run and one whose weights were disturbed.
        metric_difference: between s3prl's metric and ours, of s3prl's predictions.
        same: share of equal predictions.
        needed: least share of them.
        error: why there is no comparison.
        given: what was compared on: corpus, numbers of utterances.
    """

    task: str
    metric: str
    what: str = "-"
    allowed: float | None = None
    ours: Side | None = None
    theirs: Side | None = None
    judged: int = 0
    least: int = 2
    difference: float | None = None
    later: float = 0.0
    echo: float = 0.0
    metric_difference: float = 0.0
    same: float = 0.0
    needed: float = 1.0
    error: str = ""
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def wrong(self) -> str:
        """What is further apart than allowed; empty where nothing is."""
        if self.difference is None or self.ours is None:
            return self.error or "nothing was compared"
        found = []
        if not math.isfinite(self.later):
            found.append("a loss is not finite")
        if self.judged < min(self.least, len(self.ours.losses)):
            found.append("rounding drowns the first updates")
        if self.metric_difference > METRIC_ALLOWED:
            found.append(f"the metrics differ by {self.metric_difference:.1e}")
        if self.allowed is not None and self.difference > self.allowed:
            found.append("the losses differ")
        if self.allowed is not None and self.same < self.needed:
            found.append("the answers differ")
        return ", ".join(found)

    @property
    def ok(self) -> bool:
        """Whether nothing is."""
        return not self.wrong

    @property
    def verdict(self) -> str:
        """``yes``, ``known``, or what is wrong."""
        if self.wrong:
            return f"NO {self.wrong}"
        return "known" if self.allowed is None else "yes"


def settings(rows: Sequence[Row]) -> list[str]:
    """Return what each task was compared on, a line each."""
    said = {
        row.task: (
            f"{row.task}: {g['corpus']}, {g['train']} training and {g['test']} test utterances, "
            f"{g['outputs']} outputs; updates of {g['batch']} utterances, learning rate "
            f"{g['rate']:g}, {g['precision']}, {g['heads']} head"
        )
        for row in rows
        if (g := row.given)
    }
    return list(said.values())


def lines(rows: Sequence[Row]) -> list[str]:
    """Return the rows as a Markdown table, a line each."""
    table = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for row in rows:
        cells = [row.task, row.what, *["-"] * (len(HEAD) - 3), row.verdict]
        cells[HEAD.index("metric")] = row.metric
        if row.ours is not None and row.theirs is not None and row.difference is not None:
            losses = row.theirs.losses
            cells[2:-1] = [
                str(len(losses)),
                str(row.judged),
                f"{losses[0]:.4f}, {losses[-1]:.4f}",
                f"{row.difference:.1e}",
                "-" if row.allowed is None else f"{row.allowed:.0e}",
                f"{row.later:.1e}",
                f"{row.echo:.1e}",
                row.metric,
                str(row.ours.score),
                str(row.theirs.score),
                f"{100 * row.same:.1f} %",
                f"{row.ours.cpu:.2f}",
                f"{row.theirs.cpu:.2f}",
            ]
        table.append(
            "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |"
        )
    return table
