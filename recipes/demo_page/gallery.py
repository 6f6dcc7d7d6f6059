"""The voices and example sentences of a prepared corpus, as the page offers them.

A voice is a speaker with enough recordings; its pool takes the longest first, up to a minute. An
example is an utterance that somebody says; if several speakers of the corpus say the same sentence,
such sentences are taken, so that the target's own recording of it can be heard beside the conversion.
No pool holds a recording of an example's sentence, which a converter would only have to find, unless
the speaker says too little else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from mynah.recipes.errors import BadDataError
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.utterance import Utterance

MINI = Path("exp/mini/corpus")
"""Where ``make mini`` leaves the embedded corpus."""
POOL = 60.0
"""Seconds of a voice that a converter hears at most."""
ENOUGH = 8.0
"""Seconds that a speaker needs to be a voice."""
SHORTEST, LONGEST = 0.6, 12.0
"""Seconds of an example."""
EXAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A speaker who can be a target.

    Attributes:
        key: the speaker's id.
        note: what the corpus says of the speaker, for people; empty where it says nothing.
        pool: recordings that a converter hears, the longest first.
        same: sentence of an example -> the speaker's own recording of it.
    """

    key: str
    note: str
    pool: tuple[Utterance, ...]
    same: Mapping[str, Utterance] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Of the pool."""
        return sum(u.duration for u in self.pool)


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """What a corpus offers.

    Attributes:
        name: of the corpus.
        voices: by speaker id.
        examples: by utterance id.
    """

    name: str
    voices: Mapping[str, Voice]
    examples: Mapping[str, Utterance]


def open_gallery(folder: Path | None) -> Gallery:
    """Return the voices and examples of a prepared corpus.

    Args:
        folder: of the corpus; None for that of ``make mini``.

    Raises:
        FileNotFoundError: there is none, with how to make one.
        BadDataError: no two speakers with enough recordings, or nothing that can be an example.
    """
    if folder is None and not MINI.is_dir():
        raise FileNotFoundError(
            f"no voices: there is no {MINI} here; make it with 'make mini' or 'mynah prepare mini "
            f"{MINI}', or name a prepared corpus with --gallery CORPUS"
        )
    corpus = Corpus.open(MINI if folder is None else folder)
    by_speaker: dict[str, list[Utterance]] = defaultdict(list)
    for u in corpus.utterances():
        if u.speaker and u.label("keyword") != "_silence_":
            by_speaker[u.speaker].append(u)
    examples = chosen(by_speaker)
    texts = {u.text for u in examples if u.text}
    ids = {u.id for u in examples}
    voices = {}
    for speaker, theirs in sorted(by_speaker.items()):
        pool = pooled([u for u in theirs if u.text not in texts and u.id not in ids])
        if sum(u.duration for u in pool) < ENOUGH:
            pool = pooled([u for u in theirs if u.id not in ids])
        if sum(u.duration for u in pool) >= ENOUGH:
            voices[speaker] = Voice(
                key=speaker,
                note=note_of(theirs[0]),
                pool=pool,
                same={u.text: u for u in theirs if u.text in texts},
            )
    if len(voices) < 2 or not examples:
        raise BadDataError(
            f"{corpus.folder}: a gallery needs two speakers with {ENOUGH:g} s each and an utterance "
            f"of {SHORTEST:g} to {LONGEST:g} s, there are {len(voices)} and {len(examples)}: name "
            "another corpus with --gallery"
        )
    return Gallery(name=corpus.name, voices=voices, examples={u.id: u for u in examples})


def chosen(by_speaker: Mapping[str, Sequence[Utterance]]) -> list[Utterance]:
    """Return the examples: one of each of some speakers, who come from the test split if they can.

    The longest of the sentences that half of the speakers say comes first; the sexes take turns where
    the corpus tells them.
    """
    said_by = Counter(
        text for theirs in by_speaker.values() for text in {u.text for u in theirs if u.text}
    )

    def rank(u: Utterance) -> tuple[bool, float, str]:
        return said_by.get(u.text or "", 0) * 2 < len(by_speaker), -u.duration, u.id

    ranked: dict[str, list[Utterance]] = {}
    for speaker, theirs in by_speaker.items():
        if fit := sorted((u for u in theirs if SHORTEST <= u.duration <= LONGEST), key=rank):
            ranked[speaker] = fit
    order = sorted(ranked, key=lambda s: (rank(ranked[s][0])[0], ranked[s][0].split != "test", s))
    turns: dict[str, list[str]] = defaultdict(list)
    for speaker in order:
        turns[ranked[speaker][0].label("gender") or ""].append(speaker)
    woven = [name for turn in zip_longest(*turns.values()) for name in turn if name is not None]
    taken: list[Utterance] = []
    for turn, speaker in enumerate(woven[:EXAMPLES]):
        equal = [u for u in ranked[speaker] if rank(u)[0] == rank(ranked[speaker][0])[0]][:2]
        taken.append(equal[turn // 2 % len(equal)])  # not all of them the same sentence
    return taken


def pooled(theirs: Sequence[Utterance]) -> tuple[Utterance, ...]:
    """Return the longest recordings, up to a minute of them."""
    out: list[Utterance] = []
    seconds = 0.0
    for u in sorted(theirs, key=lambda u: (-u.duration, u.id)):
        if out and seconds + u.duration > POOL:
            break
        out.append(u)
        seconds += u.duration
    return tuple(out)


def note_of(u: Utterance) -> str:
    """Return what the corpus says of an utterance's speaker: sex and accent or language."""
    sex = {"f": "female", "m": "male"}.get(u.label("gender") or "", u.label("gender"))
    where = u.label("accent") or u.label("language")
    return ", ".join(word for word in (sex, where) if word)
