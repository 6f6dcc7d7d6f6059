"""A folder is a registry: the files in it are its names.

Used by ``mynah.upstream``, ``mynah.downstream`` and ``mynah.tasks``; imports nothing heavy.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType


def names(package: ModuleType | str) -> list[str]:
    """Return the stems of the plain modules of a package, sorted, importing none of them."""
    if isinstance(package, str):
        package = importlib.import_module(package)
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.ispkg)


def unknown(noun: str, given: str, allowed: Iterable[str]) -> str:
    """Return the message for an unknown name: what was given, the closest three, all of them."""
    allowed = list(allowed)
    close = difflib.get_close_matches(given, allowed, n=3, cutoff=0.4)
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
