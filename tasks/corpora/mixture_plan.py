"""Which utterances are mixed with which: a function of a corpus, options and a seed, without audio."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mynah.tasks.corpora.splits import by_proportion
from mynah.tasks.corpora.utterance import Utterance

Kind = Literal["separation", "enhancement", "diarization"]
KINDS: tuple[Kind, ...] = ("separation", "enhancement", "diarization")
SHARES = (0.65, 0.15, 0.2)  # of train, dev and test, where the source corpus names no splits


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked for.

    Attributes:
        kind: of mixtures.
        splits: parts of the corpus to mix; none for all that it has.
        count: mixtures in all; None for as many as use each utterance about once.
        seed: another seed gives other mixtures.
        snr: bounds of dB of active speech over noise.
        spread: bounds of dB between the levels of speakers: each is up to half of it off -25 dB.
        speakers: of a mixture, for separation and diarization.
        mode: ``min`` cuts sources to the shortest, ``max`` fills them up to the longest.
        seconds: length of a recording for diarization; it ends with the turn that passes it.
        overlap: share of the turns that begin before the last one ends.
        rate: Hz.
        bits: 16 (integers) or 32 (floats).
        least: seconds of the shortest utterance that is used.

    Raises:
        ValueError: a number that makes no sense.
    """

    kind: Kind
    splits: tuple[str, ...] = ()
    count: int | None = None
    seed: int = 0
    snr: tuple[float, float] = (0.0, 15.0)
    spread: float = 5.0
    speakers: int = 2
    mode: Literal["min", "max"] = "min"
    seconds: float = 30.0
    overlap: float = 0.3
    rate: int = 16000
    bits: Literal[16, 32] = 16
    least: float = 1.0

    def __post_init__(self) -> None:
        wrong = {
            f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}": self.kind not in KINDS,
            f"count must be at least 1, got {self.count}": self.count is not None
            and self.count < 1,
            f"snr needs LOW <= HIGH, got {self.snr}": not self.snr[0] <= self.snr[1],
            f"spread must be 0 dB or more, got {self.spread}": not self.spread >= 0,
            f"2 to 4 speakers can be mixed, got {self.speakers}": not 2 <= self.speakers <= 4,
            f"seconds must be positive, got {self.seconds}": not self.seconds > 0,
            f"overlap must be in 0..1, got {self.overlap}": not 0 <= self.overlap <= 1,
            f"rate must be at least 1000 Hz, got {self.rate}": self.rate < 1000,
            f"bits must be 16 or 32, got {self.bits}": self.bits not in (16, 32),
            f"mode must be min or max, got {self.mode!r}": self.mode not in ("min", "max"),
            f"the shortest utterance must have 0 s or more, got {self.least}": not self.least >= 0,
        }
        if faults := [text for text, is_wrong in wrong.items() if is_wrong]:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What will be mixed: utterances of one part, in the order of their turns or sources."""

    id: str
    split: str
    utterances: tuple[Utterance, ...]


def usable(
    utterances: Sequence[Utterance], options: Options
) -> tuple[dict[str, list[Utterance]], dict[str, int]]:
    """Return the utterances that can be mixed by part, and how many cannot be and why.

    A corpus without parts gets them, disjoint by speaker.

    Raises:
        ValueError: a part that there is not, some utterances are in a part and others in none,
            nobody's speaker is known, a part has fewer speakers than a mixture, or a speaker cannot
            be named in turns.
    """
    if options.splits:
        there = sorted({u.split for u in utterances if u.split})
        if unknown := [name for name in options.splits if name not in there]:
            raise ValueError(
                f"no utterance of part {unknown[0]!r}: the corpus has "
                f"{', '.join(there) or 'no parts'}"
            )
        utterances = [u for u in utterances if u.split in options.splits]
    left_out: Counter[str] = Counter()
    with_text = any(u.text for u in utterances)
    kept = []
    for u in utterances:
        if u.duration < options.least:
            left_out[f"shorter than {options.least:g} s"] += 1
        elif with_text and not u.text:
            left_out["without text in a corpus that has texts: no speech"] += 1
        elif not u.speaker:
            left_out["without speaker"] += 1
        elif options.kind == "diarization" and (
            u.speaker.split() != [u.speaker] or ";" in u.speaker
        ):
            raise ValueError(f"speaker {u.speaker!r} has white space or a semicolon: rename him")
        else:
            kept.append(u)
    if not kept:
        raise ValueError(f"no utterance can be mixed; left out: {dict(left_out) or 'nothing'}")
    named = [u for u in kept if u.split]
    if named and len(named) < len(kept):
        nowhere = next(u.id for u in kept if not u.split)
        raise ValueError(
            f"the corpus has parts, and {len(kept) - len(named)} utterances, as {nowhere!r}, are in none"
        )
    if not named:
        kept = by_proportion(kept, SHARES, seed=options.seed)
    parts: dict[str, list[Utterance]] = defaultdict(list)
    for u in kept:
        parts[str(u.split)].append(u)
    needed = 1 if options.kind == "enhancement" else options.speakers
    for split, part in parts.items():
        found = len({u.speaker for u in part})
        if found < needed:
            raise ValueError(
                f"part {split!r} has {found} speakers with utterances of {options.least:g} s or more, "
                f"a mixture needs {needed}: ask for other parts only (--split), or fewer speakers"
            )
    return dict(sorted(parts.items())), dict(left_out)


def plan(parts: Mapping[str, Sequence[Utterance]], options: Options) -> list[Mixture]:
    """Return what to mix, in order of ids; each utterance is used about as often as any other.

    Args:
        parts: from :func:`usable`.
        options: what is asked for.
    """
    sizes = {split: _natural(part, options) for split, part in parts.items()}
    if options.count is not None:
        sizes = shares(sizes, options.count)
    mixtures = []
    for split, part in parts.items():
        rng = random.Random(f"{options.kind}|{options.seed}|{split}")
        draws = _conversations(part, options, rng) if options.kind == "diarization" else None
        draws = draws or _groups(
            part, 1 if options.kind == "enhancement" else options.speakers, rng
        )
        used: Counter[str] = Counter()
        for number in range(sizes[split]):
            chosen = next(draws)
            name = f"{split}-{number:05d}"
            if options.kind == "enhancement":
                used[chosen[0].id] += 1
                again = used[chosen[0].id]
                name = chosen[0].id if again == 1 else f"{chosen[0].id}~{again}"
            mixtures.append(Mixture(id=name, split=split, utterances=chosen))
    return sorted(mixtures, key=lambda mixture: mixture.id)


def _natural(part: Sequence[Utterance], options: Options) -> int:
    """Return how many mixtures use each utterance about once."""
    if options.kind == "enhancement":
        return len(part)
    if options.kind == "separation":
        return max(1, len(part) // options.speakers)
    return max(1, round(sum(u.duration for u in part) / options.seconds))


def shares(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Return how many of ``count`` each part has, in proportion, at least one.

    Raises:
        ValueError: fewer than there are parts.
    """
    if count < len(sizes):
        raise ValueError(f"{count} mixtures cannot fill the parts {', '.join(sizes)}")
    total = sum(sizes.values())
    exact = {split: count * size / total for split, size in sizes.items()}
    given = {split: max(1, int(share)) for split, share in exact.items()}
    while (missing := count - sum(given.values())) != 0:
        step = 1 if missing > 0 else -1
        able = [split for split in given if given[split] + step >= 1]
        given[max(able, key=lambda split: (step * (exact[split] - given[split]), split))] += step
    return given


def _groups(
    part: Sequence[Utterance], size: int, rng: random.Random
) -> Iterator[tuple[Utterance, ...]]:
    """Yield groups of utterances of different speakers without end."""
    ordered = sorted(part, key=lambda u: u.id)
    queue: list[Utterance] = []
    while True:
        group: list[Utterance] = []
        later: list[Utterance] = []
        while len(group) < size:
            if not queue:
                taken = {u.id for u in (*group, *later)}
                queue = [u for u in ordered if u.id not in taken]
                rng.shuffle(queue)
            u = queue.pop()
            known = {other.speaker for other in group}
            (later if u.speaker in known else group).append(u)
        queue += reversed(later)
        yield tuple(group)


def _conversations(
    part: Sequence[Utterance], options: Options, rng: random.Random
) -> Iterator[tuple[Utterance, ...]]:
    """Yield utterances in turns without end, no speaker twice in a row, all of them heard."""
    own: dict[str, list[Utterance]] = defaultdict(list)
    for u in sorted(part, key=lambda u: u.id):
        own[str(u.speaker)].append(u)
    waiting: dict[str, list[Utterance]] = {speaker: [] for speaker in own}
    speakers: list[str] = []

    def utterance(speaker: str) -> Utterance:
        if not waiting[speaker]:
            waiting[speaker] = rng.sample(own[speaker], len(own[speaker]))
        return waiting[speaker].pop()

    while True:
        cast: list[str] = []
        while len(cast) < options.speakers:
            if not speakers:
                speakers = rng.sample(sorted(own), len(own))
            # the next who is not yet cast; he may be at the front of a list just drawn
            at = next((i for i, s in enumerate(speakers) if s not in cast), None)
            if at is None:
                speakers = []
                continue
            cast.append(speakers.pop(at))
        turns = [utterance(speaker) for speaker in cast]
        while sum(u.duration for u in turns) < options.seconds:
            others = [speaker for speaker in cast if speaker != turns[-1].speaker]
            turns.append(utterance(rng.choice(others)))
        yield tuple(turns)
