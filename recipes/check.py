"""``mynah check upstream SPEC``, ``parity``, ``metrics``, ``protocol`` and ``watermark``.

The first holds anybody's upstream against the contract, clause by clause; the second holds our
families against every reference that is installed, on the same small random weights; the third our
metrics against other implementations, on the same random cases; the fourth trains and scores tasks
under ``superb`` beside s3prl's own downstream code; the fifth says how often the mark of converted
speech is missed, and found where there is none.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from mynah.recipes.parity import Pair, protocol_table
    from mynah.recipes.parity.metric_pair import MetricPair, Row
    from mynah.recipes.parity.protocol import Setting


@dataclass(frozen=True, kw_only=True)
class Args:
    """Hold an upstream against the contract; families, metrics or the protocol against others'.

    Exit status 1 if a clause or a comparison fails.
    """

    what: Annotated[Literal["upstream", "parity", "metrics", "protocol", "watermark"], Positional]
    """``upstream``: one model against the contract; ``parity``: families against references;
    ``metrics``: metrics against references; ``protocol``: whole tasks against s3prl;
    ``watermark``: rates of the mark of converted speech, on ``--corpus``."""
    names: Annotated[tuple[str, ...], Positional] = ()
    """The upstream (``apc/tiny``, a run folder, ``hf:DIR``, ``python:FILE.py:CLASS`` ...); with
    ``parity`` a family or setting (``hubert``, ``wavlm``), with ``metrics`` metrics (``eer``,
    ``wer`` ...), with ``protocol`` tasks (``ks``, ``sid``, ``pr``, ``asv``), all unless given."""
    seed: int = 0
    """Of random weights, of the test signals of ``upstream``, of cases and made-up data."""
    cases: int = 200
    """Random cases of each metric; slow ones have fewer, and say so. Stretches of ``watermark``."""
    strict: bool = False
    """Whether a metric whose reference is not installed fails."""
    json: Path | None = None
    """Also write the rows of ``metrics``, ``protocol`` or ``watermark`` here."""
    corpus: Path | None = None
    """Prepared corpus for ``protocol`` (made-up words unless given) or ``watermark``."""
    upstream: str = "apc/tiny"
    """Whose frozen features ``protocol`` trains on."""
    steps: int | None = None
    """Updates of ``protocol``; 60 unless given, 3 of asv, whose head is large."""
    lr: float | None = None
    """Learning rate of ``protocol``; 0.01 unless given, 0.001 of asv."""
    heads: Literal["protocol", "small"] = "protocol"
    """With ``protocol``: ``small`` trains a narrow head on both sides where a task (asv) has one."""
    precision: Literal["float64", "float32"] = "float64"
    """Of both sides of ``protocol``. float32 is what real runs compute in; its rounding may grow so
    fast that few updates can be judged."""

    @property
    def spec(self) -> str:
        """The upstream, family or setting; empty if none is named.

        Raises:
            ValueError: more than one.
        """
        if len(self.names) > 1:
            raise ValueError(f"check {self.what} takes one name, got {', '.join(self.names)}")
        return "".join(self.names)


def main(args: Args) -> int:
    """Print the table of clauses or of comparisons; 1 if one fails.

    Raises:
        ValueError: no upstream is named, or two; fewer cases or steps than one.
        LookupError: no such upstream, or a family, metric or task without a reference.
        BadDataError: a corpus that cannot serve a task.
    """
    if args.what == "metrics":
        return metrics(args)
    if args.what == "protocol":
        return protocol(args)
    if args.what == "watermark":
        from mynah.recipes.conversion import watermark_check

        if args.corpus is None:
            raise ValueError("name a prepared corpus of speech: --corpus DIR")
        return watermark_check.run(args.corpus, count=args.cases, out=args.json, seed=args.seed)
    if args.what == "parity":
        return parity(args.spec)
    if not args.spec:
        raise ValueError("name the upstream: mynah check upstream apc/tiny, hf:DIR ...")
    return contract(args)


def contract(args: Args) -> int:
    """Print the table of clauses; 1 if one fails."""
    from rich.table import Table

    from mynah.recipes.progress import console
    from mynah.upstream.core.clauses import check
    from mynah.upstream.core.spec import load

    clauses = check(load(args.spec, seed=args.seed), seed=args.seed)
    table = Table(title=f"the upstream contract: {args.spec}", title_justify="left")
    for column in ("clause", "promise", "", "measured"):
        table.add_column(column, overflow="fold")
    colour = {"PASS": "green", "FAIL": "bold red", "SKIP": "yellow"}
    for clause in clauses:
        status = f"[{colour[clause.status]}]{clause.status}[/]"
        why = clause.why.replace("[", "\\[")
        table.add_row(clause.name, clause.promise, status, why)
    console.print(table, soft_wrap=False)
    failed = [clause.name for clause in clauses if clause.status == "FAIL"]
    kept = sum(clause.status == "PASS" for clause in clauses)
    skipped = len(clauses) - kept - len(failed)
    console.print(f"{kept} kept, {len(failed)} broken, {skipped} not applicable")
    return 1 if failed else 0


BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a reference of another version raises; a comparison that raises has failed."""


def parity(family: str) -> int:
    """Print how far each family is from each reference; 1 if one is too far.

    Args:
        family: only this one, or this setting (``wavlm``, ``tera``); all of them if empty.

    Raises:
        LookupError: a family without a reference.
    """
    from rich.table import Table

    from mynah import registry
    from mynah.recipes.parity import PAIRS
    from mynah.recipes.parity.compare import ALLOWED
    from mynah.recipes.progress import console

    chosen = [pair for pair in PAIRS if not family or pair.called(family)]
    if not chosen:
        known = sorted({pair.family for pair in PAIRS})
        raise LookupError(registry.unknown("family with a reference", family, known))
    title = f"largest relative difference to other implementations, allowed {ALLOWED:.0e}"
    table = Table(title=title, title_justify="left")
    for column in ("family", "reference", "setting", "features", "loss", ""):
        table.add_column(column, overflow="fold")
    failed = counted = 0
    for row in rows(chosen):
        failed += row[-1].startswith("FAIL")
        counted += row[-1] != "not installed"
        colour = {"PASS": "green", "FAIL": "bold red"}.get(row[-1][:4], "yellow")
        table.add_row(*row[:-1], f"[{colour}]" + row[-1].replace("[", "\\[") + "[/]")
    console.print(table, soft_wrap=False)
    console.print(f"{counted - failed} equal, {failed} too far")
    return 1 if failed else 0


def rows(pairs: Iterable[Pair]) -> Iterator[tuple[str, ...]]:
    """Yield the row of each pair: family, reference, setting, features, loss, verdict."""
    for pair in pairs:
        head = pair.family, pair.reference, pair.setting
        if not pair.installed:
            yield *head, "-", "-", "not installed"
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                measured = pair.measure(Path(folder))
            except BROKEN as error:
                yield *head, "-", "-", f"FAIL {type(error).__name__}: {error}"
                continue
        loss = "-" if measured.loss is None else f"{measured.loss:.1e}"
        yield *head, f"{measured.features:.1e}", loss, "PASS" if measured.equal else "FAIL"


def metrics(args: Args) -> int:
    """Print how far each metric is from its references; 1 if one is too far.

    Raises:
        ValueError: fewer cases than one.
        LookupError: a metric without a reference.
    """
    from mynah import registry
    from mynah.files import write_text
    from mynah.recipes.parity import metric_cases, metric_pair
    from mynah.recipes.progress import console, track

    if args.cases < 1:
        raise ValueError(f"cases must be at least 1, got {args.cases}")
    known = list(dict.fromkeys(pair.name for pair in metric_cases.PAIRS))
    for name in args.names:
        if name not in known:
            raise LookupError(registry.unknown("metric with a reference", name, known))
    chosen = [pair for pair in metric_cases.PAIRS if not args.names or pair.name in args.names]
    done = metric_rows(track(chosen, "comparing"), cases=args.cases, seed=args.seed)
    for line in metric_pair.lines(done, asked=args.cases):
        console.print(line, markup=False)
    near = sum(row.ok for row in done)
    absent = sum(not row.checked for row in done)
    failed = len(done) - near - absent
    console.print(f"\n{metric_pair.NOTE}")
    console.print(f"{near} within their limits, {failed} not, {absent} not checked")
    if args.json is not None:
        record = {"seed": args.seed, "rows": [asdict(row) | {"ok": row.ok} for row in done]}
        write_text(args.json, json.dumps(record, indent=1) + "\n")
    return 1 if failed or (args.strict and absent) else 0


def metric_rows(pairs: Iterable[MetricPair], *, cases: int, seed: int) -> Sequence[Row]:
    """Return the row of each pair; a reference that is not installed or raises has a row, too."""
    from mynah.recipes.parity.metric_pair import MISSING, Row, measure

    done = []
    for pair in pairs:
        error = f"{MISSING}: {', '.join(pair.missing)}" if pair.missing else ""
        if not error:
            try:
                done.append(measure(pair, cases=cases, seed=seed))
                continue
            except BROKEN as raised:
                error = f"{type(raised).__name__}: {raised}"
        done.append(
            Row(metric=pair.metric, reference=pair.reference, allowed=pair.allowed, error=error)
        )
    return done


def protocol(args: Args) -> int:
    """Print how far training and scoring under ``superb`` is from s3prl's; 1 if it is too far.

    Raises:
        LookupError, ValueError, FileNotFoundError: a task without a reference, no such upstream or
            corpus, fewer steps than one, or a learning rate that cannot be.
        BadDataError: the corpus cannot serve a task.
    """
    from mynah import registry
    from mynah.files import write_text
    from mynah.recipes.parity import protocol_table
    from mynah.recipes.parity.protocol import TASKS, Setting
    from mynah.recipes.progress import console

    for name in args.names:
        if name not in TASKS:
            raise LookupError(registry.unknown("task with a reference", name, list(TASKS)))
    setting = Setting(
        corpus=args.corpus,
        upstream=args.upstream,
        steps=args.steps,
        rate=args.lr,
        heads=args.heads,
        precision=args.precision,
        seed=args.seed,
    )
    done = protocol_rows(list(dict.fromkeys(args.names)) or list(TASKS), setting)
    for line in protocol_table.settings(done):
        console.print(f"{args.upstream}, {line}", markup=False)
    console.print()
    for line in protocol_table.lines(done):
        console.print(line, markup=False)
    for note in protocol_table.NOTES:
        console.print(f"\n{note}", markup=False)
    known = sum(row.verdict == "known" for row in done)
    failed = sum(not row.ok for row in done)
    equal = len(done) - known - failed
    console.print(f"\n{equal} equal, {failed} not, {known} with a known difference")
    if args.json is not None:
        record = {
            "upstream": args.upstream,
            "seed": args.seed,
            "rows": [asdict(row) | {"ok": row.ok} for row in done],
        }
        write_text(args.json, json.dumps(record, indent=1) + "\n")
    return 1 if failed else 0


def protocol_rows(names: Iterable[str], setting: Setting) -> list[protocol_table.Row]:
    """Return the rows of each task; one whose heads or reference raise has a row, too.

    Raises:
        As :func:`protocol`, of the data.
    """
    from mynah.recipes.parity.protocol import compare, described, prepared
    from mynah.recipes.parity.protocol_table import Row

    done = []
    for name in names:
        given = prepared(name, setting)
        try:
            done += compare(name, given, seed=setting.seed)
        except BROKEN as raised:
            error, metric = f"{type(raised).__name__}: {raised}", given.task.SPEC.metric
            done.append(Row(task=name, metric=metric, error=error, given=described(given)))
    return done
