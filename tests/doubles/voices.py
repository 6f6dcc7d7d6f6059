"""A small corpus of voices on disk: each speaker has a pitch and speaks in syllables."""

from pathlib import Path

import numpy as np
import soundfile

from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.utterance import Utterance

RATE = 16000
PARTS = {"train": 4, "dev": 2, "test": 2}


def voice(pitch: float, seconds: float, seed: int) -> np.ndarray:
    """Return harmonics that swell four times a second, in a little noise, with silent ends."""
    rng = np.random.RandomState(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * k * pitch * time + rng.uniform(0, 6)) / k for k in range(1, 8))
    swell = np.clip(np.sin(2 * np.pi * 4 * time + rng.uniform(0, 6)), 0, 1)
    swell[: RATE // 20] = swell[-RATE // 20 :] = 0.0
    return (0.1 * wave * swell + 1e-4 * rng.standard_normal(len(time))).astype(np.float32)


def write_voices(
    folder: Path, *, takes: int = 3, seconds: float = 1.0, parts: bool = True
) -> Corpus:
    """Write 8 speakers x takes utterances of slightly different lengths."""
    (folder / "audio").mkdir(parents=True)
    utterances = []
    names = [part for part, count in PARTS.items() for _ in range(count)]
    for s, part in enumerate(names):
        for take in range(takes):
            name = f"v{s}-{take}"
            path = folder / "audio" / f"{name}.wav"
            wave = voice(110 * 2 ** (s / 4), seconds * (1 + 0.1 * take), len(utterances))
            soundfile.write(path, wave, RATE, subtype="PCM_16")
            utterances.append(
                Utterance(
                    id=name, path=str(path), start=0.0, duration=len(wave) / RATE, sample_rate=RATE,
                    speaker=f"v{s}", text="la la", split=part if parts else None,
                    labels={"gender": "f" if s % 2 else "m"},
                )
            )  # fmt: skip
    return write_corpus(folder, utterances, name=folder.name)
