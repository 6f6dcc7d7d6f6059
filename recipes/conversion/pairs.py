"""Which recordings are converted to whose voice, where speakers say the same sentences.

The target's own recording of the source's sentence is what a conversion is compared with; what the
converter hears of the target are other sentences. So a corpus is asked for in which speakers say
several sentences each, and share some. ``free_pairs`` draws from corpora where they do not.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mynah.recipes.conversion.checks import LEAST_REFERENCE, SHORTEST
from mynah.tasks.core.splits import first_few
from mynah.tasks.corpora.utterance import Utterance

HEARD = 0.3
"""Seconds of a recording that a judge knows a speaker by: less holds hardly a voiced frame."""
ENOUGH = 3 * LEAST_REFERENCE
"""Seconds of references, with the silence at their ends, below which more are taken than asked for."""
GENDER = "gender"

Genders = Literal["within", "across"]
Mix = Callable[[int], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One conversion that is to be made.

    Attributes:
        id: unique.
        source: what is said, and by whom at first.
        target: the same sentence by the speaker whose voice is wanted; another utterance of that
            speaker where pairs are not parallel. No converter hears it.
        references: other sentences of that speaker, with the same labels where some must be shared.
        own: likewise of the source speaker, for methods that measure that one as well.
        again: another recording of the sentence by the target, None where there is none.
        genders: whether both speakers are labelled with one gender; None where one is not labelled.
        parallel: whether source and target say the same sentence.
    """

    id: str
    source: Utterance
    target: Utterance
    references: tuple[Utterance, ...]
    own: tuple[Utterance, ...]
    again: Utterance | None
    genders: Genders | None
    parallel: bool = True


def draw(
    utterances: Sequence[Utterance],
    *,
    sentence: str,
    same: Sequence[str] = (),
    to: Sequence[str] = (),
    pairs: int = 40,
    targets: int = 8,
    own: int = 0,
    seed: int = 0,
) -> list[Pair]:
    """Return conversions between speakers, every two of them as often as any others if that can be.

    Where speakers have a gender, pairs within one and across take turns as long as there are both.

    Args:
        utterances: to draw from.
        sentence: label that tells sentences apart.
        same: labels that source, target and references must share beside, such as emotion.
        to: target speakers; none for everybody.
        pairs: conversions at most.
        targets: references of each; more where so many hold less than ``ENOUGH`` seconds.
        own: other recordings of the source speaker at most.
        seed: of the drawing.

    Raises:
        ValueError: fewer than one pair or reference asked for; utterances without the label, one
            speaker only, a target that is none of them, or speakers who do not share a sentence and
            say others beside.
    """
    check_counts(pairs, targets, own)
    usable = sorted((u for u in utterances if u.speaker and u.label(sentence)), key=lambda u: u.id)
    _check(utterances, usable, sentence)
    check_targets(usable, to)
    said: dict[tuple[str, ...], dict[str, list[Utterance]]] = defaultdict(lambda: defaultdict(list))
    by_speaker: dict[str, list[Utterance]] = defaultdict(list)
    for u in usable:
        by_speaker[str(u.speaker)].append(u)
        said[tuple(str(u.label(name)) for name in (sentence, *same))][str(u.speaker)].append(u)
    mix = np.random.default_rng(seed).permutation
    found: dict[tuple[str, str], list[list[Pair]]] = defaultdict(list)
    for key in sorted(said):
        for source, target in itertools.permutations(sorted(said[key]), 2):
            if to and target not in to:
                continue
            takes = [
                [u for u in said[key][name] if u.duration >= SHORTEST] for name in (source, target)
            ]
            if not all(takes):
                continue
            sources, parallel = ([one[int(i)] for i in mix(len(one))] for one in takes)
            other = [
                [u for u in by_speaker[name] if _other(u, sentence, same, key)]
                for name in (target, source)
            ]
            if not other[0]:
                continue
            found[source, target].append(
                [
                    Pair(
                        id=f"{one.id}-to-{wanted.id}",
                        source=one,
                        target=wanted,
                        references=_some(other[0], targets, ENOUGH, mix),
                        own=_some(other[1], own, 0.0, mix),
                        again=parallel[(take + 1) % len(parallel)] if len(parallel) > 1 else None,
                        genders=genders_of(one, wanted),
                    )
                    for take, (one, wanted) in enumerate(zip(sources, parallel, strict=False))
                ]
            )
    if not found:
        shared = f"{sentence!r} and {' and '.join(map(repr, same))}" if same else repr(sentence)
        raise ValueError(
            f"no two speakers share a {shared} and say others beside: {len(usable)} utterances of "
            f"{len(by_speaker)} speakers, {len(said)} different ones; name another label with "
            "--sentence or other splits, or leave --sentence out: pairs are then drawn without"
        )
    return _evenly(found, pairs, mix)


def check_counts(pairs: int, targets: int, own: int) -> None:
    """Refuse numbers of which no pair can be drawn.

    Raises:
        ValueError: fewer than one pair or reference, or less than no recording of the source's.
    """
    if pairs < 1 or targets < 1 or own < 0:
        raise ValueError(
            f"pairs and targets must be at least 1 and own 0, got {pairs}, {targets} and {own}"
        )


def check_speakers(usable: Sequence[Utterance]) -> None:
    """Refuse utterances of a single speaker.

    Raises:
        ValueError: they are.
    """
    if len({u.speaker for u in usable}) < 2:
        raise ValueError(
            f"one speaker only, {usable[0].speaker}: a conversion goes from one to another; take "
            "more splits (--split, repeatable, or all) or another corpus"
        )


def check_targets(usable: Sequence[Utterance], to: Sequence[str]) -> None:
    """Refuse target speakers of whom there is nothing.

    Raises:
        ValueError: there are such.
    """
    there = sorted({str(u.speaker) for u in usable})
    absent = [name for name in to if name not in there]
    if absent:
        raise ValueError(
            f"--to {' --to '.join(absent)}: no such speaker in these utterances; there are "
            f"{first_few(there, 12)}"
        )


def _check(utterances: Sequence[Utterance], usable: Sequence[Utterance], sentence: str) -> None:
    """Refuse what cannot give a pair.

    Raises:
        ValueError: see :func:`draw`.
    """
    if not usable:
        raise ValueError(
            f"none of {len(utterances)} utterances has both a speaker and the label {sentence!r}: "
            "say with --sentence which label tells sentences apart, or leave it out where speakers "
            "do not say the same ones"
        )
    check_speakers(usable)


def witnesses(
    utterances: Sequence[Utterance], pairs: Sequence[Pair], *, count: int = 6, seed: int = 0
) -> list[Utterance]:
    """Return recordings by which the speakers of pairs are known to a judge.

    Args:
        utterances: that the pairs were drawn from.
        pairs: of :func:`draw`.
        count: recordings of each speaker at most; those that no converter hears come first.
        seed: of the drawing.
    """
    heard = {u.id for p in pairs for u in (p.source, *p.references, *p.own)}
    speakers = sorted({str(u.speaker) for p in pairs for u in (p.source, p.target)})
    generator = np.random.default_rng(seed)
    found: list[Utterance] = []
    for speaker in speakers:
        own = sorted(
            (u for u in utterances if u.speaker == speaker and u.duration >= HEARD),
            key=lambda u: u.id,
        )
        mixed = [own[int(i)] for i in generator.permutation(len(own))]
        found += sorted(mixed, key=lambda u: u.id in heard)[:count]
    return found


def _other(u: Utterance, sentence: str, same: Sequence[str], key: Sequence[str]) -> bool:
    """Return whether an utterance is another sentence under the same labels."""
    return u.label(sentence) != key[0] and all(
        str(u.label(name)) == value for name, value in zip(same, key[1:], strict=True)
    )


def genders_of(source: Utterance, target: Utterance) -> Genders | None:
    """Return whether two speakers are labelled with one gender, None where one is not labelled."""
    a, b = source.label(GENDER), target.label(GENDER)
    if not a or not b:
        return None
    return "within" if a == b else "across"


def _some(
    others: Sequence[Utterance], count: int, seconds: float, mix: Mix
) -> tuple[Utterance, ...]:
    """Return so many of the recordings, more where they are too short together."""
    chosen: list[Utterance] = []
    for index in mix(len(others)):
        if len(chosen) >= count and sum(u.duration for u in chosen) >= seconds:
            break
        chosen.append(others[int(index)])
    return tuple(chosen)


def _evenly(
    found: Mapping[tuple[str, str], Sequence[Sequence[Pair]]], count: int, mix: Mix
) -> list[Pair]:
    """Return up to ``count`` pairs: one of each two speakers before the second of any, in turns.

    Args:
        found: source and target speaker -> of each sentence, a pair per take.
        count: see above.
        mix: draws an order.
    """
    keys = sorted(found)
    lists = []
    for k in mix(len(keys)):
        sentences = found[keys[int(k)]]
        mixed = [sentences[int(i)] for i in mix(len(sentences))]
        rounds = itertools.zip_longest(*mixed)  # every sentence before the second take of any
        lists.append([pair for one in rounds for pair in one if pair is not None])
    queues: dict[str, list[Pair]] = defaultdict(list)
    for turn in itertools.zip_longest(*lists):
        for pair in turn:
            if pair is not None:
                queues[pair.genders or ""].append(pair)
    both = itertools.zip_longest(*(queues[name] for name in sorted(queues)))
    return [pair for turn in both for pair in turn if pair is not None][:count]
