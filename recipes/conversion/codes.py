"""What converters make of utterances: content codes, when their frames are, and speaker vectors.

Shape suffixes: T frames, C width of a code, V width of a speaker vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mynah.recipes.conversion.checks import Recording
from mynah.recipes.conversion.code_probes import pooled
from mynah.recipes.conversion.opening import SIMPLE, Choice, open_engine
from mynah.recipes.progress import track
from mynah.tasks.corpora.audio import read
from mynah.tasks.corpora.utterance import Utterance

REFERENCE = "fbank"
"""No converter: FBANK features, a reference for what frames of a spectrum hold."""


@dataclass(frozen=True, kw_only=True)
class Coded:
    """Utterances as a converter takes them apart.

    Attributes:
        codes: content code (T, C) of each utterance.
        seconds: middle of each of its frames (T,), in seconds from the utterance's start.
        voices: speaker vector (1, V) of each utterance.
        identity: of the converter, ready for JSON.
    """

    codes: list[Tensor]
    seconds: list[NDArray[np.float64]]
    voices: list[Tensor]
    identity: dict[str, Any]


@torch.no_grad()
def codes_of(method: str, utterances: Sequence[Utterance]) -> Coded:
    """Return codes and speaker vectors of utterances, each known by itself alone.

    Args:
        method: without training (stats, mkl, knn, copy), run folder of a trained converter, or
            ``fbank``.
        utterances: what is heard.

    Raises:
        ValueError, LookupError, FileNotFoundError: no such converter.
        BadAudioError: a recording that cannot be read.
    """
    if method == REFERENCE:
        return _fbank(utterances)
    choice = Choice(method=method) if method in SIMPLE else Choice(model=Path(method))
    engine = open_engine(choice)
    spec, converter = engine.hearing.spec, engine.converter
    found = Coded(codes=[], seconds=[], voices=[], identity=engine.identity)
    for u in track(utterances, f"codes of {Path(method).name}"):
        wav_S = read(u, engine.sample_rate)
        heard = engine.hear(Recording(wav_S=wav_S, sample_rate=engine.sample_rate))
        code_TC = converter.encode_content(heard)
        found.codes.append(code_TC)
        found.seconds.append(np.array([spec.centre(frame) for frame in range(len(code_TC))]))
        voice = converter.encode_speaker([heard])
        found.voices.append(converter.speaker_vector(voice)[None])
    return found


def _fbank(utterances: Sequence[Utterance]) -> Coded:
    """Return FBANK as the code, and its mean and deviation over time as the speaker vector."""
    from mynah.upstream.core.mel import WIDTH
    from mynah.upstream.core.spec import load

    upstream = load(REFERENCE)
    rate = upstream.sample_rate
    identity = {"features": REFERENCE, "fingerprint": upstream.fingerprint()}
    found = Coded(codes=[], seconds=[], voices=[], identity=identity)
    for u in track(utterances, f"{REFERENCE} frames"):
        (code_TC,) = upstream.hidden_states([torch.from_numpy(read(u, rate))])
        found.codes.append(code_TC)
        found.seconds.append((np.arange(len(code_TC)) * upstream.stride + WIDTH / 2) / rate)
        found.voices.append(torch.from_numpy(pooled(code_TC)).float()[None])
    return found
