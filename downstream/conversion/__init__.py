"""Voice converters: the same words in another voice. One file per method.

``downstream/conversion/adain.py`` *is* the method ``adain``; a method's file defines ``CONVERTER``, a
``Converter`` class (``core/contract.py``), and ``CONFIGS``, name -> config. Converters see features,
never files.
"""

from types import ModuleType

from mynah import registry


def available() -> list[str]:
    """Return every name, without importing any of the files."""
    return registry.names(__name__)


def get(name: str) -> ModuleType:
    """Import and return the module of one voice converter.

    Raises:
        LookupError: no such name; the message lists the closest names and all of them.
    """
    return registry.module(__name__, "voice converter", name)
