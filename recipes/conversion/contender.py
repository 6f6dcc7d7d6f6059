"""A row of ``mynah judge methods``: one converter to any voice, or several to one voice each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mynah.recipes.conversion.engine import Engine
from mynah.recipes.conversion.pairs import Pair
from mynah.tasks.core.splits import first_few

SPEAKER = "speaker"
"""Entry of an engine's identity: the one voice that it speaks in, where it has but one."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What converts the pairs of one row.

    Attributes:
        name: of the row.
        anybody: converter to any voice; None where every voice has its own.
        by_target: target speaker -> converter to that voice.
    """

    name: str
    anybody: Engine | None = None
    by_target: Mapping[str, Engine]

    def engine(self, pair: Pair) -> Engine:
        """Return what converts a pair."""
        return self.anybody or self.by_target[str(pair.target.speaker)]

    @property
    def identity(self) -> dict[str, Any]:
        """What the row was made by; with an entry ``by_target`` where every voice has its own."""
        if self.anybody is not None:
            return dict(self.anybody.identity)
        own = {name: dict(engine.identity) for name, engine in self.by_target.items()}
        first = next(iter(own.values()))
        shared = {key: first[key] for key in ("method", "variant", "upstream")}
        return {**shared, "by_target": own}


def contenders(engines: Mapping[str, Engine], pairs: Sequence[Pair]) -> list[Contender]:
    """Return the rows: converters of one variant to one voice each are one row together.

    Args:
        engines: name on the command line, shortened -> converter.
        pairs: that every row converts.

    Raises:
        ValueError: two converters of one variant to the same voice, or pairs with a target that
            none of a variant speaks as.
    """
    rows: dict[str, dict[str, Engine]] = defaultdict(dict)
    found: dict[str, Contender] = {}
    for name, engine in engines.items():
        speaker = engine.identity.get(SPEAKER)
        if speaker is None:
            found[name] = Contender(name=name, anybody=engine, by_target={})
            continue
        row = str(engine.identity["variant"])
        if speaker in rows[row]:
            raise ValueError(
                f"{name} is the second {row} that speaks as {speaker}: one of each variant and voice"
            )
        rows[row][str(speaker)] = engine
        label = f"{row}, one for each target"
        found[label] = Contender(name=label, by_target=rows[row])
    targets = sorted({str(pair.target.speaker) for pair in pairs})
    for row, own in rows.items():
        without = [name for name in targets if name not in own]
        if without:
            there = " ".join(f"--to {name}" for name in sorted(own))
            raise ValueError(
                f"{row} speaks as {first_few(sorted(own), 8)} only, and pairs have the targets "
                f"{first_few(without, 8)} too: train one for each of them (mynah pretrain "
                f"vc/{row} --speaker NAME), or draw pairs to those alone: {there}"
            )
    return list(found.values())
