"""An engine that measures the pitch of a voice once, however often it converts to it.

WORLD's F0 of a minute of speech takes seconds, a conversion a fraction of one; visitors try several
sources and methods on the same voice.

Shape suffixes: S samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from mynah.downstream.vocoders.core.prosody import F0Stats, analyse_prosody
from mynah.recipes.conversion.checks import Recording, Wave, resampled
from mynah.recipes.conversion.engine import Engine

MOST = 256
"""Voices that are remembered."""


class Ranges:
    """Where the pitch of voices lies, by what their recordings hold."""

    def __init__(self) -> None:
        self._known: dict[str, F0Stats | None] = {}

    def of(self, recordings: Sequence[Recording], engine: Engine) -> F0Stats | None:
        """Return the range of a voice, None where nothing is voiced.

        Args:
            recordings: of the voice.
            engine: whose spectrograms say at which rate and frames F0 is measured.
        """
        spec = engine.hearing.spec
        digest = hashlib.sha256(repr(spec).encode())
        for one in recordings:
            digest.update(f"{one.sample_rate} {len(one.wav_S)} ".encode())
            digest.update(one.wav_S.tobytes())
        key = digest.hexdigest()
        if key not in self._known:
            waves = [torch.from_numpy(resampled(one, spec.sample_rate)) for one in recordings]
            while len(self._known) >= MOST:
                del self._known[next(iter(self._known))]
            self._known[key] = F0Stats.of([analyse_prosody(w, spec).f0_T for w in waves])
        return self._known[key]


class Remembering(Engine):
    """What another engine is, with the pitch of voices remembered.

    Args:
        engine: what it is to be.
        ranges: shared by engines.
    """

    def __init__(self, engine: Engine, ranges: Ranges) -> None:
        super().__init__(
            engine.converter,
            engine.hearing,
            engine.vocoder,
            identity=engine.identity,
            longest=engine.longest,
            key=engine.key,
        )
        self.ranges = ranges

    def _pitch(
        self, wav_S: Wave, kept: Sequence[Recording], own: Sequence[Recording], **how: Any
    ) -> Any:
        pitch = super()._pitch(wav_S, [], own, **how)
        if self.converter.moves_pitch and not how["keep"]:
            pitch = replace(pitch, target=self.ranges.of(kept, self))
        return pitch
