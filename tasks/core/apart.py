"""Splits of utterances that have several speakers each: no speaker in two parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mynah.tasks.core.contract import DataError
from mynah.tasks.core.splits import Parts, check_disjoint, first_few, given_or_made
from mynah.tasks.corpora.utterance import Utterance

Speakers = Callable[[Utterance], Iterable[str]]


def companions(utterances: Sequence[Utterance], speakers: Speakers) -> dict[str, str]:
    """Return the group of each utterance (by id): all that are tied by speakers in common.

    A group is named after its first speaker. Utterances of two groups have no speaker in common, so
    groups are what may go to different parts.

    Args:
        utterances: any.
        speakers: those of an utterance, at least one.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent[above]
            name = parent[name]
        return name

    for u in utterances:
        first, *others = sorted(set(speakers(u)))
        for other in others:
            a, b = sorted((root(first), root(other)))
            parent[b] = a
    return {u.id: root(min(speakers(u))) for u in utterances}


def parts_apart(
    utterances: Sequence[Utterance], speakers: Speakers, *, seed: int, take_given: bool
) -> tuple[Parts, str]:
    """Return the corpus's parts (dev carved out of train where it has none), or made ones.

    Args:
        utterances: all of them.
        speakers: those of an utterance.
        seed: of parts that are made.
        take_given: take the corpus's own parts, where it has some.

    Returns:
        the parts, and a sentence that says where they come from.

    Raises:
        DataError: a part is empty, two share an utterance or a speaker, or parts are to be made and
            fewer than three groups of speakers are apart.
    """
    group = companions(utterances, speakers)
    parts, note = given_or_made(
        utterances,
        lambda u: group[u.id],
        unit_name="group of speakers that are heard together",
        seed=seed,
        take_given=take_given,
    )
    check_disjoint(parts, lambda u: u.id, unit_name="utterance")
    check_apart(parts, speakers)
    return parts, note


def conversations_apart(
    recordings: Sequence[Utterance], names: Speakers, *, most: int, seed: int, take_given: bool
) -> tuple[Parts, int, list[str]]:
    """Return parts as :func:`parts_apart`, of recordings whose speakers may have local names.

    Names that are as many in the whole corpus as in one recording (A and B in all of them) say
    nothing beyond their recording: recordings are then kept apart.

    Args:
        recordings: all of them.
        names: the speakers of a recording.
        most: speakers of a recording.
        seed: of parts that are made.
        take_given: take the corpus's own parts, where it has some.

    Returns:
        the parts, how many speakers a training recording has at most, and sentences on both.

    Raises:
        DataError: as :func:`parts_apart`; a recording has more speakers than any of train, or more
            than ``most``.
    """
    counts = {u.id: len(set(names(u))) for u in recordings}
    local = len({name for u in recordings for name in names(u)}) <= max(counts.values())
    parts, note = parts_apart(
        recordings, (lambda u: [u.id]) if local else names, seed=seed, take_given=take_given
    )
    speakers = max(counts[u.id] for u in parts["train"])
    if many := [u.id for u in recordings if counts[u.id] > speakers]:
        raise DataError(
            f"no training recording has more than {speakers} speakers, but these have: "
            f"{first_few(many)}"
        )
    if speakers > most:
        raise DataError(f"recordings have up to {speakers} speakers; {most} can be told apart")
    notes = [note, f"{speakers} speakers in a recording"]
    return parts, speakers, notes + ["names are taken as local to their recording"] * local


def check_apart(parts: Parts, speakers: Speakers) -> None:
    """Refuse parts that share a speaker.

    Raises:
        DataError: names the first of them.
    """
    heard = {name: {s for u in part for s in speakers(u)} for name, part in parts.items()}
    names = list(parts)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            shared = sorted(heard[a] & heard[b])
            if shared:
                raise DataError(
                    f"{a} and {b} share the speakers {first_few(shared)}; they must not: mend the "
                    "corpus's splits, or let disjoint ones be made (--splits made)"
                )
