"""Everything that will be said, by whom and where, before a sound is made.

The plan is a pure function of (size, seed). Each subset is one function that yields lines; a later
corpus part (mixtures, conversations, another language) is one more such function in ``SUBSETS``
or, where it is made *from* utterances, a corpus of its own over this one's files.

A label marks the rows that a task uses: a row carries ``keyword`` only if keyword spotting should
see it, ``phones`` only if phone recognition should, and so on. Timed phones and words are on all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields

from mynah.tasks.corpora.mini import commands, speakers, texts
from mynah.tasks.corpora.mini.script import Line, Prosody, Speaker, stream

SESSIONS = 5  # recording sessions of each speaker
SID_SPLITS = ("train", "train", "train", "dev", "test")  # by session


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much there is of each thing.

    Attributes:
        train, dev, test: speakers.
        keyword: recordings of each keyword by each speaker.
        unknown: recordings of other words by each speaker.
        silence: recordings without speech by each speaker.
        intents: how many of the 28 are used.
        commands: by each speaker; five or more, so that every session is heard.
        slots: slot sentences by each speaker.
        sentences: read sentences by each speaker.
        emotion: utterances of each emotion by each speaker.
        parallel: sentences that every speaker reads.
        queries: spoken search terms by each dev and test speaker.
        accent: sentences by each speaker with an accent not heard elsewhere.
    """

    train: int
    dev: int
    test: int
    keyword: int
    unknown: int
    silence: int
    intents: int
    commands: int
    slots: int
    sentences: int
    emotion: int
    parallel: int
    queries: int
    accent: int


def _size(cast: tuple[int, int, int], counts: tuple[int, ...]) -> Size:
    train, dev, test = cast
    names = [f.name for f in fields(Size)][3:]
    return Size(train=train, dev=dev, test=test, **dict(zip(names, counts, strict=True)))


SIZES: dict[str, Size] = {
    "tiny": _size((4, 2, 2), (1, 1, 1, 8, 5, 2, 3, 1, 1, 2, 1)),
    "small": _size((14, 4, 6), (3, 4, 2, 28, 14, 6, 8, 4, 2, 4, 4)),
    "medium": _size((40, 10, 14), (3, 6, 3, 28, 20, 10, 16, 5, 4, 6, 12)),
    "large": _size((120, 20, 30), (4, 10, 4, 28, 28, 16, 30, 6, 6, 8, 30)),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Speakers and lines of a corpus."""

    speakers: Mapping[str, Speaker]
    lines: tuple[Line, ...]


def plan(size: str = "small", *, seed: int = 0) -> Plan:
    """Return who says what.

    Args:
        size: one of ``SIZES``.
        seed: another seed is another corpus: other speakers, texts and sessions.

    Raises:
        LookupError: an unknown size.
    """
    if size not in SIZES:
        raise LookupError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    amounts = SIZES[size]
    voices = _cast(amounts, seed)
    main = {k: v for k, v in voices.items() if v.accent not in speakers.FAR_ACCENTS}
    far = {k: v for k, v in voices.items() if v.accent in speakers.FAR_ACCENTS}
    lines: list[Line] = []
    for name, write in SUBSETS.items():
        people = far if name == "accent" else main
        lines.extend(write(name, people, amounts, seed))
    return Plan(voices, tuple(lines))


def _cast(size: Size, seed: int) -> dict[str, Speaker]:
    voices = {}
    for split in ("train", "dev", "test"):
        for i in range(getattr(size, split)):
            name = f"{split}{i:03d}"
            voices[name] = speakers.draw(seed, name, split, "fm"[i % 2])
    for i, accent in enumerate(speakers.FAR_ACCENTS):
        name = f"{accent}000"
        voices[name] = speakers.draw(seed, name, "test", "fm"[i % 2], accent)
    return voices


def _line(
    subset: str,
    speaker: Speaker,
    index: int,
    text: str,
    seed: int,
    labels: Mapping[str, str],
    *,
    emotion: str = "neutral",
    session: int | None = None,
) -> Line:
    """Assemble a line; without a session given, one of the speaker's is drawn."""
    name = f"{speaker.id}-{subset}-{index:03d}"
    if session is None:
        session = int(stream(seed, "which session", name).randint(SESSIONS))
    manner = (
        speakers.prosody(seed, name, speaker.id, emotion) if text else Prosody()
    )  # silence has no manner
    return Line(
        id=name,
        subset=subset,
        speaker=speaker.id,
        text=text,
        session=session,
        prosody=manner,
        labels=labels,
    )


def _sid(index: int) -> tuple[int, dict[str, str]]:
    """Return the session of a speaker's index-th row for SID, and the label that follows."""
    session = index % SESSIONS
    return session, {"sid_split": SID_SPLITS[session]}


def _keywords(subset: str, people: Mapping[str, Speaker], size: Size, seed: int) -> Iterator[Line]:
    for speaker in people.values():
        rng = stream(seed, subset, speaker.id)
        said = [(w, w) for w in texts.KEYWORDS for _ in range(size.keyword)]
        others = rng.permutation(len(texts.OTHER_WORDS))
        said += [
            (texts.OTHER_WORDS[others[i % len(others)]], texts.UNKNOWN) for i in range(size.unknown)
        ]
        said += [("", texts.SILENCE)] * size.silence
        for i, (word, keyword) in enumerate(said):
            yield _line(subset, speaker, i, word, seed, {"keyword": keyword})


def _commands(subset: str, people: Mapping[str, Speaker], size: Size, seed: int) -> Iterator[Line]:
    intents = list(commands.INTENTS)[:: len(commands.INTENTS) // size.intents][: size.intents]
    for n, speaker in enumerate(people.values()):
        rng = stream(seed, subset, speaker.id)
        for i in range(size.commands):
            # Speakers take turns, so every intent is said about equally often in each split.
            intent = intents[(n * size.commands + i) % len(intents)]
            phrasings = commands.INTENTS[intent]
            known = len(phrasings) - commands.HELD_OUT
            k = int(rng.randint(len(phrasings) if speaker.split == "test" else known))
            session, labels = _sid(i)
            action, thing, place = intent
            labels |= {
                "intent": "|".join(intent),
                "action": action,
                "object": thing,
                "location": place,
                "phrasing": "seen" if k < known else "unseen",
            }
            yield _line(subset, speaker, i, phrasings[k], seed, labels, session=session)


def _slots(subset: str, people: Mapping[str, Speaker], size: Size, seed: int) -> Iterator[Line]:
    for speaker in people.values():
        rng = stream(seed, subset, speaker.id)
        for i in range(size.slots):
            text, tags, domain = texts.slot_sentence(rng)
            session, labels = _sid(i)
            labels |= {"slots": tags, "domain": domain}
            yield _line(subset, speaker, i, text, seed, labels, session=session)


def _sentences(subset: str, people: Mapping[str, Speaker], size: Size, seed: int) -> Iterator[Line]:
    said: set[str] = set()
    for speaker in people.values():
        rng = stream(seed, subset, speaker.id)
        for i in range(size.sentences):
            sentence = texts.sentence(rng)
            while sentence.text in said:  # no sentence twice, so none in two splits
                sentence = texts.sentence(rng)
            said.add(sentence.text)
            session, labels = _sid(i)
            labels["translation"] = sentence.translation
            yield _line(subset, speaker, i, sentence.text, seed, labels, session=session)


def _emotion(subset: str, people: Mapping[str, Speaker], size: Size, seed: int) -> Iterator[Line]:
    for speaker in people.values():
        rng = stream(seed, subset, speaker.id)
        index = 0
        for emotion in speakers.EMOTIONS:
            for k in rng.permutation(len(texts.EMOTION_TEXTS))[: size.emotion]:
                yield _line(
                    subset,
                    speaker,
                    index,
                    texts.EMOTION_TEXTS[k],
                    seed,
                    {"emotion": emotion},
                    emotion=emotion,
                )
                index += 1


def _parallel(subset: str, people: Mapping[str, Speaker], size: Size, seed: int) -> Iterator[Line]:
    for speaker in people.values():
        for i, text in enumerate(texts.PARALLEL_TEXTS[: size.parallel]):
            session, labels = _sid(i)
            labels["parallel"] = f"p{i}"
            yield _line(subset, speaker, i, text, seed, labels, session=session)


def _queries(subset: str, people: Mapping[str, Speaker], size: Size, seed: int) -> Iterator[Line]:
    """Yield terms that occur in the read sentences of the same split, said by someone else."""
    for split in ("dev", "test"):
        group = {k: v for k, v in people.items() if v.split == split}
        documents = [
            line.text
            for line in _sentences("sentences", people, size, seed)
            if line.speaker in group
        ]
        for speaker in group.values():
            rng = stream(seed, subset, speaker.id)
            for i in range(size.queries):
                words = documents[rng.randint(len(documents))].split()
                at = int(rng.randint(len(words) - 1))
                term = " ".join(words[at : at + 2])
                yield _line(subset, speaker, i, term, seed, {"term": term})


def _accent(subset: str, people: Mapping[str, Speaker], size: Size, seed: int) -> Iterator[Line]:
    for speaker in people.values():
        rng = stream(seed, subset, speaker.id)
        for i in range(size.accent):
            yield _line(subset, speaker, i, texts.sentence(rng).text, seed, {})


Writer = Callable[[str, Mapping[str, Speaker], Size, int], Iterator[Line]]
SUBSETS: dict[str, Writer] = {
    "keywords": _keywords,
    "commands": _commands,
    "slots": _slots,
    "sentences": _sentences,
    "emotion": _emotion,
    "parallel": _parallel,
    "queries": _queries,
    "accent": _accent,
}
PHONE_SUBSETS = ("sentences", "slots")  # rows of phone recognition: the most varied texts
