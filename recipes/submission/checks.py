"""Whether a submission is whole and right, before a server says less about it.

The server scores the ids that a file has, so that what is missing costs nothing and one strange id
costs the task; here every id of the test set must be there, once, with a prediction that can be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mynah.recipes.submission import activity, forms, texts
from mynah.recipes.submission.against import TestSet
from mynah.recipes.submission.forms import Read
from mynah.recipes.submission.layout import (
    FOLDS,
    MEANS,
    ROOT,
    OfATest,
    Part,
    doubts,
    key,
    place,
    size_differs,
)
from mynah.tasks.metrics.diarization import decode
from mynah.tasks.metrics.term_search import decode_scores

SHOWN = 5
SLACK = 0.5  # seconds that activities may end before speech: an upstream's last frames
RANGES = {"pesq": (-0.5, 4.65), "stoi": (-1.0, 1.0), "si_sdr": (-100.0, 100.0)}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One kind of mistake in one file.

    Attributes:
        where: name of the file or folder in the zip.
        kind: what is wrong.
        examples: the first of them.
        count: how many there are.
    """

    where: str
    kind: str
    examples: tuple[str, ...]
    count: int

    def __str__(self) -> str:
        shown = "; ".join(self.examples)
        more = f" and {self.count - len(self.examples)} more" if self.count > SHOWN else ""
        return f"{self.where}: {self.kind} ({self.count}): {shown}{more}"


@dataclass(kw_only=True)
class Checked:
    """A submission that was read and held against the test sets.

    Attributes:
        predictions: (task, with a language model) -> fold -> id -> prediction, for what is whole.
        activities: recording -> activities, of diarization.
        shift: its frame shift in samples.
        means: task -> metric -> claimed mean.
        problems: everything that is wrong.
        doubts: what may keep the test sets from being whole, or the leaderboard's.
    """

    predictions: dict[tuple[str, bool], dict[str, dict[str, str]]] = field(default_factory=dict)
    activities: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    shift: int | None = None
    means: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def note(self, where: str, kind: str, examples: Sequence[str]) -> None:
        """Add a problem, if there are examples."""
        if examples:
            self.problems.append(
                Problem(
                    where=where,
                    kind=kind,
                    examples=tuple(str(e)[:120] for e in examples[:SHOWN]),
                    count=len(examples),
                )
            )


def check(
    members: Mapping[str, bytes], truths: Mapping[str, TestSet], *, official: bool = False
) -> Checked:
    """Read every file and hold it against its test set.

    Args:
        members: of the zip, by name.
        truths: of each task.
        official: whether the test sets must have the sizes of the leaderboard's own.

    Raises:
        ValueError: diarization without h5py.
    """
    out = Checked()
    placed = {name: place(name) for name in members}
    out.note(
        "the zip", "file that no task knows", sorted(n for n, p in placed.items() if p is None)
    )
    known = {name: found for name, found in placed.items() if found is not None}
    if not known:
        out.note("the zip", "no task's file", [f"nothing below {ROOT} that is known"])
    for task in sorted({part.task for part, _ in known.values()} - truths.keys()):
        out.note(
            f"task {task}",
            "no test set to hold it against",
            ["give --against a folder with its results, or --keys its prepared corpus"],
        )
    sizes: list[tuple[str, OfATest, int]] = []
    for task in sorted({part.task for part, _ in known.values()} & truths.keys()):
        truth = truths[task]
        differs = size_differs(truth, len(truth.rows.ids))
        if official and differs:
            out.note(f"task {task}", "test set that is not the leaderboard's", [differs])
        sizes.append((task, truth, len(truth.rows.ids)))
    out.doubts = doubts(sizes)
    for name, (part, inner) in sorted(known.items()):
        if part.task in truths and part.form != "activity":
            _file(out, name, part, inner, members[name], truths[part.task])
    recordings = {n: i for n, (p, i) in known.items() if p.form == "activity"}
    if recordings and "sd" in truths:
        _diarization(out, {n: members[n] for n in recordings}, recordings, truths["sd"])
    folds = {inner for part, inner in known.values() if part.task == "er"}
    if folds:
        wanted = {str(i) for i in range(1, FOLDS + 1)}
        out.note("task er", "fold missing", sorted(wanted - folds))
        out.note("task er", "fold that there is not", sorted(folds - wanted))
    return out


def _file(out: Checked, name: str, part: Part, fold: str, data: bytes, truth: TestSet) -> None:
    """Check one text file and keep what it says."""
    found = Read()
    text = forms.decoded(data, found)
    if text is not None:
        if part.form == "intent":
            forms.read_intents(text, found)
        elif part.form == "terms":
            forms.read_terms(text, found)
        elif part.form == "translation":
            forms.read_translation(text, found)
        else:
            forms.read_lines(text, found, empty=part.form == "text")
    for kind, examples in found.bad.items():
        out.note(name, kind, examples)
    if part.form == "means":
        _means(out, name, part.task, found.rows)
        return
    group = _fold_name(truth, fold)
    if group is None:
        return  # said as a fold that there is not
    references = truth.references(group if fold else None)
    ours = {key(part.task, i): i for i in references}
    wanted = Counter(key(part.task, i) for i in truth.ids(group if fold else None))
    _coverage(out, name, forms.ids(found.rows), wanted)
    check_one = {
        "text": _text, "label": _label, "intent": _intent, "score": _score,
        "terms": _terms, "translation": _translation,
    }[part.form]  # fmt: skip
    check_one(out, name, found, truth, references)
    rows = {ours.get(i, i): said for i, said in found.rows}
    out.predictions.setdefault((part.task, part.lm), {})[group] = rows


def _fold_name(truth: TestSet, fold: str) -> str | None:
    """Return the truth's name of a numbered fold, "" where there is none, None where it has not so many."""
    if not fold:
        return ""
    names = truth.folds()
    number = int(fold)
    return names[number - 1] if 1 <= number <= len(names) else None


def _coverage(out: Checked, name: str, ids: Sequence[str], wanted: Mapping[str, int]) -> None:
    counts = Counter(ids)
    out.note(name, "missing id", [i for i in wanted if i not in counts])
    out.note(name, "id that the test set has not", [i for i in counts if i not in wanted])
    out.note(
        name,
        "id twice",
        [f"{i} ({n} times)" for i, n in counts.items() if n > max(1, wanted.get(i, 1))],
    )


def _label(
    out: Checked, name: str, found: Read, truth: TestSet, references: Mapping[str, str]
) -> None:
    labels = truth.labels()
    out.note(
        name,
        "label that does not exist",
        [f"{i}: {said!r}" for i, said in found.rows if said not in labels],
    )


def _intent(
    out: Checked, name: str, found: Read, truth: TestSet, references: Mapping[str, str]
) -> None:
    """Check slot by slot: a model may join values that never stand together."""
    triples = [label.split("|") for label in truth.labels() if label.count("|") == 2]
    slots = [{triple[i] for triple in triples} for i in range(3)]
    wrong = [
        f"{i}: {part!r}"
        for i, said in found.rows
        for part, known in zip(said.split("|"), slots, strict=True)
        if part not in known
    ]
    out.note(name, "label that does not exist", wrong)


def _score(
    out: Checked, name: str, found: Read, truth: TestSet, references: Mapping[str, str]
) -> None:
    numbers: list[float] = []
    bad = []
    for i, said in found.rows:
        try:
            number = float(said)
        except ValueError:
            number = math.nan
        numbers.append(number)
        if not math.isfinite(number):
            bad.append(f"{i}: {said!r}")
    out.note(name, "score is no finite number", bad)
    if len(numbers) > 1 and not bad and len(set(numbers)) == 1:
        out.note(name, "all scores are the same", [f"{numbers[0]:g}"])


def _text(
    out: Checked, name: str, found: Read, truth: TestSet, references: Mapping[str, str]
) -> None:
    for kind, examples in texts.mistakes(truth.task, found.rows, references):
        out.note(name, kind, examples)


def _terms(
    out: Checked, name: str, found: Read, truth: TestSet, references: Mapping[str, str]
) -> None:
    documents = {doc for said in truth.rows.predictions for doc in decode_scores(said)}
    missing, extra = [], []
    for query, said in found.rows:
        given = decode_scores(said)
        missing += [f"{query}, {doc}" for doc in sorted(documents - given.keys())]
        extra += [f"{query}, {doc}" for doc in sorted(given.keys() - documents)]
    out.note(name, "missing document", missing)
    out.note(name, "document that the test set has not", extra)


def _translation(
    out: Checked, name: str, found: Read, truth: TestSet, references: Mapping[str, str]
) -> None:
    changed = [
        f"{i}: {said!r}" for i, said in found.references.items() if references.get(i, said) != said
    ]
    out.note(name, "reference that was changed", changed)


def _means(out: Checked, name: str, task: str, rows: Sequence[tuple[str, str]]) -> None:
    wanted = ("pesq", "stoi") if task == "se" else ("si_sdr",)
    counts = Counter(forms.ids(rows))
    out.note(name, "missing metric", [m for m in wanted if m not in counts])
    out.note(name, "metric twice", [m for m, n in counts.items() if n > 1])
    out.note(name, "metric that there is not", [m for m in counts if m not in MEANS])
    bad = []
    for metric, said in rows:
        low, high = RANGES.get(metric, (-math.inf, math.inf))
        try:
            value = float(said)
        except ValueError:
            value = math.nan
        if low <= value <= high:
            out.means.setdefault(task, {})[metric] = value
        else:
            bad.append(f"{metric}: {said!r}, from {low:g} to {high:g} is possible")
    out.note(name, "value out of range", bad)


def _diarization(
    out: Checked, members: Mapping[str, bytes], inner: Mapping[str, str], truth: TestSet
) -> None:
    where = f"{ROOT}sd_public"
    found = Read()
    references = truth.references()
    shifts = [name for name, recording in inner.items() if not recording]
    if not shifts:
        out.note(where, "no frame_shift", ["a file with the samples between frames must be there"])
    shift = activity.read_shift(members[shifts[0]], found) if shifts else None
    recordings = [recording for recording in inner.values() if recording]
    _coverage(out, where, recordings, Counter(truth.ids()))
    true = {name: decode(text) for name, text in references.items()}
    most = max((len({t.speaker for t in turns}) for turns in true.values()), default=0)
    columns, short = [], []
    room = activity.CELLS
    for name, recording in sorted(inner.items()):
        if not recording:
            continue
        activity_TS = activity.read_activity(recording, members[name], found, room=room)
        if activity_TS is None:
            continue
        room -= activity_TS.size
        end = max((t.start + t.duration for t in true.get(recording, ())), default=0.0)
        if activity_TS.shape[1] != most:
            columns.append(f"{recording}: {activity_TS.shape[1]}, the test set has {most} speakers")
        if shift and len(activity_TS) * shift / activity.RATE + SLACK < end:
            short.append(f"{recording}: ends at {len(activity_TS) * shift / activity.RATE:.2f} s")
        out.activities[recording] = activity_TS
    out.shift = shift
    for kind, examples in found.bad.items():
        out.note(where, kind, examples)
    out.note(where, "columns for another number of speakers", columns)
    out.note(where, "recording that ends before its speech does", short)
