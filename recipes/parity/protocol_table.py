"""The table of ``mynah check protocol``. Light to import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

HEAD = (
    "task",
    "of s3prl",
    "updates",
    "loss, first and last",
    "largest absolute difference",
    "allowed",
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
    "which are extracted once; its Runner cannot be imported, so that its loop is written out.",
    "Scores are of the last weights on test, each by its own metric, with 95 % intervals from our "
    "bootstrap; same answers: equal predictions, for asv trials on the same side of s3prl's "
    "threshold. CPU seconds are of the updates and of answering test, without extraction.",
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
        what: what of s3prl was run.
        metric: of the scores.
        allowed: largest absolute difference of a loss; None where the difference is known and not
            judged.
        ours: our side; None where there was an error.
        theirs: s3prl's.
        difference: the largest absolute one of the losses of an update.
        metric_difference: between s3prl's metric and ours, of s3prl's predictions.
        same: share of equal predictions.
        error: why there is no comparison.
        given: what was compared on: corpus, numbers of utterances.
    """

    task: str
    what: str
    metric: str
    allowed: float | None
    ours: Side | None = None
    theirs: Side | None = None
    difference: float | None = None
    metric_difference: float | None = None
    same: float | None = None
    error: str = ""
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is further apart than allowed."""
        if self.difference is None or self.metric_difference is None:
            return False
        near = self.allowed is None or self.difference <= self.allowed
        return near and self.metric_difference <= METRIC_ALLOWED

    @property
    def verdict(self) -> str:
        """``yes``, ``known``, or what is wrong."""
        if self.ok:
            return "yes" if self.allowed is not None else "known"
        if self.metric_difference is not None and self.metric_difference > METRIC_ALLOWED:
            return f"NO the metrics differ by {self.metric_difference:.1e}"
        return f"NO {self.error}".rstrip()


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
        cells = [row.task, row.what, *["-"] * 10, row.verdict]
        cells[5] = "-" if row.allowed is None else f"{row.allowed:.0e}"
        cells[6] = row.metric
        if row.ours is not None and row.theirs is not None:
            losses = row.theirs.losses
            cells[2] = str(len(losses))
            cells[3] = f"{losses[0]:.4f}, {losses[-1]:.4f}"
            cells[4] = f"{row.difference:.1e}"
            cells[7], cells[8] = str(row.ours.score), str(row.theirs.score)
            cells[9] = f"{100 * (row.same or 0.0):.1f} %"
            cells[10], cells[11] = f"{row.ours.cpu:.2f}", f"{row.theirs.cpu:.2f}"
        table.append(
            "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |"
        )
    return table
