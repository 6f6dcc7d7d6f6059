"""Contours are measured once, and are those that were measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mynah.downstream.core.melspec import MelSpec
from mynah.downstream.vocoders.core.prosody import analyse_prosody
from mynah.recipes.conversion import pitches

SPEC = MelSpec()


def buzz(pitch: float) -> np.ndarray:
    time = np.arange(8000) / SPEC.sample_rate
    return sum(np.sin(2 * np.pi * k * pitch * time) / k for k in range(1, 8)).astype(np.float32) / 4


def test_each_recording_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pitches.forget()
    low, high = buzz(110.0), buzz(220.0)
    wanted = [analyse_prosody(torch.from_numpy(w), SPEC).f0_T for w in (low, high)]
    measured = []

    def counted(wav_S: torch.Tensor, spec: MelSpec) -> object:
        measured.append(len(wav_S))
        return analyse_prosody(wav_S, spec)

    monkeypatch.setattr(pitches, "analyse_prosody", counted)
    for _ in range(3):
        for wave, f0_T in zip((low, high), wanted, strict=True):
            assert torch.equal(pitches.f0_of(wave.copy(), SPEC), f0_T)
    assert len(measured) == 2
    pitches.f0_of(low, MelSpec(hop=200))
    assert len(measured) == 3  # other frames


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pitches.forget()
    monkeypatch.setattr(pitches, "KEPT", 2)
    for pitch in (110.0, 150.0, 220.0):
        pitches.f0_of(buzz(pitch), SPEC)
    assert len(pitches._kept) == 2
