"""Noisy voices on disk, and SE loaded with them."""

import dataclasses
from pathlib import Path

import numpy as np
import soundfile
from voices import RATE, write_voices

from mynah.tasks import se
from mynah.tasks.core.contract import Facts
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.mixture_plan import Options
from mynah.tasks.corpora.mixtures import build
from mynah.tasks.corpora.utterance import Utterance

SE = se.TASK
FACTS = Facts(dim=4, layers=2, stride=160, sample_rate=RATE)


def write_noisy(folder: Path) -> Corpus:
    """Write voices to a folder and, beside them, their mixtures with noise."""
    voices = write_voices(folder / "voices", takes=2)
    return build(folder / "noisy", voices, Options(kind="enhancement", snr=(0.0, 5.0)))


def bound(noisy: Corpus, protocol: str = "fixed", **facts: int):  # type: ignore[no-untyped-def]
    task = SE(protocol)  # type: ignore[arg-type]
    task.load(noisy.utterances())
    task.bind(dataclasses.replace(FACTS, **facts))
    return task


def audio(u: Utterance, label: str | None = None) -> np.ndarray:
    path = u.path if label is None else str(Path(u.path).parent / u.labels[label])
    return soundfile.read(path, dtype="float32")[0]
