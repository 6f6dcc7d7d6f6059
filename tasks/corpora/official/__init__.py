"""Official corpora: the data of SUPERB and SUPERB-SG, read as they are unpacked.

One file per corpus, the file's name is the corpus' name: ``mynah prepare librispeech SOURCE OUT``.
Each file defines ``ORIGIN`` (what to get and from where), ``VARIANTS`` (of which ``--variant``
chooses one; empty where there is one kind only, else ``DEFAULT`` is the usual one, or None where it
must be said), ``PUBLISHED`` (variant -> the published sizes) and ``read``, which collects rows and
notes problems; ``SOUNDS = True`` where a protocol cuts silences out (``tasks.corpora.hearing``).
Modules named ``*_text`` hold the text rules of a corpus and are no corpora. Importing this package imports nothing heavy.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from mynah import registry


def available() -> list[str]:
    """Return every corpus' name, without importing any of the files."""
    return [name for name in registry.names(__name__) if not name.endswith("_text")]


def get(name: str) -> ModuleType:
    """Import and return the importer of one corpus.

    Raises:
        LookupError: no such corpus; the message lists the closest names and all of them.
    """
    known = available()
    if name not in known:
        raise LookupError(registry.unknown("corpus", name, known))
    return importlib.import_module(f"{__name__}.{name}")
