"""What is said: keywords, slot sentences, read sentences with translations, fixed sentences.

All of it is drawn from small grammars, so that every label follows from the text.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import RandomState

from mynah.tasks.corpora.mini import commands

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
OTHER_WORDS = (
    *("bed", "bird", "cat", "dog", "happy", "house", "tree", "zero", "one", "two", "three"),
    *("four", "five", "six", "seven", "eight", "nine"),
)
UNKNOWN, SILENCE = "_unknown_", "_silence_"

# Slot sentences: {name} is a slot, filled from SLOTS.
SLOT_TEMPLATES = {
    "book": (
        "book a table for {party} in {city} at {time}",
        "i want a table for {party} on {day}",
        "find a {food} restaurant in {city} for {party}",
        "reserve a {food} restaurant at {time} on {day}",
    ),
    "weather": (
        "will it {weather} in {city} on {day}",
        "is it going to {weather} in {city} at {time}",
        "tell me if it will {weather} on {day}",
    ),
    "alarm": (
        "set an alarm for {time} on {day}",
        "wake me at {time}",
        "remind me to call {person} at {time}",
        "call {person} on {day} at {time}",
    ),
    "list": (
        "add {item} to my list",
        "put {item} and {item} on the list for {person}",
        "buy {item} on {day}",
    ),
}
SLOTS = {
    "party": ("two", "three", "four", "five", "six", "eight", "ten"),
    "city": ("london", "paris", "berlin", "boston", "madrid", "new york", "oslo", "vienna"),
    "time": ("one", "three", "five thirty", "six", "seven", "eight fifteen", "nine", "noon"),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "food": ("greek", "french", "thai", "fish", "pizza"),
    "weather": ("rain", "snow", "be sunny", "be windy", "be cold"),
    "person": ("anna", "peter", "my mother", "my brother", "doctor green", "tom"),
    "item": ("milk", "bread", "green apples", "coffee", "butter", "brown rice", "tea"),
}

# Read sentences: English beside German; nouns carry their German gender.
_PEOPLE = {
    "teacher": ("Lehrer", "m"),
    "doctor": ("Arzt", "m"),
    "farmer": ("Bauer", "m"),
    "girl": ("Mädchen", "n"),
    "boy": ("Junge", "m"),
    "woman": ("Frau", "f"),
    "man": ("Mann", "m"),
    "singer": ("Sängerin", "f"),
    "painter": ("Maler", "m"),
    "captain": ("Kapitän", "m"),
    "child": ("Kind", "n"),
    "queen": ("Königin", "f"),
}
_WEAK = {"boy": "Jungen", "farmer": "Bauern"}  # German weak nouns: other cases than nominative
_THINGS = {
    "letter": ("Brief", "m"),
    "book": ("Buch", "n"),
    "boat": ("Boot", "n"),
    "picture": ("Bild", "n"),
    "bottle": ("Flasche", "f"),
    "watch": ("Uhr", "f"),
    "bag": ("Tasche", "f"),
    "chair": ("Stuhl", "m"),
    "horse": ("Pferd", "n"),
    "key": ("Schlüssel", "m"),
    "flower": ("Blume", "f"),
    "lamp": ("Lampe", "f"),
    "coat": ("Mantel", "m"),
    "church": ("Kirche", "f"),
    "bridge": ("Brücke", "f"),
    "ship": ("Schiff", "n"),
}
_ADJECTIVES = {
    "old": "alt",
    "young": "jung",
    "small": "klein",
    "large": "groß",
    "beautiful": "schön",
    "strange": "seltsam",
    "white": "weiß",
    "yellow": "gelb",
    "heavy": "schwer",
    "cheap": "billig",
    "famous": "berühmt",
    "quiet": "ruhig",
    "unusual": "ungewöhnlich",
}
_VERBS = {
    "buys": "kauft",
    "finds": "findet",
    "paints": "malt",
    "watches": "beobachtet",
    "loses": "verliert",
    "needs": "braucht",
    "brings": "bringt",
    "sells": "verkauft",
    "describes": "beschreibt",
    "shows": "zeigt",
    "searches for": "sucht",
    "touches": "berührt",
    "measures": "misst",
}
_PHRASES = {
    "in the garden": "im Garten",
    "near the river": "am Fluss",
    "behind the house": "hinter dem Haus",
    "at the station": "am Bahnhof",
    "after dinner": "nach dem Abendessen",
    "every morning": "jeden Morgen",
    "in the village": "im Dorf",
    "without a reason": "ohne Grund",
    "with great joy": "mit großer Freude",
    "before the journey": "vor der Reise",
    "for the first time": "zum ersten Mal",
    "in the summer": "im Sommer",
}
_DAYS = {
    "monday": "Montag",
    "tuesday": "Dienstag",
    "wednesday": "Mittwoch",
    "thursday": "Donnerstag",
    "friday": "Freitag",
    "saturday": "Samstag",
    "sunday": "Sonntag",
}
# (article, ending) by definiteness, case and gender
_DECLENSION = {
    ("the", "nom"): {"m": ("der", "e"), "f": ("die", "e"), "n": ("das", "e")},
    ("the", "acc"): {"m": ("den", "en"), "f": ("die", "e"), "n": ("das", "e")},
    ("a", "nom"): {"m": ("ein", "er"), "f": ("eine", "e"), "n": ("ein", "es")},
    ("a", "acc"): {"m": ("einen", "en"), "f": ("eine", "e"), "n": ("ein", "es")},
}

EMOTION_TEXTS = (
    "the report is on the table",
    "they moved it to the other room",
    "she will be here in an hour",
    "we had dinner with your brother",
    "the train leaves at seven",
    "he put the letter in the box",
)
PARALLEL_TEXTS = (
    "the young captain shows a large ship near the river",
    "please call the doctor before nine in the morning",
    "every child in the village likes yellow flowers",
    "the quiet painter lost his watch behind the church",
    "five cheap boats were sold at the station on friday",
    "my mother found a strange bottle in the garden",
    "we could hear the church from the old bridge",
    "put the book and the lamp on the white chair",
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A read sentence, its German translation and the noun phrases in it."""

    text: str
    translation: str
    phrases: tuple[str, ...]


def _noun_phrase(
    rng: RandomState, nouns: dict[str, tuple[str, str]], case: str
) -> tuple[str, str, str]:
    """Return English, German, and the English without the article."""
    noun = list(nouns)[rng.randint(len(nouns))]
    german, gender = nouns[noun]
    adjective = list(_ADJECTIVES)[rng.randint(len(_ADJECTIVES))]
    definite = "the" if rng.uniform() < 0.6 else "a"
    article, ending = _DECLENSION[definite, case][gender]
    if case == "acc":
        german = _WEAK.get(noun, german)
    english_article = "an" if definite == "a" and adjective[0] in "aeiou" else definite
    core = f"{adjective} {noun}"
    return f"{english_article} {core}", f"{article} {_ADJECTIVES[adjective]}{ending} {german}", core


def _item(rng: RandomState, table: dict[str, str]) -> tuple[str, str]:
    key = list(table)[rng.randint(len(table))]
    return key, table[key]


def sentence(rng: RandomState) -> Sentence:
    """Draw a read sentence of a vocabulary of about 90 words."""
    who, who_de, who_core = _noun_phrase(rng, _PEOPLE, "nom")
    what, what_de, what_core = _noun_phrase(rng, _THINGS, "acc")
    verb, verb_de = _item(rng, _VERBS)
    phrase, phrase_de = _item(rng, _PHRASES)
    day, day_de = _item(rng, _DAYS)
    forms = (
        (f"{who} {verb} {what} {phrase}", f"{who_de} {verb_de} {what_de} {phrase_de}"),
        (f"on {day} {who} {verb} {what}", f"am {day_de} {verb_de} {who_de} {what_de}"),
        (
            f"they say that {who} {verb} {what}",
            f"sie sagen, dass {who_de} {what_de} {verb_de}",
        ),
        (
            f"{phrase} {who} {verb} {what}",
            f"{phrase_de} {verb_de} {who_de} {what_de}",
        ),
    )
    text, german = forms[rng.randint(len(forms))]
    return Sentence(text, german[0].upper() + german[1:] + ".", (who_core, what_core))


def slot_sentence(rng: RandomState) -> tuple[str, str, str]:
    """Draw a slot sentence.

    Returns:
        the text, the tag of every word (``O``, ``B-city``, ``I-city``), the domain.
    """
    domain = list(SLOT_TEMPLATES)[rng.randint(len(SLOT_TEMPLATES))]
    templates = SLOT_TEMPLATES[domain]
    words: list[str] = []
    tags: list[str] = []
    for token in templates[rng.randint(len(templates))].split():
        if not token.startswith("{"):
            words.append(token)
            tags.append("O")
            continue
        slot = token[1:-1]
        value = SLOTS[slot][rng.randint(len(SLOTS[slot]))].split()
        words.extend(value)
        tags.extend([f"B-{slot}"] + [f"I-{slot}"] * (len(value) - 1))
    return " ".join(words), " ".join(tags), domain


def vocabulary() -> tuple[str, ...]:
    """Return every word that can be said, sorted."""
    texts: list[str] = [*KEYWORDS, *OTHER_WORDS, *EMOTION_TEXTS, *PARALLEL_TEXTS, "they say that"]
    texts.extend(p for phrasings in commands.INTENTS.values() for p in phrasings)
    texts.extend(t for ts in SLOT_TEMPLATES.values() for t in ts)
    texts.extend(v for vs in SLOTS.values() for v in vs)
    for table in (_PEOPLE, _THINGS, _ADJECTIVES, _VERBS, _PHRASES, _DAYS):
        texts.extend(table)
    texts.append("the a an")
    return tuple(sorted({w for t in texts for w in t.split() if not w.startswith("{")}))
