"""Speakers that buzz the same sentences: each with a pitch and a vocal tract of its own."""

from pathlib import Path

import numpy as np
import soundfile

from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.utterance import Utterance

RATE = 16000
PITCHES = {"a": 95.0, "b": 125.0, "c": 165.0, "d": 210.0, "e": 260.0}
SENTENCES = ("one", "two", "three")


def spoken(speaker: str, sentence: str, take: int, *, seconds: float = 0.8) -> np.ndarray:
    """A buzz of the speaker's pitch and vocal tract, whose formants move as the sentence says."""
    pitch = PITCHES[speaker]
    number = SENTENCES.index(sentence)
    rng = np.random.default_rng([take, number, ord(speaker)])
    time = np.arange(round((seconds + 0.05 * take) * RATE)) / RATE
    melody = 1 + 0.08 * np.sin(2 * np.pi * (1.0 + number) * time)
    phase = 2 * np.pi * np.cumsum(pitch * melody) / RATE
    tract = (pitch / 160) ** 0.4
    first = tract * (600 + 250 * np.sin(2 * np.pi * (2 + number) * time))
    second = tract * (1700 + 400 * np.cos(2 * np.pi * (1 + number) * time))
    wave = np.zeros_like(time)
    for k in range(1, int(4000 / pitch)):
        hertz = k * pitch * melody
        level = np.exp(-(((hertz - first) / 250) ** 2)) + 0.5 * np.exp(
            -(((hertz - second) / 300) ** 2)
        )
        wave += (level + 0.02) * np.sin(k * phase)
    return (0.08 * wave + 0.001 * rng.standard_normal(len(time))).astype(np.float32)


def made(folder: Path, *, speakers: str = "abcde", takes: int = 2, parallel: bool = True) -> Corpus:
    """Prepare a corpus: speakers that say the same sentences, or whose texts are all different."""
    folder.mkdir(parents=True)
    found = []
    for speaker in speakers:
        for sentence in SENTENCES:
            for take in range(takes):
                wave = spoken(speaker, sentence, take)
                path = folder / f"{speaker}-{sentence}-{take}.wav"
                soundfile.write(path, wave, RATE, subtype="PCM_16")
                labels = {"gender": "m" if PITCHES[speaker] < 150 else "f", "mood": str(take)}
                labels["phones"] = " ".join(sentence[:2].upper())
                text = sentence if parallel else f"{sentence} {path.stem.replace('-', ' ')}"
                found.append(
                    Utterance(
                        id=path.stem, path=str(path), start=0.0, duration=len(wave) / RATE,
                        sample_rate=RATE, speaker=speaker, text=text, labels=labels,
                        split="test" if speaker != "e" else "train",
                    )
                )  # fmt: skip
    return write_corpus(folder / "corpus", found, name="parallel" if parallel else "free")
