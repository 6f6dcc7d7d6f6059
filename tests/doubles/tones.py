"""A small corpus of tones on disk: the class is the pitch, the speaker the timbre, phones follow."""

from pathlib import Path

import numpy as np
import soundfile

from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.utterance import Utterance

RATE = 16000
PITCHES = {"low": 200.0, "mid": 700.0, "high": 2000.0}


def tone(pitch: float, timbre: float, seconds: float, seed: int) -> np.ndarray:
    rng = np.random.RandomState(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    wave = np.sin(2 * np.pi * pitch * time) + timbre * np.sin(4 * np.pi * pitch * time)
    return (0.2 * wave + 0.02 * rng.standard_normal(len(time))).astype(np.float32)


def write_tones(
    folder: Path, *, speakers: int = 6, takes: int = 3, seconds: float = 0.3, noise: bool = False
) -> Corpus:
    """Write speakers x 3 pitches x takes utterances; ``noise``: the pitch says nothing."""
    rng = np.random.RandomState(0)
    (folder / "audio").mkdir(parents=True)
    utterances = []
    for s in range(speakers):
        for take in range(takes):
            for word, pitch in PITCHES.items():
                name = f"s{s}-{word}-{take}"
                path = folder / "audio" / f"{name}.wav"
                heard = float(rng.choice(list(PITCHES.values()))) if noise else pitch
                length = seconds * (1 + 0.1 * take)
                wave = tone(heard * (1 + 0.02 * s), s / speakers, length, len(utterances))
                soundfile.write(path, wave, RATE, subtype="PCM_16")
                utterances.append(
                    Utterance(
                        id=name, path=str(path), start=0.0, duration=len(wave) / RATE,
                        sample_rate=RATE, speaker=f"s{s}", text=word,
                        labels={"keyword": word, "emotion": word, "phones": " ".join(word[:2].upper())},
                    )
                )  # fmt: skip
    return write_corpus(folder, utterances, name=folder.name)
