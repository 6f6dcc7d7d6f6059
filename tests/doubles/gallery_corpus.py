"""A small corpus of speakers with enough to say to be voices of the demo's gallery."""

from pathlib import Path

import soundfile
from voices import RATE, voice

from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.utterance import Utterance

PITCHES = {"ann": 210.0, "bob": 105.0, "cy<b>": 140.0}
SAME = "they all say this"


def write_gallery(folder: Path, *, takes: int = 4, seconds: float = 2.0) -> Corpus:
    """Write 3 speakers: takes recordings of their own each, and one of a sentence that all say."""
    (folder / "audio").mkdir(parents=True)
    utterances = []
    for s, (speaker, pitch) in enumerate(PITCHES.items()):
        for take in range(takes + 1):
            name = f"s{s}-{take}"
            path = folder / "audio" / f"{name}.wav"
            wave = voice(pitch, seconds + 0.1 * take * (take < takes), 10 * s + take)
            soundfile.write(path, wave, RATE, subtype="PCM_16")
            utterances.append(
                Utterance(
                    id=name, path=str(path), start=0.0, duration=len(wave) / RATE, sample_rate=RATE,
                    speaker=speaker, text=SAME if take == takes else f"words {s} {take}",
                    split="test" if speaker == "bob" else "train",
                    labels={"gender": "m" if speaker == "bob" else "f", "phones": "AA B"},
                )
            )  # fmt: skip
    return write_corpus(folder, utterances, name="three <voices>")
