"""Trials of speaker verification: those of a corpus checked, or drawn where it names none.

For each speaker: pairs of its utterances (target trials), and as many pairs of one of its
utterances with one of somebody else (nontarget trials), of which half are of a speaker of the same
gender and half of another, where genders are known: speakers of different gender are easily told
apart, and a list without hard trials says little. Where a speaker was recorded in several sessions
(label ``session``, else ``chapter``), its pairs are of different ones: two utterances of one
session share their room and microphone, which nontarget trials do not.

Everything is drawn by hash of the names, so that the same utterances give the same trials on every
machine.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, islice

from mynah.tasks.core.contract import DataError
from mynah.tasks.core.splits import first_few, order
from mynah.tasks.corpora.official.core.trials import Trial
from mynah.tasks.corpora.utterance import Utterance

UTTERANCES = 30  # of a speaker that are compared, at most
PAIRS = 100  # target trials of a speaker, at most


def make_trials(
    utterances: Sequence[Utterance],
    *,
    seed: int,
    name: str,
    most_utterances: int = UTTERANCES,
    most_pairs: int = PAIRS,
) -> list[Trial]:
    """Return target and nontarget trials; see the top of this module.

    No pair is there twice, in either order, so that there may be a few nontarget trials fewer than
    target trials.

    Args:
        utterances: with speakers.
        seed: part of the benchmark.
        name: of the part, for messages; it takes part in the draw.
        most_utterances: of a speaker that are compared.
        most_pairs: target trials of a speaker.

    Raises:
        DataError: no speaker has two utterances, or there is one speaker only.
    """
    salt = f"trials-{seed}-{name}"
    spoken: dict[str, list[Utterance]] = defaultdict(list)
    for u in utterances:
        spoken[str(u.speaker)].append(u)
    if len(spoken) < 2:
        raise DataError(
            f"trials need utterances of two speakers at least, {name} has those of "
            f"{first_few(sorted(spoken)) or 'none'}"
        )
    for speaker, own in spoken.items():
        at = {u.id: u for u in own}
        spoken[speaker] = [at[i] for i in order(at, salt)[:most_utterances]]
    trials: list[Trial] = []
    seen: set[frozenset[str]] = set()
    for speaker in sorted(spoken):
        pairs = _of_one(spoken[speaker])
        picked = [pairs[i] for i in islice(_drawn(len(pairs), f"{salt}|{speaker}"), most_pairs)]
        trials += [Trial(True, a.id, b.id) for a, b in picked]
        wanted = len(picked)
        for pool, count in _pools(spoken, speaker, wanted):
            others = _of_two(spoken[speaker], pool, seen, f"{salt}|{speaker}")
            drawn = list(islice(others, min(count, wanted)))
            wanted -= len(drawn)
            seen.update(frozenset((a.id, b.id)) for a, b in drawn)
            trials += [Trial(False, a.id, b.id) for a, b in drawn]
    if not any(trial.target for trial in trials):
        raise DataError(
            f"trials need two utterances of one speaker, and no speaker of {name} has two: "
            f"{first_few(sorted(spoken))}"
        )
    return trials


def check_trials(trials: Sequence[Trial], utterances: Sequence[Utterance]) -> None:
    """Refuse trials that the utterances of a test part cannot serve.

    Raises:
        DataError: trials of utterances that are not there, or whose speakers say otherwise, or
            trials that are all target or all nontarget trials.
    """
    known = {u.id: str(u.speaker) for u in utterances}
    strange = sorted({name for t in trials for name in (t.enrolment, t.test)} - known.keys())
    if strange:
        raise DataError(f"trials of utterances that are not in test: {first_few(strange)}")
    wrong = [
        f"{t.enrolment} and {t.test} ({'target' if t.target else 'nontarget'})"
        for t in trials
        if t.target != (known[t.enrolment] == known[t.test])
    ]
    if wrong:
        raise DataError(f"trials that contradict the speakers: {first_few(wrong)}")
    if len({t.target for t in trials}) < 2:
        raise DataError("the corpus's trials are all of one kind: both kinds are needed")


def _session(utterance: Utterance) -> str | None:
    return utterance.label("session") or utterance.label("chapter")


def _of_one(own: Sequence[Utterance]) -> list[tuple[Utterance, Utterance]]:
    """Return the pairs of a speaker, those of different sessions where there are such."""
    pairs = list(combinations(own, 2))
    if not all(_session(u) for u in own):
        return pairs
    return [(a, b) for a, b in pairs if _session(a) != _session(b)] or pairs


def _pools(
    spoken: dict[str, list[Utterance]], speaker: str, count: int
) -> list[tuple[list[Utterance], int]]:
    """Return what nontarget trials of a speaker are drawn from, and how many of each at most.

    The second pool makes up for what the first one lacks.
    """
    others = [u for name in sorted(spoken) if name != speaker for u in spoken[name]]
    gender = spoken[speaker][0].label("gender")
    if gender is None or any(u.label("gender") is None for u in others):
        return [(others, count)]
    same = [u for u in others if u.label("gender") == gender]
    cross = [u for u in others if u.label("gender") != gender]
    if not same or not cross:
        return [(others, count)]
    return [(same, count - count // 2), (cross, count)]


def _of_two(
    own: Sequence[Utterance], pool: Sequence[Utterance], seen: set[frozenset[str]], salt: str
) -> Iterator[tuple[Utterance, Utterance]]:
    """Yield pairs of one's own utterance and another's that were not seen, in the order of a draw."""
    for i in _drawn(len(own) * len(pool), f"{salt}|others"):
        pair = own[i // len(pool)], pool[i % len(pool)]
        if frozenset(u.id for u in pair) not in seen:
            yield pair


def _drawn(total: int, salt: str) -> Iterator[int]:
    """Yield every number below ``total`` once, in an order drawn by hash, the first ones cheaply."""
    seen: set[int] = set()
    for attempt in range(4 * total):
        if 2 * len(seen) >= total:  # by now most draws would repeat
            break
        digest = hashlib.sha256(f"{salt}|{attempt}".encode()).digest()
        number = int.from_bytes(digest[:8], "big") % total
        if number not in seen:
            seen.add(number)
            yield number
    rest = (str(number) for number in range(total) if number not in seen)
    yield from (int(number) for number in order(rest, salt))


def compared(utterances: Sequence[Utterance], trials: Sequence[Trial]) -> list[Utterance]:
    """Return the utterances that take part in a trial, in their order."""
    names = {name for t in trials for name in (t.enrolment, t.test)}
    return [u for u in utterances if u.id in names]
