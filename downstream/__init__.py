"""Downstream: what learns on top of frozen features. One file per head.

``downstream/linear_mean.py`` *is* the head ``linear_mean``; a head's file defines ``HEAD``, an
``nn.Module`` class over (B, T, D) or (B, D). Shared parts (featurizer, sweep) are in ``core``.
"""

if __name__ != "mynah.downstream":
    raise ImportError(
        f"this folder is the package mynah.downstream and was imported as {__name__!r}: "
        "install the project (pip install -e .) and write 'import mynah.downstream'"
    )

from types import ModuleType

from mynah import registry


def available() -> list[str]:
    """Return every name, without importing any of the files."""
    return registry.names(__name__)


def get(name: str) -> ModuleType:
    """Import and return the module of one head.

    Raises:
        LookupError: no such name; the message lists the closest names and all of them.
    """
    return registry.module(__name__, "head", name)
