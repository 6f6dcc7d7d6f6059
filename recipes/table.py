"""``mynah table DIR``: the results of a folder as a table."""

from __future__ import annotations

import json
import logging
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from tyro.conf import Positional

if TYPE_CHECKING:
    from mynah.recipes.published.beside import Beside
    from mynah.recipes.results import Result

log = logging.getLogger(__name__)

Format = Literal["terminal", "markdown", "csv", "json"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Show the scores of a folder of results, with 95 % intervals."""

    results: Annotated[Path, Positional]
    """Folder that ``mynah probe`` or ``mynah bench`` wrote."""
    format: Format = "terminal"
    """How to print it."""
    protocol: str | None = None
    """Only this protocol (``superb`` or ``fixed``)."""
    with_published: bool = False
    """Also the published rows of SUPERB, in the columns that they have."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One score: a mean over seeds, and an interval that covers sampling and seeds.

    Attributes:
        value: mean over seeds.
        low: mean of the lower interval ends over seeds.
        high: mean of the upper ends.
        spread: standard deviation over seeds, None with one seed.
        seeds: number of seeds.
        skipped: utterances left out, the most over seeds.
        scale: what it is multiplied by to be shown.
    """

    value: float
    low: float
    high: float
    spread: float | None
    seeds: int
    skipped: int
    scale: float = 100.0


class Row(NamedTuple):
    """What a row of the table is of.

    Attributes:
        run: of pretraining, or the upstream where none is known: rows of a run stand together.
        step: of that run, None where not known.
        upstream: its id.
        layer: the one hidden state that the heads read, None for the weighted sum.
    """

    run: str
    step: int | None
    upstream: str
    layer: int | None

    @property
    def name(self) -> str:
        """What the row is called: the upstream, and the layer."""
        return self.upstream if self.layer is None else f"{self.upstream} layer {self.layer}"

    @property
    def order(self) -> tuple[str, int, str, int]:
        """By run, step, upstream; the weighted sum before the layers."""
        return (
            self.run,
            -1 if self.step is None else self.step,
            self.upstream,
            -1 if self.layer is None else self.layer,
        )


@dataclass(frozen=True, kw_only=True)
class Table:
    """Scores by row and column.

    Attributes:
        columns: (task, corpus, protocol, metric, higher_is_better) in order.
        rows: name of the row (the upstream, with the layer where there is one) -> column index ->
            cell; the checkpoints of a run are in the order of their steps.
        mixed: columns whose results do not share task version, corpus version and settings.
        origins: name of the row -> what it is of.
    """

    columns: tuple[tuple[str, str, str, str, bool], ...]
    rows: dict[str, dict[int, Cell]]
    mixed: tuple[int, ...]
    origins: dict[str, Row] = field(default_factory=dict)

    @property
    def has_steps(self) -> bool:
        """Whether a run of pretraining is there at several steps."""
        known = {(row.run, row.step) for row in self.origins.values() if row.step is not None}
        return len({run for run, _ in known}) < len(known)


def collect(results: Sequence[Result]) -> Table:
    """Group results into a table; seeds of the same upstream and column become one cell."""
    groups: dict[tuple[str, tuple[str, str, str, str, bool]], list[Result]] = defaultdict(list)
    origins: dict[str, Row] = {}
    for r in results:
        row = Row(r.upstream_run or r.upstream, r.upstream_step, r.upstream, r.layer)
        origins[row.name] = row
        column = (r.label, r.corpus, r.protocol, r.metric, r.higher_is_better)
        groups[row.name, column].append(r)
    columns = tuple(sorted({column for _, column in groups}))
    terms: dict[int, set[tuple[object, ...]]] = defaultdict(set)
    rows: dict[str, dict[int, Cell]] = {}
    origins = dict(sorted(origins.items(), key=lambda item: item[1].order))
    for name in origins:
        rows[name] = {}
        for index, column in enumerate(columns):
            found = groups.get((name, column))
            if not found:
                continue
            terms[index] |= {_terms(r) for r in found}
            values = [r.main.value for r in found]
            rows[name][index] = Cell(
                value=statistics.fmean(values),
                low=statistics.fmean(r.main.low for r in found),
                high=statistics.fmean(r.main.high for r in found),
                spread=statistics.stdev(values) if len(values) > 1 else None,
                seeds=len(values),
                skipped=max(len(r.skipped) for r in found),
                scale=found[0].main.scale,
            )
    mixed = tuple(i for i in range(len(columns)) if len(terms[i]) > 1)
    return Table(columns=columns, rows=rows, mixed=mixed, origins=origins)


def _terms(result: Result) -> tuple[object, ...]:
    """Return the result's terms but the layer, which the row states."""
    return tuple(
        term for term in result.terms if not (isinstance(term, tuple) and term[0] == "layer")
    )


def best(table: Table, index: int) -> str | None:
    """Return the upstream with the best mean in a column."""
    scored = {u: cells[index].value for u, cells in table.rows.items() if index in cells}
    if not scored:
        return None
    return (max if table.columns[index][4] else min)(scored, key=lambda u: scored[u])


def numbers(cell: Cell) -> tuple[str, str]:
    """Return a score and its interval in brackets, scaled."""
    digits = _digits(cell)
    value, low, high = (cell.scale * x for x in (cell.value, cell.low, cell.high))
    return f"{value:.{digits}f}", f"[{low:.{digits}f}, {high:.{digits}f}]"


def _digits(cell: Cell) -> int:
    return 1 if cell.scale == 100 else 2


def shown_as(cell: Cell) -> str:
    """Return ``value [low, high]``, scaled, with the number of seeds and skips if not 1 and 0."""
    text = " ".join(numbers(cell))
    if cell.spread is not None:
        text += f" ±{cell.scale * cell.spread:.{_digits(cell)}f} ({cell.seeds} seeds)"
    return text + (f" ({cell.skipped} skipped)" if cell.skipped else "")


def heading(column: tuple[str, str, str, str, bool]) -> str:
    """Return a column heading such as ``pr l2 per↓ fixed``."""
    task, corpus, protocol, metric, higher = column
    return f"{task} {corpus} {metric}{'↑' if higher else '↓'} {protocol}"


def notes(table: Table) -> list[str]:
    """Return the lines that belong under the table."""
    lines = [
        "Per cent (PESQ and decibels as they are); in brackets the 95 % bootstrap interval by the task's split unit (mean over "
        "seeds); ± is the standard deviation over seeds; best of each column in bold."
    ]
    if table.mixed:
        which = ", ".join(heading(table.columns[i]) for i in table.mixed)
        lines.append(
            "Warning: versions of task or corpus, or settings (steps, learning rates ...), differ "
            f"within: {which}. Do not compare."
        )
    return lines


def markdown(table: Table, *, published: Sequence[Beside] = ()) -> str:
    """Render as a Markdown table; published rows come last."""
    step = "step | " if table.has_steps else ""
    lines = [
        f"| upstream | {step}" + " | ".join(heading(c) for c in table.columns) + " |",
        "|---|" + "---|" * (len(table.columns) + bool(step)),
    ]
    leaders = [best(table, i) for i in range(len(table.columns))]
    for upstream, cells in table.rows.items():
        shown = []
        for i in range(len(table.columns)):
            text = shown_as(cells[i]) if i in cells else "–"
            shown.append(f"**{text}**" if leaders[i] == upstream else text)
        step = f"{step_of(table, upstream)} | " if table.has_steps else ""
        lines.append(f"| {upstream} | {step}" + " | ".join(shown) + " |")
    step = "– | " if table.has_steps else ""
    for row in published:
        shown = theirs(table, row)
        lines.append(f"| {row.model} (published) | {step}" + " | ".join(shown) + " |")
    return "\n".join([*lines, "", *_notes(table, published)]) + "\n"


def theirs(table: Table, row: Beside) -> list[str]:
    """Return the cells of a published row."""
    from mynah.recipes.published.beside import shown_as as published_as

    return [
        published_as(row.cells[i]) if i in row.cells else "–" for i in range(len(table.columns))
    ]


def _notes(table: Table, published: Sequence[Beside]) -> list[str]:
    from mynah.recipes.published import beside

    return [*notes(table), *(beside.notes(published) if published else [])]


def step_of(table: Table, name: str) -> str:
    """Return the step of pretraining of a row as text, a dash where not known."""
    step = table.origins[name].step
    return "–" if step is None else str(step)


def show(table: Table, *, published: Sequence[Beside] = ()) -> None:
    """Print to the terminal, one line per upstream and column block."""
    from rich.table import Table as RichTable

    from mynah.recipes.progress import console

    drawn = RichTable(show_lines=False)
    drawn.add_column("upstream", no_wrap=True)
    if table.has_steps:
        drawn.add_column("step", justify="right")
    for column in table.columns:
        drawn.add_column(heading(column))
    leaders = [best(table, i) for i in range(len(table.columns))]
    for upstream, cells in table.rows.items():
        shown = []
        for i in range(len(table.columns)):
            text = shown_as(cells[i]).replace("[", "\\[") if i in cells else "-"
            shown.append(f"[bold]{text}[/bold]" if leaders[i] == upstream else text)
        step = [step_of(table, upstream)] if table.has_steps else []
        drawn.add_row(upstream, *step, *shown)
    for row in published:
        step = ["–"] if table.has_steps else []
        drawn.add_row(f"{row.model} (published)", *step, *theirs(table, row))
    console.print(drawn)
    for line in _notes(table, published):
        console.print(line, markup=False)


def show_whole(folder: Path) -> int:
    """Print the table of the results under a folder, if any; returns how many files are damaged.

    For the end of long work, which one bad file must not hide: each is logged and left out.
    """
    from mynah.recipes import results

    found, damaged = [], 0
    for path in results.walk(folder):
        try:
            found.append(results.load(path))
        except (ValueError, OSError) as error:
            damaged += 1
            log.error("%s; it is not in the table", error)
    if found:
        show(collect(found))
    return damaged


def main(args: Args) -> int:
    """Print the table; exit status 0.

    Raises:
        FileNotFoundError: no results.
        ValueError: a damaged result, or a protocol that no result has.
    """
    from mynah.recipes.results import load_all
    from mynah.recipes.table_records import comma_separated, records

    results = load_all(args.results)
    if args.protocol is not None:
        have = sorted({r.protocol for r in results})
        results = [r for r in results if r.protocol == args.protocol]
        if not results:
            raise ValueError(
                f"no result under protocol {args.protocol!r}; there are: {', '.join(have)}"
            )
    table = collect(results)
    rows: Sequence[Beside] = ()
    if args.with_published:
        from mynah.recipes.published.beside import beside

        rows = beside(table.columns)
    if args.format == "terminal":
        show(table, published=rows)
        return 0
    text = {
        "markdown": lambda: markdown(table, published=rows),
        "csv": lambda: comma_separated(table, published=args.with_published),
        "json": lambda: json.dumps(records(table, published=args.with_published), indent=1) + "\n",
    }[args.format]()
    print(text, end="")  # noqa: T201  plain text for files and pipes
    return 0
