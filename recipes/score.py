"""``mynah score DIR``: SUPERB's score and rank of each model in a folder of results; or of a zip.

Beside them stands a mean that is defined for any subset of tasks. Intervals are made of the tasks'
own predictions: each metric is computed on draws of speakers (and seeds), and the aggregates of
each draw.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from tyro.conf import Positional

from mynah.recipes.aggregate import Key, View

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mynah.recipes.results import Result

    Draws = dict[Key, NDArray[np.float64]]
    Drawn = tuple[dict[Key, float], Draws, dict[str, float]]

DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Args:
    """Score models as SUPERB's leaderboard does, and by a mean over whatever tasks there are."""

    results: Annotated[Path, Positional]
    """Folder of results, or a submission's zip."""
    against: Path | None = None
    """Of a zip: folder of results, of any upstream, on the same test sets."""
    view: View = "paper"
    """Which ten tasks: of the SUPERB paper, or of the leaderboard's public set (with SUPERB-SG's)."""
    protocol: str | None = None
    """Only results of this protocol, where the folder has several (superb or fixed)."""
    corpus: tuple[str, ...] = ()
    """Only results on these corpora, where a task was done on several."""
    out: Path | None = None
    """Also write everything here, as JSON."""


class Interval(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One model's aggregates.

    Attributes:
        model: its row in ``mynah table``.
        protocol: of its results.
        corpora: task -> corpus.
        values: (task, metric) -> value, in the units of publication.
        missing: tasks of the view that it has no result for.
        counted: tasks whose results were made as the published ones; where there are any, missing,
            superb_s and superb_r are of these alone.
        superb_s: None where a task is missing.
        superb_r: among the published fifteen and others with counted tasks; without any, among the
            others that have none either.
        centred: mean of ``parts``; None where there are none.
        parts: task -> (value - chance) / (perfect - chance).
        remarks: what sets these numbers apart from published ones.
    """

    model: str
    protocol: str
    corpora: dict[str, str]
    values: dict[Key, float]
    missing: list[str]
    counted: list[str]
    superb_s: Interval | None
    superb_r: Interval
    centred: Interval | None
    parts: dict[str, float]
    remarks: list[str]

    @property
    def placed(self) -> dict[Key, float]:
        """The values that superb_s and superb_r are of."""
        tasks = self.counted
        return {k: v for k, v in self.values.items() if k[0] in tasks or not tasks}


def chosen(
    results: Iterable[tuple[Path, Result]], *, protocol: str | None, corpus: Sequence[str]
) -> dict[tuple[str, str], dict[str, list[tuple[Path, Result]]]]:
    """Return the results that count, by (model, protocol) and task; seeds stand together.

    The head of the protocol goes before a small one; results with a language model do not count.

    Raises:
        ValueError: nothing is left, or a task on several corpora.
    """
    from mynah.recipes.aggregate import CENTRED, REFERENCES

    wanted = {task for task, _ in REFERENCES} | CENTRED.keys()
    models: dict[tuple[str, str], dict[str, list[tuple[Path, Result]]]] = {}
    for path, r in results:
        if protocol not in (None, r.protocol) or (corpus and r.corpus not in corpus):
            continue
        if r.task not in wanted or r.settings.get("lm"):
            continue
        name = r.upstream if r.layer is None else f"{r.upstream} layer {r.layer}"
        models.setdefault((name, r.protocol), defaultdict(list))[r.task].append((path, r))
    if not models:
        raise ValueError(
            f"no result of a task that counts, protocol {protocol or 'any'}, corpora "
            f"{', '.join(corpus) or 'any'}"
        )
    for (name, _), of_task in models.items():
        for task, entries in of_task.items():
            whole = [e for e in entries if e[1].settings.get("heads") != "small"]
            of_task[task] = whole or entries
            corpora = sorted({r.corpus for _, r in of_task[task]})
            if len(corpora) > 1 and task != "ood_asr":
                raise ValueError(
                    f"{task} of {name} has results on {', '.join(corpora)}: choose with --corpus"
                )
    return {key: dict(of_task) for key, of_task in models.items()}


def drawn(
    of_task: Mapping[str, Sequence[tuple[Path, Result]]],
) -> Drawn:
    """Return the values of a model, those of each draw, and each task's chance (per cent).

    Raises:
        FileNotFoundError: predictions are gone.
        ValueError: predictions that do not give a result's value.
    """
    import numpy as np

    from mynah.recipes import kept
    from mynah.recipes.aggregate import CENTRED, REFERENCES

    values: dict[Key, float] = {}
    draws: Draws = {}
    chances: dict[str, float] = {}
    for task, entries in of_task.items():
        names = {m for t, m in REFERENCES if t == task}
        if task in CENTRED:
            names.add(CENTRED[task][0])
        rows = [kept.read(path, r) for path, r in entries]
        chances[task] = 100 * rows[0].chance()
        for name in sorted(names & entries[0][1].metrics.keys()):
            scale = entries[0][1].metrics[name].scale
            runs = [
                kept.scored(path, r, name, rows=each)
                for (path, r), each in zip(entries, rows, strict=True)
            ]
            values[task, name] = scale * float(np.mean([run.value for run in runs]))
            table_RD = np.stack([run.weigh(kept.draws(run.names, DRAWS)) for run in runs])
            chosen_RD = np.random.default_rng(0).integers(len(runs), size=table_RD.shape)
            draws[task, name] = scale * np.take_along_axis(table_RD, chosen_RD, 0).mean(axis=0)
    return values, draws, chances


def standings(
    models: Mapping[tuple[str, str], Mapping[str, Sequence[tuple[Path, Result]]]],
    view: View,
    *,
    found: Mapping[tuple[str, str], Drawn] | None = None,
) -> list[Standing]:
    """Return the aggregates of each model, the highest rank first.

    Args:
        models: of :func:`chosen`.
        view: which tasks count.
        found: what :func:`drawn` returned of each model, where the caller has it.
    """
    import numpy as np

    from mynah.recipes import aggregate
    from mynah.recipes.published import comparable, rows

    if found is None:
        found = {key: drawn(of_task) for key, of_task in models.items()}
    published = list(rows.ranked().values())
    counted = {key: comparable.counted(models[key]) for key in found}

    def placed(key: tuple[str, str], values: Mapping[Key, float]) -> dict[Key, float]:
        tasks = counted[key]
        return {k: v for k, v in values.items() if k[0] in tasks or not tasks}

    ours = {key: placed(key, values) for key, (values, _, _) in found.items()}
    out = []
    for key, (values, draws, chances) in found.items():
        others = [v for k, v in ours.items() if k != key and bool(counted[k]) == bool(counted[key])]
        if counted[key]:
            others += published
        whole = np.isfinite(list(draws.values())).all(axis=0)  # draws that define every metric
        samples = [{k: float(d[i]) for k, d in draws.items()} for i in np.flatnonzero(whole)]
        parts = [ours[key], *(placed(key, s) for s in samples)]
        scores = [aggregate.superb_s(s, view) for s in parts]
        ranks = [aggregate.superb_r(s, others, view) for s in parts]
        means = [aggregate.centred_mean(s, chances) for s in (values, *samples)]
        rank = _interval(ranks)
        assert rank is not None
        out.append(
            Standing(
                model=key[0],
                protocol=key[1],
                corpora={
                    t: ", ".join(sorted({r.corpus for _, r in e})) for t, e in models[key].items()
                },
                values=values,
                missing=aggregate.missing(ours[key], view),
                counted=counted[key],
                superb_s=_interval(scores),
                superb_r=rank,
                centred=_interval(means),
                parts=aggregate.centred(values, chances),
                remarks=comparable.remarks(models[key]),
            )
        )
    return sorted(out, key=lambda s: (-s.superb_r.value, -(s.superb_s.value if s.superb_s else 0)))


def _interval(values: Sequence[float | None]) -> Interval | None:
    """Return the first number with the percentiles of the others, of those that are defined."""
    import numpy as np

    if values[0] is None:
        return None
    known = [v for v in values[1:] if v is not None]
    low, high = np.quantile(known, [0.025, 0.975]) if known else (values[0], values[0])
    return Interval(float(values[0]), float(low), float(high))


def lines(found: Sequence[Standing], view: View) -> list[str]:
    """Return a Markdown table of models and of the published rows, and what is missing where."""
    from mynah.recipes import aggregate
    from mynah.recipes.published import rows

    out = [
        f"| model | superb_s ({view}) | superb_r | centred mean, tasks | missing |",
        "|---|---|---|---|---|",
    ]
    for s in found:
        score = _shown(s.superb_s, 0) if s.superb_s else "not defined"
        mean = f"{_shown(s.centred, 3)}, {len(s.parts)}" if s.centred else "–"
        gone = ", ".join(s.missing) or "–"
        name = f"{s.model} ({s.protocol}){'' if s.counted else ' ‡'}"
        cells = [name, score, _shown(s.superb_r, 2), mean, gone]
        out.append(f"| {' | '.join(cells)} |")
    ranked = rows.ranked()
    ours = [s.placed for s in found if s.counted]
    for name, values in ranked.items():
        others = [*(v for n, v in ranked.items() if n != name), *ours]
        published = aggregate.superb_s(values, view)
        rank = aggregate.superb_r(values, others, view)
        shown = "not defined" if published is None else f"{published:.0f}"
        out.append(f"| {name} (published) | {shown} | {rank:.2f} | – | – |")
    out += [
        "",
        f"superb_s: mean over the view's tasks ({', '.join(aggregate.VIEWS[view])}) of 1000 (value - "
        "FBANK) / (best - FBANK), FBANK and best being SUPERB's; not defined where a task is missing. "
        "superb_r: the same mean of how many of the models shown have a lower value, 0 for what is "
        f"missing; more is better. Centred mean: {aggregate.FORMULA}, 0 guessing, 1 no error; "
        "compare it on the same tasks only; without se, ss and vc, which have no perfect score. In "
        "brackets 95 % bootstrap intervals over units and seeds. Published rows are of SUPERB's corpora "
        "under protocol superb: only results on these, of the whole test sets and by the protocol's "
        "heads, stand among them.",
    ]
    if any(not s.counted for s in found):
        out.append(
            "‡: without any such result; its superb_r is among the models marked ‡, and its superb_s "
            "is not on the scale of the published ones."
        )
    for s in found:
        tasks = ", ".join(f"{t} {c}" for t, c in sorted(s.corpora.items()))
        notes = "".join(f"; {r}" for r in s.remarks)
        if s.counted and len(s.counted) < len(s.corpora):
            notes += f"; among published rows counts only: {', '.join(s.counted)}"
        out.append(f"- {s.model} ({s.protocol}): {tasks}{notes}")
    return out


def _shown(interval: Interval, digits: int) -> str:
    value, low, high = interval
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def as_json(found: Sequence[Standing], view: View) -> dict[str, Any]:
    """Return everything as JSON can hold it."""
    return {
        "view": view,
        "models": [
            {
                **vars(s),
                "values": {"/".join(key): value for key, value in s.values.items()},
                **{
                    name: None if part is None else part._asdict()
                    for name, part in (
                        ("superb_s", s.superb_s),
                        ("superb_r", s.superb_r),
                        ("centred", s.centred),
                    )
                },
            }
            for s in found
        ],
    }


def main(args: Args) -> int:
    """Print the scores; exit status 1 where a model has no superb_s.

    Raises:
        FileNotFoundError: no results, or no predictions beside them.
        ValueError: a damaged result, nothing that counts, or several corpora of a task.
    """
    from mynah.files import write_text
    from mynah.recipes.kept import pairs
    from mynah.recipes.progress import console

    if args.results.suffix == ".zip" or args.against is not None:
        from mynah.recipes.submission.report import score_zip

        if args.against is None:
            raise ValueError(f"to score {args.results}, name its test sets: --against RESULTS")
        return score_zip(
            args.results,
            args.against,
            view=args.view,
            protocol=args.protocol,
            corpus=args.corpus,
            out=args.out,
        )
    models = chosen(pairs(args.results), protocol=args.protocol, corpus=args.corpus)
    found = standings(models, args.view)
    for line in lines(found, args.view):
        console.print(line, markup=False)
    if args.out is not None:
        write_text(args.out, json.dumps(as_json(found, args.view), indent=1) + "\n")
    return 1 if any(s.superb_s is None for s in found) else 0
