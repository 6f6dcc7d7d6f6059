"""``mynah prepare`` of an official corpus: which kind of it, its published sizes, its trials."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mynah.recipes.errors import BadDataError
from mynah.tasks.corpora import official

if TYPE_CHECKING:
    from mynah.tasks.corpora.official.core.found import Found
    from mynah.tasks.corpora.official.core.published import Comparison
    from mynah.tasks.corpora.official.core.trials import Trial
    from mynah.tasks.corpora.rows import Problems
    from mynah.tasks.corpora.utterance import Utterance


SHOWN = 8
"""Sizes that a warning names."""


@dataclass(frozen=True, kw_only=True)
class Review:
    """What came of holding an official corpus against what is published of it.

    Attributes:
        comparisons: of every published number.
        trials: those whose utterances can all be used.
        left_out: what the protocol leaves out and why -> how many.
    """

    comparisons: Sequence[Comparison] = ()
    trials: Sequence[Trial] = ()
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def extra(self) -> dict[str, Any]:
        """Return the facts for the corpus' page."""
        facts: dict[str, Any] = {"left_out": self.left_out}
        if self.comparisons:
            facts["published"] = {
                str(c.size): {
                    "got": c.got,
                    "published": c.size.count,
                    **({"recalled": True} if c.size.recalled else {}),
                }
                for c in self.comparisons
            }
        if self.trials:
            from mynah.tasks.corpora.official.core.trials import TRIALS, dump

            facts["trials"] = {
                "file": TRIALS,
                "count": len(self.trials),
                "sha256": hashlib.sha256(dump(self.trials)).hexdigest(),
            }
        return facts


def choose(name: str, variant: str | None) -> str:
    """Return the kind of a corpus that is meant, empty where there is one only.

    Raises:
        ValueError: it must be said, it is unknown, or there is nothing to choose.
    """
    importer = official.get(name)
    kinds: tuple[str, ...] = importer.VARIANTS
    if not kinds:
        if variant is not None:
            raise ValueError(f"{name} has one kind only: leave out --variant")
        return ""
    if variant is None and importer.DEFAULT is None:
        raise ValueError(f"{name} has several kinds; say which: --variant {' | '.join(kinds)}")
    chosen = str(importer.DEFAULT if variant is None else variant)
    if chosen not in kinds:
        raise ValueError(f"{name} has no variant {chosen!r}; it has: {', '.join(kinds)}")
    return chosen


def title(name: str, variant: str) -> str:
    """Return the corpus' name in tables: with its kind, unless that is the usual one."""
    importer = official.get(name)
    return name if not variant or variant == importer.DEFAULT else f"{name}-{variant}"


def settle(name: str, utterances: Sequence[Utterance], problems: Problems) -> list[Utterance]:
    """Return the utterances as they are without those whose audio turned out to be unusable.

    Args:
        name: of the corpus; its importer may have a ``settle(utterances, problems)`` of its own, where
            utterances name each other.
        utterances: those that can be used.
        problems: receives warnings.
    """
    own = getattr(official.get(name), "settle", None)
    return list(utterances if own is None else own(utterances, problems))


def review(
    name: str,
    variant: str,
    found: Found,
    utterances: Sequence[Utterance],
    problems: Problems,
    *,
    published: bool,
) -> Review:
    """Hold a corpus against its published sizes, and its trials against its utterances.

    Notes as warnings which numbers differ, and how many trials are lost with their utterances.

    Args:
        name: of the corpus.
        variant: its kind.
        found: what its importer found.
        utterances: those that can be used.
        problems: receives the warnings.
        published: whether to compare sizes.
    """
    from mynah.tasks.corpora.official.core.published import compare
    from mynah.tasks.corpora.official.core.trials import complete

    trials = complete(found.trials, {u.id for u in utterances})
    if lost := len(found.trials) - len(trials):
        problems.warn(name, f"{lost} of {len(found.trials)} trials lack an utterance: left out")
    sizes = official.get(name).PUBLISHED.get(variant, ()) if published else ()
    comparisons = compare(sizes, utterances, len(trials))
    if differing := [c for c in comparisons if not c.agrees]:
        problems.warn(
            name,
            f"{len(differing)} of {len(comparisons)} sizes are not the published ones: "
            + "; ".join(map(str, differing[:SHOWN]))
            + (f"; and {more} more (corpus.json)" if (more := len(differing) - SHOWN) > 0 else ""),
        )
    return Review(comparisons=comparisons, trials=trials, left_out=dict(found.left_out))


def insist(name: str, checked: Review) -> None:
    """Refuse a corpus that is not the published one (``--strict``); recalled sizes do not count.

    Raises:
        ValueError: nothing is published of it.
        BadDataError: a size differs.
    """
    firm = [c for c in checked.comparisons if not c.size.recalled]
    if not firm:
        raise ValueError(f"--strict: there are no published sizes to hold {name} against")
    if differing := [c for c in firm if not c.agrees]:
        raise BadDataError(
            f"{name} is not the published corpus (--strict): " + "; ".join(map(str, differing))
        )


def lines(extra: dict[str, Any]) -> list[str]:
    """Return what a corpus' page says of its official side, for people."""
    shown = []
    if published := extra.get("published"):
        agree = sum(row["got"] == row["published"] for row in published.values())
        shown.append(f"  published sizes: {agree} of {len(published)} agree")
    if trials := extra.get("trials"):
        shown.append(f"  trials: {trials['count']} in {trials['file']}")
    shown += [f"  left out: {count} ({why})" for why, count in extra.get("left_out", {}).items()]
    return shown


def write_trials(folder: str | Path, trials: Sequence[Trial]) -> None:
    """Write ``trials.tsv`` beside the manifests, where there are trials."""
    if not trials:
        return
    from mynah.files import write_bytes
    from mynah.tasks.corpora.official.core.trials import TRIALS, dump

    write_bytes(Path(folder) / TRIALS, dump(trials))
