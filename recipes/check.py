"""``mynah check upstream SPEC``: hold anybody's upstream against the contract, clause by clause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class Args:
    """Hold an upstream against the contract; exit status 1 if a clause fails."""

    what: Annotated[Literal["upstream"], Positional]
    """What kind of thing to check."""
    spec: Annotated[str, Positional]
    """The upstream: ``apc/tiny``, a run folder, ``hf:DIR``, ``python:FILE.py:CLASS`` ..."""
    seed: int = 0
    """Of random weights and of the test signals."""


def main(args: Args) -> int:
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
