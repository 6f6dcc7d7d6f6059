"""Which recordings are converted to whose voice, where speakers do not say the same sentences.

Each speaker's recordings are told apart once, for all pairs: what converters hear of that voice, and
the rest, which is converted, or stands beside conversions as real speech of the target. So there are
recordings left that no converter has heard, by which judges know the speaker.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mynah.recipes.conversion.checks import LEAST_REFERENCE, SHORTEST
from mynah.recipes.conversion.pairs import (
    ENOUGH,
    Mix,
    Pair,
    check_counts,
    check_speakers,
    check_targets,
    genders_of,
)
from mynah.tasks.core.splits import first_few
from mynah.tasks.corpora.utterance import Utterance

TRIED = 3
"""Recordings of each speaker on which judges are tried themselves: 3 trials of one voice."""

Values = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Voice:
    """Recordings of one speaker, under the same labels where some must be shared.

    Attributes:
        heard: what converters hear; empty where that would be less than a second.
        rest: all others, one at least.
    """

    heard: tuple[Utterance, ...]
    rest: tuple[Utterance, ...]


def draw_free(
    utterances: Sequence[Utterance],
    *,
    same: Sequence[str] = (),
    to: Sequence[str] = (),
    pairs: int = 40,
    targets: int = 8,
    own: int = 0,
    seed: int = 0,
) -> list[Pair]:
    """Return conversions between speakers: one of every two before the second of any.

    Speakers take turns as source and as target. Where they have a gender, pairs within one and across
    take turns as long as there are both. What the target is known by never says the source's text,
    where that is known.

    Args:
        utterances: to draw from.
        same: labels that source, target and references must share, such as emotion.
        to: target speakers; none for everybody.
        pairs: conversions at most.
        targets: references of each; half of the target's recordings at most, and more where these
            hold less than ``ENOUGH`` seconds.
        own: other recordings of the source speaker at most.
        seed: of the drawing.

    Raises:
        ValueError: fewer than one pair or reference asked for; utterances without a speaker or a
            label of ``same``, one speaker only, a target that is none of them, or none of whom there
            is enough.
    """
    check_counts(pairs, targets, own)
    usable = _usable(utterances, same)
    check_targets(usable, to)
    mix = np.random.default_rng(seed).permutation
    voices: dict[str, dict[Values, Voice]] = defaultdict(dict)
    grouped: dict[tuple[str, Values], list[Utterance]] = defaultdict(list)
    for u in usable:
        grouped[str(u.speaker), tuple(str(u.label(name)) for name in same)].append(u)
    for speaker, values in sorted(grouped):
        voices[speaker][values] = _told_apart(grouped[speaker, values], targets, mix)
    names = sorted(voices)
    names = [names[int(i)] for i in mix(len(names))]
    kinds: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for step in range(1, len(names)):
        for place, source in enumerate(names):
            target = names[(place + step) % len(names)]
            if to and target not in to:
                continue
            if any(one.heard and v in voices[source] for v, one in voices[target].items()):
                first = [next(iter(voices[name].values())).rest[0] for name in (source, target)]
                kinds[genders_of(first[0], first[1]) or ""].append((source, target))
    queues = [
        _turns(_of_two(voices[source], voices[target], own, mix) for source, target in kinds[kind])
        for kind in sorted(kinds)
    ]
    found = list(itertools.islice(_turns(queues), pairs))
    if not found:
        shared = f" under one {' and '.join(map(repr, same))} (--same)" if same else ""
        raise ValueError(
            f"no conversion is possible: {len(usable)} utterances of {len(names)} speakers, and "
            f"none of them has two recordings{shared}, one to compare with and {LEAST_REFERENCE:g} "
            "s that a converter hears of other sentences; take more splits (--split, repeatable, "
            "or all) or another corpus"
        )
    return found


def tried(pairs: Sequence[Pair], known: Sequence[Utterance]) -> list[Utterance]:
    """Return recordings that are to be tried beside those of pairs, up to ``TRIED`` of a speaker.

    A pair has one recording of each of its speakers; to know how well a judge tells voices apart,
    some of one voice are needed.

    Args:
        pairs: of :func:`draw_free`.
        known: further recordings of their speakers, the best first.
    """
    there: dict[str | None, set[str]] = defaultdict(set)
    for u in (u for pair in pairs for u in (pair.source, pair.target)):
        there[u.speaker].add(u.id)
    found = []
    for u in known:
        if u.id not in there[u.speaker] and len(there[u.speaker]) < TRIED:
            there[u.speaker].add(u.id)
            found.append(u)
    return found


def _usable(utterances: Sequence[Utterance], same: Sequence[str]) -> list[Utterance]:
    """Return the utterances that pairs can be made of, by id.

    Raises:
        ValueError: see :func:`draw_free`.
    """
    known = [u for u in utterances if u.speaker]
    if not known:
        raise ValueError(
            f"none of {len(utterances)} utterances has a speaker: conversions go from one speaker to "
            "another; prepare the corpus with speakers, or take other splits (--split)"
        )
    for name in same:
        if not any(u.label(name) for u in known):
            there = sorted({label for u in known for label in u.labels}) or ["none"]
            raise ValueError(
                f"none of {len(known)} utterances has the label {name!r} (--same); labels are: "
                f"{first_few(there, 12)}"
            )
    usable = [u for u in known if u.duration >= SHORTEST and all(u.label(n) for n in same)]
    if not usable:
        labelled = " and has the labels of --same" if same else ""
        raise ValueError(
            f"none of {len(known)} utterances lasts {SHORTEST:g} s{labelled}: a source needs that"
        )
    check_speakers(usable)
    return sorted(usable, key=lambda u: u.id)


def _told_apart(own: Sequence[Utterance], targets: int, mix: Mix) -> Voice:
    """Return what converters hear of a speaker's recordings, and the rest."""
    mixed = [own[int(i)] for i in mix(len(own))]
    count = min(targets, max(1, len(mixed) // 2))
    heard = 0
    while heard < len(mixed) - 1:
        if heard >= count and sum(u.duration for u in mixed[:heard]) >= ENOUGH:
            break
        heard += 1
    if sum(u.duration for u in mixed[:heard]) < LEAST_REFERENCE:
        heard = 0
    return Voice(heard=tuple(mixed[:heard]), rest=tuple(mixed[heard:]))


def _of_two(
    source: dict[Values, Voice], target: dict[Values, Voice], own: int, mix: Mix
) -> Iterator[Pair]:
    """Return conversions between two speakers, each utterance of the source's once."""
    shared = [values for values in sorted(source) if values in target and target[values].heard]
    return _turns(_of_voices(source[values], target[values], own, mix) for values in shared)


def _of_voices(source: Voice, target: Voice, own: int, mix: Mix) -> Iterator[Pair]:
    wanted = [target.rest[int(i)] for i in mix(len(target.rest))]
    for turn, i in enumerate(mix(len(source.rest))):
        one, beside = source.rest[int(i)], wanted[turn % len(wanted)]
        heard = _other_texts(target.heard, one)
        if sum(u.duration for u in heard) < LEAST_REFERENCE:
            continue  # the target is known by the sentence itself only
        yield Pair(
            id=f"{one.id}-to-{beside.id}",
            source=one,
            target=beside,
            references=heard,
            own=_other_texts((*source.heard, *source.rest), one)[:own],
            again=None,
            genders=genders_of(one, beside),
            parallel=False,
        )


def _other_texts(own: Sequence[Utterance], one: Utterance) -> tuple[Utterance, ...]:
    """Return recordings but for one of them, and for those that say the same where that is known."""
    return tuple(u for u in own if u.id != one.id and (not u.text or u.text != one.text))


def _turns(queues: Iterable[Iterator[Pair]]) -> Iterator[Pair]:
    """Yield the first of each queue, then the second of each; a queue is not made before its turn."""
    left: list[Iterator[Pair]] = []
    for queue in queues:
        for pair in itertools.islice(queue, 1):
            left.append(queue)
            yield pair
    while left:
        now, left = left, []
        for queue in now:
            for pair in itertools.islice(queue, 1):
                left.append(queue)
                yield pair
