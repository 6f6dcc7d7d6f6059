"""``mynah list``: what there is."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

Kind = Literal["all", "upstreams", "tasks", "heads", "converters", "vocoders"]
WITH_VARIANTS = ("upstreams", "converters", "vocoders")


@dataclass(frozen=True, kw_only=True)
class Args:
    """List upstreams, tasks, heads, voice converters and vocoders, without importing any of them."""

    what: Annotated[Kind, Positional] = "all"
    """Which of them."""
    markdown: bool = False
    """As a Markdown table, as in the README."""


def first_line(package_path: str, name: str) -> str:
    """Return the first line of a file's docstring, read as text."""
    source = (Path(package_path) / f"{name}.py").read_text(encoding="utf-8")
    doc = ast.get_docstring(ast.parse(source)) or ""
    return doc.partition("\n")[0].removeprefix(f"``{name}``: ").rstrip(".")


def rows(kind: Kind) -> list[tuple[str, str, str]]:
    """Return (kind, name, summary) of everything of a kind."""
    from mynah import downstream, registry, tasks, upstream
    from mynah.downstream import conversion, vocoders

    found: list[tuple[str, str, str]] = []
    packages = {
        "upstreams": upstream,
        "tasks": tasks,
        "heads": downstream,
        "converters": conversion,
        "vocoders": vocoders,
    }
    for label, package in packages.items():
        if kind not in ("all", label):
            continue
        folder = package.__path__[0]
        for name in package.available():
            summary = first_line(folder, name)
            shown = registry.variants(folder, name) if label in WITH_VARIANTS else []
            if shown and shown != [name]:
                summary += f" ({', '.join(shown)})"
            found.append((label[:-1], name, summary))
    return found


def main(args: Args) -> int:
    """Print the list."""
    found = rows(args.what)
    if args.markdown:
        print("| kind | name | what |\n|---|---|---|")  # noqa: T201
        for kind, name, summary in found:
            print(f"| {kind} | `{name}` | {summary} |")  # noqa: T201
        return 0
    from rich.table import Table

    from mynah.recipes.progress import console

    table = Table("kind", "name", "what")
    for row in found:
        table.add_row(*row)
    console.print(table)
    return 0
