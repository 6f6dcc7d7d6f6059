"""``mynah judge methods``: a command line, and what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mynah.tasks.corpora.corpus import Corpus


def words(corpus: Corpus, out: Path, *methods: str, **options: object) -> list[str]:
    found = ["judge", "methods", *methods, "--corpus", str(corpus.folder), "--out", str(out)]
    for name, value in options.items():
        found += [f"--{name}", str(value)]
    return found


def row(page: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (one for one in page["rows"] if one["method"] == name)
    return found


def value(page: dict[str, Any], name: str, metric: str) -> float:
    return float(row(page, name)["metrics"][metric]["value"])
