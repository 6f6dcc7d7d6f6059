"""``mynah compare A B``: is one model better than another, task by task?

Both are scored on the same utterances, so the difference is tested in pairs: units (speakers) and
seeds are drawn with replacement, the same units for both sides (:mod:`mynah.recipes.paired`). With
many tasks some difference looks large by chance: p values are corrected by Holm's step-down method
over all tasks that were tested (Holm 1979). What is not scored alike is refused, with the reason.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

if TYPE_CHECKING:
    from mynah.recipes.paired import Comparison, Estimate, Side
    from mynah.recipes.results import Result

Entry = tuple[Path, "Result"]
Key = tuple[str, str, int | None]
"""(task with what makes it another number, corpus, layer)."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Test the differences between two models' results, task by task."""

    first: Annotated[str, Positional]
    """Folder of one model's results (DIR/UPSTREAM of what bench wrote), or its name in --results."""
    second: Annotated[str, Positional]
    """The same of another model."""
    results: Path | None = None
    """Folder of results that holds both; then they are given by their names in its table."""
    level: float = 0.05
    """Below which a corrected p counts as a difference."""
    draws: int = 2000
    """Of the bootstrap."""
    out: Path | None = None
    """Also write everything here, as JSON."""


@dataclass(frozen=True, kw_only=True)
class Tested:
    """One task on one corpus.

    Attributes:
        task: with what makes it another number.
        corpus: its name.
        metric: the one that ranks.
        higher_is_better: its direction.
        scale: what it is multiplied by to be shown.
        found: scores, difference, p.
        corrected: p by Holm's method.
        seeds: runs of either side.
    """

    task: str
    corpus: str
    metric: str
    higher_is_better: bool
    scale: float
    found: Comparison
    corrected: float
    seeds: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Refused:
    """One task on one corpus that cannot be compared, and why."""

    task: str
    corpus: str
    reason: str


def holm(p: Sequence[float]) -> list[float]:
    """Return p values that hold for all tests together: Holm's step-down method.

    The smallest is multiplied by the number of tests, the next by one less, and so on; none gets
    smaller than the one before it.
    """
    out, least = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - rank) * p[index]))
        out[index] = least
    return out


def compare(
    first: Mapping[Key, Sequence[Entry]],
    second: Mapping[Key, Sequence[Entry]],
    *,
    draws: int = 2000,
    side: Callable[[Sequence[Entry]], Side] | None = None,
) -> tuple[list[Tested], list[Refused]]:
    """Test every task that both sides have, and say why the others were not.

    Args:
        first: of :func:`grouped`.
        second: likewise.
        draws: of the bootstrap.
        side: scores the runs of a side again, where the caller keeps what that gives.

    Raises:
        ValueError: predictions and results that do not belong together.
        FileNotFoundError: predictions are gone.
    """
    from mynah.recipes import paired

    refused, raw = [], []
    for key in sorted(first.keys() | second.keys(), key=str):
        task = key[0] if key[2] is None else f"{key[0]} layer {key[2]}"
        a, b = first.get(key), second.get(key)
        if not a or not b:
            reason = f"only the {'first' if a else 'second'} has it"
            refused.append(Refused(task=task, corpus=key[1], reason=reason))
            continue
        differ = differences(a, b)
        if differ:
            refused.append(Refused(task=task, corpus=key[1], reason="; ".join(differ)))
            continue
        sides = [(side or scored_again)(entries) for entries in (a, b)]
        try:
            found = paired.compare(*sides, draws=draws)
        except ValueError as error:
            refused.append(Refused(task=task, corpus=key[1], reason=str(error)))
            continue
        raw.append((task, a[0][1], found, (len(a), len(b))))
    corrected = holm([found.p for _, _, found, _ in raw])
    tested = [
        Tested(
            task=task,
            corpus=result.corpus,
            metric=result.metric,
            higher_is_better=result.higher_is_better,
            scale=result.main.scale,
            found=found,
            corrected=p,
            seeds=seeds,
        )
        for (task, result, found, seeds), p in zip(raw, corrected, strict=True)
    ]
    return tested, refused


def scored_again(entries: Sequence[Entry]) -> Side:
    """Return the runs of one side, their predictions scored again.

    Raises:
        ValueError, FileNotFoundError: as :func:`compare`.
    """
    from mynah.recipes import paired

    return paired.side([p for p, _ in entries], [r for _, r in entries])


def differences(a: Sequence[Entry], b: Sequence[Entry]) -> list[str]:
    """Return why two groups of runs of a task on a corpus are not to be compared; [] if they are."""
    named = {
        "protocol": lambda r: r.protocol,
        "version of the task": lambda r: r.task_version,
        "test set (hash of the corpus)": lambda r: r.corpus_version[:12],
        "metric": lambda r: r.main.signature,
        "settings": lambda r: ", ".join(f"{k}={v}" for k, v in sorted(r.settings.items())),
    }
    out = []
    for name, of in named.items():
        found = [sorted({str(of(r)) for _, r in side}) for side in (a, b)]
        if any(len(side) > 1 for side in found):
            each = " | ".join(", ".join(side) for side in found)
            out.append(f"more than one {name} on a side: {each}")
        elif found[0] != found[1]:
            if name == "settings":
                mine, other = (set(side[0].split(", ")) for side in found)
                found = [[", ".join(sorted(mine - other))], [", ".join(sorted(other - mine))]]
            out.append(f"another {name}: {found[0][0] or 'none'} against {found[1][0] or 'none'}")
    return out


def grouped(entries: Sequence[Entry]) -> dict[Key, list[Entry]]:
    """Return the runs of one model by task, corpus and layer; seeds stand together.

    Raises:
        ValueError: results of several models.
    """
    names = sorted({r.upstream for _, r in entries})
    if len(names) > 1:
        raise ValueError(
            f"results of {len(names)} models: {', '.join(names)}; give the folder of one, or "
            "--results DIR and a name"
        )
    out: dict[Key, list[Entry]] = defaultdict(list)
    for path, result in entries:
        out[result.label, result.corpus, result.layer].append((path, result))
    return dict(out)


def side_of(name: str, folder: Path | None) -> dict[Key, list[Entry]]:
    """Return the results of one side.

    Raises:
        FileNotFoundError: no such folder, or no results in it.
        LookupError: no such model in ``folder``.
        ValueError: results of several models.
    """
    from mynah import registry
    from mynah.recipes.kept import pairs

    if folder is None:
        return grouped(pairs(Path(name)))
    entries = pairs(folder)
    mine = [(path, result) for path, result in entries if result.upstream == name]
    if not mine:
        there = sorted({r.upstream for _, r in entries})
        raise LookupError(registry.unknown(f"model in {folder}", name, there))
    return grouped(mine)


def lines(tested: Sequence[Tested], refused: Sequence[Refused], level: float) -> list[str]:
    """Return a Markdown table, and what it means."""
    out = []
    if tested:
        out += [
            "| task, corpus | metric | first | second | first is better by | p | p, Holm | |",
            "|---|---|---|---|---|---|---|---|",
        ]
    for row in tested:
        found = row.found
        mark = ""
        if row.corrected < level:
            mark = "first" if found.better.value > 0 else "second"
        cells = [
            f"{row.task}, {row.corpus}",
            row.metric + ("↑" if row.higher_is_better else "↓"),
            _shown(found.ours, row.scale),
            _shown(found.other, row.scale),
            _shown(found.better, row.scale, signed=True),
            f"{found.p:.4f}",
            f"{row.corrected:.4f}",
            mark or "–",
        ]
        out.append(f"| {' | '.join(cells)} |")
    if tested:
        units = [f"{r.task} {r.found.units} ({r.found.unit})" for r in tested]
        out += [
            "",
            "In brackets 95 % bootstrap intervals over units and seeds; p of a paired bootstrap test "
            f"of no difference, the last one corrected over {len(tested)} tests; the better one "
            f"where that is below {level:g}. Units: {', '.join(units)}.",
        ]
    if refused:
        out += ["", "Not compared:"]
        out += [f"- {row.task}, {row.corpus}: {row.reason}" for row in refused]
    return out


def _shown(estimate: Estimate, scale: float, *, signed: bool = False) -> str:
    digits, sign = 1 if scale == 100 else 2, "+" if signed else ""
    value, low, high = (scale * x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def main(args: Args) -> int:
    """Print the table; exit status 1 if any task that both have could not be compared, or none was.

    Raises:
        FileNotFoundError: no results, or no predictions beside them.
        LookupError: no such model in the folder.
        ValueError: a damaged result, or results of several models where one is meant.
    """
    from mynah.files import write_text
    from mynah.recipes.progress import console

    if not 0 < args.level < 1 or args.draws < 100:
        raise ValueError(
            f"level must be between 0 and 1 and draws at least 100, got {args.level}, {args.draws}"
        )
    tested, refused = compare(
        side_of(args.first, args.results), side_of(args.second, args.results), draws=args.draws
    )
    for line in lines(tested, refused, args.level):
        console.print(line, markup=False)
    if args.out is not None:
        data = {
            "first": args.first,
            "second": args.second,
            "level": args.level,
            "draws": args.draws,
            "tested": [dataclasses.asdict(row) for row in tested],
            "refused": [dataclasses.asdict(row) for row in refused],
        }
        write_text(args.out, json.dumps(data, indent=1) + "\n")
    unlike = [row for row in refused if not row.reason.startswith("only the ")]
    return 1 if unlike or not tested else 0
