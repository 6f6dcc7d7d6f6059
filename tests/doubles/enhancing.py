"""Noisy voices on disk, and SE loaded with them."""

import dataclasses
from pathlib import Path

import numpy as np
import soundfile
import torch
from voices import RATE, write_voices

from mynah.downstream.core.featurizer import Featurizer, Probe
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


def learnt(task, batch, *, lr: float, updates: int):  # type: ignore[no-untyped-def]
    """Train the head of SE or SS on a batch's own spectra; returns what it then says of the batch."""
    (frames,) = task.head_inputs(batch)
    spectra = torch.zeros(1, len(batch), int(frames.max()), 257)
    for row, u in enumerate(batch):
        spectra[0, row, : frames[row]] = task.stft(task.wave(u)[None])[0].abs().log1p()
    torch.manual_seed(0)
    probe = Probe(Featurizer(1), task.head(257))
    optimizer = torch.optim.Adam(probe.parameters(), lr=lr)
    for _ in range(updates):
        optimizer.zero_grad()
        masks = probe.head(probe.featurizer(spectra), frames, frames)
        task.losses(masks[None], frames, batch).mean().backward()
        optimizer.step()
    with torch.no_grad():
        return task.infer(probe.eval(), spectra, frames, batch)
