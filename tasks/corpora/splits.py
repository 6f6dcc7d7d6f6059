"""Parts of a corpus: by a label, by who is held out, by proportions between or within units."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mynah.tasks.corpora.utterance import Utterance

SPLITS = ("train", "dev", "test")


def by_label(utterances: Sequence[Utterance], name: str) -> list[Utterance]:
    """Make the values of a label the splits; utterances without it are in none.

    Raises:
        LookupError: no utterance carries it.
    """
    if not any(u.label(name) for u in utterances):
        raise LookupError(f"no utterance carries {name!r}; labels are: {_labels(utterances)}")
    return [replace(u, split=u.label(name)) for u in utterances]


def by_holding_out(
    utterances: Sequence[Utterance],
    test: Mapping[str, Sequence[str]],
    dev: Mapping[str, Sequence[str]],
) -> list[Utterance]:
    """Put utterances with a held-out value into test or dev and the others into train.

    Args:
        utterances: the corpus.
        test: label -> values that are held out for test.
        dev: label -> values that are held out for dev.

    Raises:
        LookupError: no utterance has such a value.
        ValueError: an utterance is held out for both.
    """
    for wanted in (test, dev):
        for name, values in wanted.items():
            known = {u.label(name) for u in utterances} - {None}
            if unknown := sorted(set(values) - known):
                some = ", ".join(sorted(str(k) for k in known)[:20])
                raise LookupError(f"no utterance has {name}={unknown[0]!r}; there are: {some}")

    def held(utterance: Utterance, wanted: Mapping[str, Sequence[str]]) -> bool:
        return any(utterance.label(name) in values for name, values in wanted.items())

    result = []
    for utterance in utterances:
        in_test, in_dev = held(utterance, test), held(utterance, dev)
        if in_test and in_dev:
            raise ValueError(f"utterance {utterance.id!r} is held out for both dev and test")
        split = "test" if in_test else "dev" if in_dev else "train"
        result.append(replace(utterance, split=split))
    return result


def by_proportion(
    utterances: Sequence[Utterance],
    shares: Sequence[float],
    *,
    unit: str = "speaker",
    seed: int = 0,
) -> list[Utterance]:
    """Share a corpus among train, dev and test by seconds, no value of ``unit`` in two of them.

    Units come in an order drawn by the seed; each goes where most seconds are wanting, and the last
    ones go to parts that are still empty.

    Args:
        utterances: the corpus.
        shares: of train, dev and test; a zero leaves a part out.
        unit: the label that parts must not share, or ``utterance``.
        seed: of the draw.

    Raises:
        ValueError: shares that are not three numbers from 0 on, an utterance without the unit, or
            fewer units than parts.
    """
    _check(shares)
    seconds: dict[str, float] = {}
    units = []
    for utterance in utterances:
        value = utterance.id if unit == "utterance" else utterance.label(unit)
        if not value:
            raise ValueError(
                f"utterance {utterance.id!r} has no {unit!r}, by which splits are to be disjoint; "
                f"labels are: {_labels(utterances)} (or --split-unit utterance)"
            )
        units.append(value)
        seconds[value] = seconds.get(value, 0.0) + utterance.duration
    wanted = {
        name: share / sum(shares) for name, share in zip(SPLITS, shares, strict=True) if share
    }
    if len(seconds) < len(wanted):
        raise ValueError(f"{len(seconds)} values of {unit!r} cannot fill {len(wanted)} splits")
    total = sum(seconds.values())
    missing = {name: share * total for name, share in wanted.items()}
    empty = list(wanted)
    place: dict[str, str] = {}
    order = sorted(seconds, key=lambda u: hashlib.sha256(f"{seed}\t{u}".encode()).digest())
    for number, value in enumerate(order):
        choice = empty if len(order) - number <= len(empty) else list(wanted)
        split = max(choice, key=lambda name: missing[name])
        place[value] = split
        missing[split] -= seconds[value]
        if split in empty:
            empty.remove(split)
    return [replace(u, split=place[v]) for u, v in zip(utterances, units, strict=True)]


def by_order(
    utterances: Sequence[Utterance], shares: Sequence[float], *, label: str = "speaker"
) -> list[Utterance]:
    """Share what each value of a label has among train, dev and test, in the corpus' order.

    So every speaker who is to be told apart is in every part, and parts of one recording that
    follow one another stay together. By number of utterances; every part gets one at least, train
    first where there are fewer utterances than parts.

    Args:
        utterances: the corpus.
        shares: of train, dev and test; a zero leaves a part out.
        label: whose values are shared out.

    Raises:
        ValueError: shares that are not three numbers from 0 on, or an utterance without the label.
    """
    _check(shares)
    wanted = [(name, share) for name, share in zip(SPLITS, shares, strict=True) if share]
    members: dict[str, list[int]] = {}
    for place, utterance in enumerate(utterances):
        value = utterance.label(label)
        if not value:
            raise ValueError(
                f"utterance {utterance.id!r} has no {label!r}, within which the corpus is to be "
                f"split; labels are: {_labels(utterances)}"
            )
        members.setdefault(value, []).append(place)
    split: dict[int, str] = {}
    for places in members.values():
        first, before = 0, 0.0
        for number, (name, share) in enumerate(wanted):
            before += share / sum(shares)
            left = len(wanted) - number - 1  # parts that want one each
            last = max(first + 1, min(round(before * len(places)), len(places) - left))
            split |= dict.fromkeys(places[first:last], name)
            first = last
    return [replace(u, split=split[place]) for place, u in enumerate(utterances)]


def _check(shares: Sequence[float]) -> None:
    if len(shares) != len(SPLITS) or not all(s >= 0 for s in shares) or not sum(shares) > 0:
        raise ValueError(f"shares of train, dev, test are wanted, as 0.8,0.1,0.1; got {shares}")


def _labels(utterances: Sequence[Utterance]) -> str:
    names = {name for u in utterances for name in u.labels}
    names |= {n for n in ("speaker", "text", "split") if any(u.label(n) for u in utterances)}
    return ", ".join(sorted(names)) or "none"
