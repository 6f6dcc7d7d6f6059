"""A folder is a registry: the files in it are its names.

Used by ``mynah.upstream``, ``mynah.downstream`` and ``mynah.tasks``; imports nothing heavy.
"""

import ast
import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType


def names(package: ModuleType | str) -> list[str]:
    """Return the stems of the plain modules of a package, sorted, importing none of them."""
    if isinstance(package, str):
        package = importlib.import_module(package)
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.ispkg)


def variants(package_path: str | Path, name: str) -> list[str]:
    """Return the keys of ``CONFIGS`` of a file, read as text."""
    source = (Path(package_path) / f"{name}.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        named = [t.id for t in targets if isinstance(t, ast.Name)]
        if named == ["CONFIGS"]:
            value = node.value  # type: ignore[attr-defined]  # both kinds of assignment have it
            if isinstance(value, ast.Dict):
                return [str(k.value) for k in value.keys if isinstance(k, ast.Constant)]
    return []


def closest(given: str, allowed: Iterable[str]) -> list[str]:
    """Return at most three names that resemble what was given, or what of it precedes a slash."""
    allowed = list(allowed)
    for text in (given, given.partition("/")[0]):
        if close := difflib.get_close_matches(text, allowed, n=3, cutoff=0.6):
            return close
    return []


def unknown(noun: str, given: str, allowed: Iterable[str]) -> str:
    """Return the message for an unknown name: what was given, the closest three, all of them."""
    allowed = list(allowed)
    close = closest(given, allowed)
    hint = f" Closest: {', '.join(close)}." if close else ""
    return f"unknown {noun} {given!r}.{hint} Available: {', '.join(allowed)}."


def module(package: str, noun: str, name: str) -> ModuleType:
    """Import one module of a registry package.

    Raises:
        LookupError: no such name; the message lists the closest names and all of them.
    """
    known = names(package)
    if name not in known:
        raise LookupError(unknown(noun, name, known))
    return importlib.import_module(f"{package}.{name}")
