"""Tasks: what is asked. One file per task of SUPERB and SUPERB-SG.

``tasks/ks.py`` *is* the task ``ks``; a task's file defines ``SPEC`` and ``TASK``, its
:class:`~mynah.tasks.core.contract.Task` class. Corpora are in ``corpora``, metrics in ``metrics``.
"""

if __name__ != "mynah.tasks":
    raise ImportError(
        f"this folder is the package mynah.tasks and was imported as {__name__!r}: "
        "install the project (pip install -e .) and write 'import mynah.tasks'"
    )

from types import ModuleType

from mynah import registry


def available() -> list[str]:
    """Return every name, without importing any of the files."""
    return registry.names(__name__)


def get(name: str) -> ModuleType:
    """Import and return the module of one task.

    Raises:
        LookupError: no such name; the message lists the closest names and all of them.
    """
    return registry.module(__name__, "task", name)
