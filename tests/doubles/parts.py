"""Both protocols, and who is in the parts that a task makes."""

from mynah.tasks.core.contract import ProtocolName

BOTH: tuple[ProtocolName, ...] = ("superb", "fixed")


def people(parts, name: str = "speaker"):  # type: ignore[no-untyped-def]
    return [{u.label(name) for u in split.utterances} for split in parts]
