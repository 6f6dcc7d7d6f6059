"""Speakers and emotions drawn at random: differences of body, habit and mood."""

from __future__ import annotations

from mynah.tasks.corpora.mini.script import Prosody, Speaker, stream

ACCENTS = (("us", 0.7), ("gb", 0.2), ("rp", 0.1))  # of the main speakers, with their share
FAR_ACCENTS = ("lancaster", "caribbean", "newyork")  # kept apart, for out-of-domain tests

EMOTIONS: dict[str, Prosody] = {
    "neutral": Prosody(),
    "happy": Prosody(rate=1.04, pitch=9.0, range=18.0, tone=1.0, breath=0.0),
    "angry": Prosody(rate=1.08, pitch=2.0, range=10.0, tone=4.5, breath=-1.0),
    "sad": Prosody(rate=0.89, pitch=-7.0, range=-16.0, tone=-4.0, breath=2.0),
}


def draw(seed: int, name: str, split: str, gender: str, accent: str | None = None) -> Speaker:
    """Return the speaker of that name.

    Args:
        seed: seed of the corpus.
        name: speaker id; the voice is a function of (seed, name, gender).
        split: ``train``, ``dev`` or ``test``.
        gender: ``m`` or ``f``.
        accent: None draws one of the main accents.
    """
    rng = stream(seed, "speaker", name, gender)
    low = float(rng.uniform(72, 118) if gender == "m" else rng.uniform(128, 190))
    high = low * float(rng.uniform(1.35, 1.65))
    tract = float(rng.uniform(0.93, 1.05) if gender == "m" else rng.uniform(1.06, 1.18))
    formants = tuple(float(tract * (1 + rng.uniform(-0.035, 0.035))) for _ in range(8))
    heights = tuple(float(rng.uniform(0.8, 1.2)) for _ in range(8))
    widths = tuple(float(rng.uniform(0.85, 1.3)) for _ in range(8))
    drawn = str(rng.choice([a for a, _ in ACCENTS], p=[p for _, p in ACCENTS]))
    stressed = int(rng.uniform(165, 215))
    return Speaker(
        id=name,
        gender=gender,
        split=split,
        accent=accent or drawn,
        pitch=(low, high),
        formants=formants,
        heights=heights,
        widths=widths,
        breath=float(rng.choice([0.0, 0.0, 0.5, 1.0, 1.5])),
        voicing=float(rng.uniform(0.85, 1.15)),
        consonants=(float(rng.uniform(0.75, 1.25)), float(rng.uniform(0.75, 1.25))),
        tone=float(rng.uniform(-1.5, 1.5)),
        stress=(
            int(rng.uniform(120, 155)),
            int(rng.uniform(110, 145)),
            stressed,
            stressed - 10,
            0,
            0,
            int(stressed * rng.uniform(1.2, 1.4)),
            int(stressed * rng.uniform(1.3, 1.5)),
        ),
        intonation=int(rng.randint(1, 5)),
        wpm=int(rng.uniform(135, 206)),
    )


def prosody(seed: int, line: str, speaker: str, emotion: str = "neutral") -> Prosody:
    """Return how one line is spoken: the mood, the speaker's way of showing it, and chance.

    A speaker shows each emotion in proportions of his own, and no two utterances alike, so the
    levels of different emotions overlap.
    """
    mood, habit, chance = (
        EMOTIONS[emotion],
        stream(seed, "habit", speaker, emotion),
        stream(seed, "prosody", line),
    )
    strength = float(chance.uniform(0.6, 1.25))

    def way() -> float:
        return strength * float(habit.uniform(0.7, 1.3))

    return Prosody(
        rate=(1 + (mood.rate - 1) * way()) * float(chance.uniform(0.93, 1.07)),
        pitch=mood.pitch * way() + float(chance.normal(0, 2.0)),
        range=mood.range * way() + float(chance.normal(0, 5.0)),
        tone=mood.tone * way() + float(chance.normal(0, 0.4)),
        breath=mood.breath * way(),
    )
