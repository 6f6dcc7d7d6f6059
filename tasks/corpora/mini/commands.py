"""Smart-home commands: 28 intents of action, object and location, seven phrasings each."""

from __future__ import annotations

# Phrasings by kind of command; {w} is " in the kitchen" or nothing. The last two of each kind are
# never heard in training.
_LIGHTS_ON = (
    "turn on the lights{w}",
    "switch on the lights{w}",
    "turn the lights on{w}",
    "lights on{w}",
    "please put the lights on{w}",
    "i need more light{w}",
    "it is too dark{w}",
)
_LIGHTS_OFF = (
    "turn off the lights{w}",
    "switch off the lights{w}",
    "turn the lights off{w}",
    "lights off{w}",
    "please put the lights off{w}",
    "i need less light{w}",
    "it is too bright{w}",
)
_HEAT_UP = (
    "turn up the heat{w}",
    "increase the heat{w}",
    "heat up{w}",
    "make it warmer{w}",
    "turn the heat up{w}",
    "more heat{w}",
    "it is too cold{w}",
)
_HEAT_DOWN = (
    "turn down the heat{w}",
    "decrease the heat{w}",
    "heat down{w}",
    "make it cooler{w}",
    "turn the heat down{w}",
    "less heat{w}",
    "it is too hot{w}",
)
_VOLUME_UP = (
    "turn up the volume",
    "increase the volume",
    "volume up",
    "make it louder",
    "turn the sound up",
    "play it louder",
    "i can not hear it",
)
_VOLUME_DOWN = (
    "turn down the volume",
    "decrease the volume",
    "volume down",
    "make it quieter",
    "turn the sound down",
    "play it softer",
    "it is too loud",
)
_MUSIC_ON = (
    "play some music",
    "start the music",
    "turn on the music",
    "music please",
    "put on a song",
    "i want to hear music",
    "play a song for me",
)
_MUSIC_OFF = (
    "stop the music",
    "pause the music",
    "turn off the music",
    "no more music",
    "stop the song",
    "i do not want music",
    "end the song now",
)
_BRING = (
    "bring me the {o}",
    "get me the {o}",
    "fetch the {o}",
    "i need the {o}",
    "go and get the {o}",
    "where is the {o}",
    "could you find my {o}",
)
_LANGUAGE = (
    "change the language to {o}",
    "switch the language to {o}",
    "set the language to {o}",
    "language {o}",
    "speak {o} please",
    "i want to practice {o}",
    "could we talk in {o}",
)
PLACES = ("none", "kitchen", "bedroom", "bathroom")


def _intents() -> dict[tuple[str, str, str], tuple[str, ...]]:
    table: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for place in PLACES:
        where = "" if place == "none" else f" in the {place}"
        for action, thing, phrasings in (
            ("activate", "lights", _LIGHTS_ON),
            ("deactivate", "lights", _LIGHTS_OFF),
            ("increase", "heat", _HEAT_UP),
            ("decrease", "heat", _HEAT_DOWN),
        ):
            table[action, thing, place] = tuple(p.format(w=where) for p in phrasings)
    table["increase", "volume", "none"] = _VOLUME_UP
    table["decrease", "volume", "none"] = _VOLUME_DOWN
    table["activate", "music", "none"] = _MUSIC_ON
    table["deactivate", "music", "none"] = _MUSIC_OFF
    for thing in ("shoes", "newspaper", "juice", "socks"):
        table["bring", thing, "none"] = tuple(p.format(o=thing) for p in _BRING)
    for thing in ("english", "german", "korean", "chinese"):
        table["change", thing, "none"] = tuple(p.format(o=thing) for p in _LANGUAGE)
    return table


INTENTS = _intents()  # 28 intents, seven phrasings each
HELD_OUT = 2  # phrasings of each intent that only the test speakers say
