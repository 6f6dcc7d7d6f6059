"""Splits that share nothing they must not share: taken from the corpus or made, always checked."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from mynah.tasks.core.contract import DataError, Split
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.bootstrap import MIN_UNITS

Unit = Callable[[Utterance], str]
Parts = dict[str, list[Utterance]]
Classes = Callable[[Utterance], str | Iterable[str]]
"""What an utterance shows that train should have: its class, or several."""

PARTS = ("train", "dev", "test")
DEV_SHARE, TEST_SHARE = 0.15, 0.2
TRIES = 50


def part_of(name: str | None) -> str | None:
    """Return ``train``, ``dev`` or ``test`` for a split's name, None for any other name.

    ``train-clean-100`` is train, ``valid`` and ``validation`` are dev, ``eval`` is test.
    """
    text = (name or "").lower()
    for part, starts in (
        ("train", ("train",)),
        ("dev", ("dev", "val")),
        ("test", ("test", "eval")),
    ):
        if text.startswith(starts):
            return part
    return None


def first_few(items: Iterable[str], count: int = 5) -> str:
    """Return the first few names and how many there are: ``a, b, c (12 in all)``."""
    names = list(items)
    shown = ", ".join(names[:count])
    return f"{shown} ({len(names)} in all)" if len(names) > count else shown


def labelled(
    utterances: Sequence[Utterance],
    label: Callable[[Utterance], str | None],
    *,
    task: str,
    name: str,
) -> list[Utterance]:
    """Return the utterances that a task is about.

    In a corpus of several subsets (a label ``subset``) those are the subsets in which any utterance
    carries the label; elsewhere they are all of them. Every one of them must carry it.

    Raises:
        DataError: no utterance carries the label, or some do and others do not.
    """
    subsets = {u.label("subset") for u in utterances if label(u)}
    if not subsets:
        raise DataError(
            f"{task} needs the label {name}, and none of the {len(utterances)} utterances has it"
        )
    kept = [u for u in utterances if u.label("subset") in subsets]
    missing = [u.id for u in kept if not label(u)]
    if missing:
        raise DataError(
            f"{task} needs the label {name} on every utterance; without it: {first_few(missing)}"
        )
    return kept


def speaker_unit(utterances: Sequence[Utterance]) -> tuple[Unit, str]:
    """Return the speaker as split unit where every utterance has one, else the utterance itself."""
    if all(u.speaker for u in utterances):
        return (lambda u: str(u.speaker)), "speaker"
    return (lambda u: u.id), "utterance"


def order(names: Iterable[str], salt: str) -> list[str]:
    """Return distinct names in an order that depends on nothing but themselves and the salt."""
    return sorted(
        set(names), key=lambda name: (hashlib.sha256(f"{salt}|{name}".encode()).digest(), name)
    )


def carve(
    utterances: Sequence[Utterance], unit: Unit, share: float, salt: str, *, least: int = 1
) -> tuple[list[Utterance], list[Utterance]]:
    """Return (rest, part): whole units in hash order, until the part has its share of utterances.

    The part has at least ``least`` units and the rest keeps at least one.
    """
    sizes: dict[str, int] = defaultdict(int)
    for u in utterances:
        sizes[unit(u)] += 1
    chosen: set[str] = set()
    taken = 0
    for name in order(sizes, salt)[: len(sizes) - 1]:
        if len(chosen) >= least and taken + sizes[name] / 2 > share * len(utterances):
            break
        chosen.add(name)
        taken += sizes[name]
    rest = [u for u in utterances if unit(u) not in chosen]
    return rest, [u for u in utterances if unit(u) in chosen]


def given(utterances: Sequence[Utterance], label: str = "split") -> Parts | None:
    """Return the corpus's own parts, None where it names none or has no train or test.

    Raises:
        DataError: some utterances are in a named part and others in none.
    """
    parts: Parts = {part: [] for part in PARTS}
    lost = []
    for u in utterances:
        part = part_of(u.label(label))
        if part is None:
            lost.append(f"{u.id} ({label} {u.label(label)!r})")
        else:
            parts[part].append(u)
    if not parts["train"] or not parts["test"]:
        return None
    if lost:
        raise DataError(
            f"the corpus names train and test but these utterances are in no part: "
            f"{first_few(lost)}; part names start with train, dev, valid, test or eval"
        )
    return parts


def make(
    utterances: Sequence[Utterance],
    unit: Unit,
    *,
    unit_name: str,
    seed: int,
    classes: Classes | None = None,
) -> Parts:
    """Make train, dev and test that share no unit: about 65, 15 and 20 % of the utterances.

    Test gets five units where that is at most a quarter of them: fewer give no interval by unit.

    Args:
        utterances: all of them.
        unit: what must not be shared.
        unit_name: what it is called, for messages.
        seed: of the order of units.
        classes: where given, of 50 orders the first is taken in which train has every class, else
            the first in which it has most.

    Raises:
        DataError: fewer than three units.
    """
    count = len({unit(u) for u in utterances})
    if count < len(PARTS):
        raise DataError(
            f"train, dev and test must not share a {unit_name}, and there are only {count}: "
            "give splits in the corpus, or more data"
        )
    least = max(1, min(MIN_UNITS, count // 4))
    everything = _shown(utterances, classes)
    best: Parts = {}
    shown = -1
    for attempt in range(TRIES):
        salt = f"{seed}-{attempt}"
        rest, test = carve(utterances, unit, TEST_SHARE, f"test-{salt}", least=least)
        train, dev = carve(rest, unit, DEV_SHARE / (1 - TEST_SHARE), f"dev-{salt}")
        if (found := len(_shown(train, classes))) > shown:
            best, shown = {"train": train, "dev": dev, "test": test}, found
        if shown == len(everything):
            break
    return best


def _shown(utterances: Sequence[Utterance], classes: Classes | None) -> set[str]:
    """Return the classes that utterances show, none where nobody asks."""
    if classes is None:
        return set()
    told = (classes(u) for u in utterances)
    return {name for own in told for name in ([own] if isinstance(own, str) else own)}


def given_or_made(
    utterances: Sequence[Utterance],
    unit: Unit,
    *,
    unit_name: str,
    seed: int,
    take_given: bool,
    classes: Classes | None = None,
) -> tuple[Parts, str]:
    """Return the corpus's parts (dev carved out of train where it has none), or made ones.

    Returns:
        the parts, and a sentence that says where they come from.
    """
    parts = given(utterances) if take_given else None
    if parts is None:
        made = make(utterances, unit, unit_name=unit_name, seed=seed, classes=classes)
        return made, f"splits were made here, disjoint by {unit_name}"
    if parts["dev"]:
        return parts, "splits are the corpus's own"
    if len({unit(u) for u in parts["train"]}) < 2:
        raise DataError(
            f"the corpus has no dev part and its train part has only one {unit_name} to carve "
            "it from: name a dev part, or let the splits be made"
        )
    for attempt in range(TRIES):
        train, dev = carve(parts["train"], unit, DEV_SHARE, f"dev-{seed}-{attempt}")
        if _shown(dev, classes) <= _shown(train, classes):
            break
    carved: Parts = {"train": train, "dev": dev, "test": parts["test"]}
    return carved, f"test is the corpus's own, dev was carved out of its train by {unit_name}"


def check_disjoint(
    parts: Parts, unit: Unit, *, unit_name: str, exempt: Callable[[Utterance], bool] | None = None
) -> None:
    """Refuse parts that are empty, share an utterance id, or share a unit.

    Args:
        parts: by name.
        unit: what must not be shared.
        unit_name: what it is called.
        exempt: utterances that a protocol lets be shared.

    Raises:
        DataError: as above, naming the first offenders.
    """
    for name, utterances in parts.items():
        if not utterances:
            raise DataError(f"the {name} part is empty")
    names = list(parts)
    units = {
        name: {unit(u) for u in utterances if exempt is None or not exempt(u)}
        for name, utterances in parts.items()
    }
    ids = {name: {u.id for u in utterances} for name, utterances in parts.items()}
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            for what, sets in (("utterance", ids), (unit_name, units)):
                shared = sorted(sets[a] & sets[b])
                if shared:
                    raise DataError(
                        f"{a} and {b} share {what} {first_few(shared)}; they must not: mend the "
                        "corpus's splits, or let disjoint ones be made (--splits made)"
                    )


def check_classes(parts: Parts, label: Callable[[Utterance], str]) -> tuple[str, ...]:
    """Return the classes of train, sorted.

    Raises:
        DataError: train has fewer than two, or dev or test has one that train has not.
    """
    classes = {label(u) for u in parts["train"]}
    if len(classes) < 2:
        raise DataError(f"train has only one class: {first_few(sorted(classes))}")
    for name in ("dev", "test"):
        strange = [f"{label(u)} of {u.id}" for u in parts[name] if label(u) not in classes]
        if strange:
            raise DataError(f"{name} has classes that train has not: {first_few(strange)}")
    return tuple(sorted(classes))


def as_splits(parts: Parts) -> tuple[Split, Split, Split]:
    """Return (train, dev, test), each in the order of utterance ids."""
    train, dev, test = (
        Split(name=name, utterances=tuple(sorted(parts[name], key=lambda u: u.id)))
        for name in PARTS
    )
    return train, dev, test
