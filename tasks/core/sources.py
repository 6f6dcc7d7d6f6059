"""Reference signals of an utterance: clean speech, separated sources; and audio that was read lately.

A label such as ``clean`` or ``s1`` is the path of a recording with the rate and the length of the
utterance's own; the utterance's start, duration and channel hold for it too. A path that is not
absolute is relative to the folder of the utterance's own file, so that a corpus can be moved.

Shape suffix: S samples.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mynah.tasks.core.contract import DataError
from mynah.tasks.core.splits import first_few
from mynah.tasks.corpora.audio import BadAudioError, probe, read
from mynah.tasks.corpora.utterance import Utterance

KEPT = 256 << 20  # bytes of audio


def source(utterance: Utterance, label: str) -> Utterance:
    """Return a reference of an utterance as an utterance.

    Raises:
        DataError: it has no such label.
    """
    name = utterance.label(label)
    if not name:
        raise DataError(f"{utterance.id} has no {label}")
    path = Path(utterance.path).parent / name
    return dataclasses.replace(utterance, id=f"{utterance.id}#{label}", path=str(path))


def check_sources(utterances: Sequence[Utterance], labels: Sequence[str]) -> None:
    """Refuse references that are missing or cannot belong to their utterance; headers are read.

    Raises:
        DataError: names the first of them.
    """
    wrong = []
    for u in utterances:
        try:
            own = probe(u.path)
            for label in labels:
                other = source(u, label)
                found = probe(other.path)
                mine = (own.sample_rate, own.frames, own.channels)
                theirs = (found.sample_rate, found.frames, found.channels)
                if mine != theirs:
                    raise DataError(
                        f"{label} has {theirs[0]} Hz, {theirs[1]} samples, {theirs[2]} channels, "
                        f"the utterance {mine[0]} Hz, {mine[1]} samples, {mine[2]} channels"
                    )
        except (BadAudioError, DataError) as error:
            wrong.append(f"{u.id}: {error}")
    if wrong:
        raise DataError(
            f"these utterances and their references do not go together: {first_few(wrong)}"
        )


class Waves:
    """Audio at one rate; what was read last is kept, as much as fits.

    Args:
        sample_rate: Hz.
        kept: bytes.
    """

    def __init__(self, sample_rate: int, *, kept: int = KEPT) -> None:
        self.sample_rate = sample_rate
        self.room = kept
        self._found: OrderedDict[tuple[str, float, float, int], Tensor] = OrderedDict()

    def __call__(self, utterance: Utterance) -> Tensor:
        """Return the samples (S,) of an utterance, float32.

        Raises:
            DataError: audio that cannot be read.
        """
        key = (utterance.path, utterance.start, utterance.duration, utterance.channel)
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        try:
            wav_S = torch.from_numpy(read(utterance, self.sample_rate))
        except BadAudioError as error:
            raise DataError(f"{utterance.id}: {error}") from error
        self._found[key] = wav_S
        self.room -= wav_S.nbytes
        while self.room < 0 and len(self._found) > 1:
            self.room += self._found.popitem(last=False)[1].nbytes
        return wav_S
