"""Vocoders: log-mel spectrograms made audible. One file per vocoder.

``downstream/vocoders/griffin_lim.py`` *is* the vocoder ``griffin_lim``; a vocoder's file defines
``VOCODER``, a ``Vocoder`` class (``core/contract.py``).
"""

from types import ModuleType

from mynah import registry


def available() -> list[str]:
    """Return every name, without importing any of the files."""
    return registry.names(__name__)


def get(name: str) -> ModuleType:
    """Import and return the module of one vocoder.

    Raises:
        LookupError: no such name; the message lists the closest names and all of them.
    """
    return registry.module(__name__, "vocoder", name)
