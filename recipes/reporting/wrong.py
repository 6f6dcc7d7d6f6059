"""What went wrong: the utterances that most upstreams get wrong, and transcripts side by side."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mynah.recipes import kept
from mynah.recipes.kept import Rows
from mynah.recipes.reporting.figures import short
from mynah.recipes.reporting.groups import Files
from mynah.recipes.results import Result
from mynah.tasks.metrics.detection import NONTARGET, TARGET, threshold_at_eer
from mynah.tasks.metrics.error_rate import Unit, error_counts
from mynah.tasks.metrics.metric import Floats, Metric

log = logging.getLogger(__name__)

WORST = 8  # utterances of a task
EXAMPLES = 3  # transcripts of a run
TOKENS = 40  # of one transcript
TEXTUAL = frozenset({"per", "wer", "cer", "error_rate", "slot_type_f1", "slot_value_cer", "bleu"})
RIGHT = "✓"


@dataclass(frozen=True, kw_only=True)
class Hard:
    """The utterances of a task that are hardest for the upstreams shown.

    Attributes:
        head: of the table: the utterance, its unit and its reference where they say more, upstreams.
        rows: cells.
        ids: of the rows, for their audio.
        reads: whether there is a column of references.
        said: what the cells are.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    ids: tuple[str, ...]
    reads: bool
    said: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """One transcript against its reference.

    Attributes:
        name: id, unit and errors, as text.
        parts: (kind, reference, prediction): ``=`` what is alike, ``S`` ``D`` ``I`` one error each.
    """

    name: str
    parts: tuple[tuple[str, str, str], ...]


def predictions(files: Files, results: Sequence[Result]) -> dict[str, Rows]:
    """Return upstream -> the rows that were scored, of those whose predictions are there.

    Raises:
        ValueError: a damaged table of predictions.
    """
    out = {}
    for r in results:
        if not r.predictions:
            continue
        try:
            out[r.upstream] = kept.read(files.path(r), r)
        except FileNotFoundError as error:
            log.warning("%s: the report goes without what was predicted", error)
    return out


def hardest(results: Sequence[Result], said: Mapping[str, Rows]) -> Hard | None:
    """Return the utterances that the upstreams get wrong most, None where there are none.

    Args:
        results: of one task, one for each upstream.
        said: upstream -> rows; those on another test set than the first are left out.
    """
    shown = [r for r in results if r.upstream in said]
    if not shown:
        return None
    first = said[shown[0].upstream]
    shown = [r for r in shown if said[r.upstream].digest() == first.digest()]
    judged = [(r, _judged(r, said[r.upstream])) for r in shown]
    known = [(r, j) for r, j in judged if j is not None]
    if not known:
        return None
    bad_RN = np.stack([j.bad for _, j in known])
    counted_N = np.isfinite(bad_RN).sum(0)
    mean_N = np.where(np.isfinite(bad_RN), bad_RN, 0.0).sum(0) / np.maximum(counted_N, 1)
    mean_N[counted_N == 0] = -np.inf
    floor = known[0][1].floor
    order = [i for i in np.argsort(-mean_N, kind="stable").tolist() if mean_N[i] > floor][:WORST]
    if not order:
        return None
    refers = known[0][1].refers
    columns: list[tuple[str, Sequence[str]]] = [("utterance", first.ids)]
    if first.units != first.ids:
        columns.append((shown[0].main.unit, first.units))
    if refers:
        columns.append(("reference", [short(text, 90) for text in first.references]))
    columns += [(r.upstream, j.cells) for r, j in known]
    return Hard(
        head=tuple(name for name, _ in columns),
        rows=tuple(tuple(column[i] for _, column in columns) for i in order),
        ids=tuple(first.ids[i] for i in order),
        reads=refers,
        said=known[0][1].about,
    )


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """How wrong one upstream is on each row.

    Attributes:
        bad: (n,), more is worse; NaN where it is not defined.
        floor: what is not above is not wrong.
        cells: what is shown.
        about: what the cells are.
        refers: whether references are for people to read.
    """

    bad: Floats
    floor: float
    cells: list[str]
    about: str
    refers: bool


def _judged(result: Result, rows: Rows) -> _Judged | None:
    if set(rows.references) <= {TARGET, NONTARGET}:
        return _trials(rows)
    if result.confusion or result.metric == "accuracy":
        pairs = list(zip(rows.references, rows.predictions, strict=True))
        return _Judged(
            bad=np.array([float(a != b) for a, b in pairs]),
            floor=0.0,
            cells=[RIGHT if a == b else short(b, 30) for a, b in pairs],
            about=f"the class that was predicted; {RIGHT} where it is right",
            refers=True,
        )
    for name in dict.fromkeys((result.metric, *result.metrics)):
        try:
            metric = kept.measure_of(result, name, rows)
        except ValueError:
            continue
        if isinstance(metric, Metric):
            value_N = metric.value(metric.counts(rows.references, rows.predictions, rows.folds))
            scale, errors = result.metrics[name].scale, not metric.higher_is_better
            return _Judged(
                bad=value_N if errors else -value_N,
                floor=0.0 if errors else -np.inf,
                cells=[f"{scale * v:.{1 if scale == 100 else 2}f}" for v in value_N.tolist()],
                about=f"{name} of the utterance" + (", per cent" if scale == 100 else ""),
                refers=result.metric in TEXTUAL,
            )
    return None


def _trials(rows: Rows) -> _Judged:
    scores = np.array([float(p) for p in rows.predictions])
    targets = np.array([r == TARGET for r in rows.references])
    _, threshold = threshold_at_eer(scores, targets)
    over = (scores - threshold) / max(float(scores.std()), 1e-12)
    bad = np.where(targets, -over, over)
    return _Judged(
        bad=bad,
        floor=0.0,
        cells=[
            f"{s:.2f}" + (f" ({RIGHT})" if b <= 0 else "")
            for s, b in zip(scores.tolist(), bad.tolist(), strict=True)
        ],
        about="the score of the trial; those furthest on the wrong side of the threshold of equal "
        f"errors come first, {RIGHT} where a score is on the right side",
        refers=True,
    )


def unit_of(result: Result) -> Unit:
    """Return what a result's transcripts are made of."""
    units: tuple[Unit, ...] = ("phone", "char", "word")
    return next((u for u in units if f"unit:{u}" in result.main.signature), "word")


def examples(result: Result, rows: Rows) -> list[Example]:
    """Return the worst transcripts of a run against their references, worst first.

    Worst is the highest share of errors in the length of the reference, then the most errors.
    """
    if result.metric not in TEXTUAL:
        return []
    unit = unit_of(result)
    counts = error_counts(rows.references, rows.predictions, unit)
    errors = counts[:, :3].sum(1)
    share = errors / np.maximum(counts[:, 3], 1)
    order = sorted(range(len(errors)), key=lambda i: (-share[i], -errors[i], rows.ids[i]))
    out = []
    for i in [i for i in order if errors[i]][:EXAMPLES]:
        s, d, n = (int(c) for c in counts[i, :3])
        out.append(
            Example(
                name=f"{rows.ids[i]} ({rows.units[i]}): {100 * share[i]:.0f} % errors, {s} S, {d} D, {n} I "
                f"of {int(counts[i, 3])} {unit}s",
                parts=aligned(rows.references[i], rows.predictions[i], unit),
            )
        )
    return out


def aligned(reference: str, prediction: str, unit: Unit) -> tuple[tuple[str, str, str], ...]:
    """Return the alignment with the fewest errors; see :class:`Example`.

    A long one is cut after 40 tokens, with ``…``.
    """
    import jiwer

    process = jiwer.process_characters if unit == "char" else jiwer.process_words
    done = process([reference], [prediction])
    refs, hyps = done.references[0], done.hypotheses[0]
    between = "" if unit == "char" else " "
    out: list[tuple[str, str, str]] = []
    left = TOKENS
    for chunk in done.alignments[0]:
        a = refs[chunk.ref_start_idx : chunk.ref_end_idx]
        b = hyps[chunk.hyp_start_idx : chunk.hyp_end_idx]
        size = min(left, max(len(a), len(b)))
        if chunk.type == "equal":
            out.append(("=", between.join(a[:size]), ""))
        elif chunk.type == "substitute":
            out += [("S", _seen(x), _seen(y)) for x, y in zip(a[:size], b[:size], strict=True)]
        elif chunk.type == "delete":
            out += [("D", _seen(x), "") for x in a[:size]]
        else:
            out += [("I", "", _seen(y)) for y in b[:size]]
        left -= size
        if not left:
            break
    if not left and max(len(refs), len(hyps)) > TOKENS:
        out.append(("=", "…", ""))
    return tuple(out)


def _seen(token: str) -> str:
    return "␣" if token == " " else token
